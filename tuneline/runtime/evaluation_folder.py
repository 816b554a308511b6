"""The folder evaluation/: what a user brings to evaluation, and which of its files params.yaml names for a stage.

A stage depends on the files that its keys name, on modules of the folder that these import, and on files of it that they name
as a constant. Each counts with the sha256 of all of its bytes: here a docstring is shown, too.
"""

import ast
import re
import symtable
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from tuneline.runtime.hashing import file_sha256
from tuneline.runtime.params import PARAMS, read_params

FOLDER = Path("evaluation")
STAGES = {
    ("evaluate", "metrics"): ("evaluate",),
    ("evaluate", "general"): ("predict_base", "evaluate"),
    ("train", "eval_metrics"): ("train",),
}
"""Section and key, and the stages that read the files it names."""
SPEC = re.compile(r"(?P<file>[^:]+\.py):(?P<function>[^:]+)")
"""Of a function: `my_metrics.py:triage_accuracy`."""


def files_of_stages(root: Path = Path()) -> dict[str, dict[str, str]]:
    """{stage: {file: sha256}} of files of evaluation/ that are there; what is wrong with params.yaml is said elsewhere."""
    document = _document(root)
    found: dict[str, dict[str, str]] = {}
    for (section, key), stages in STAGES.items():
        names = [name for text in named(document, section, key) if (name := file_name(text, key))]
        hashes = hashes_of(names, root / FOLDER)
        for stage in stages:
            found[stage] = found.get(stage, {}) | {f"{FOLDER}/{name}": digest for name, digest in hashes.items()}
    return found


def is_inside(name: str) -> bool:
    """Whether a file of a list is one of this folder."""
    return PurePosixPath(name).parts[0] == FOLDER.name


def check_files(root: Path = Path()) -> None:
    """Raises ValueError for every file that params.yaml names and that is not there, is no Python, or lacks the function."""
    document = _document(root)
    wrong = []
    for section, key in STAGES:
        for text in named(document, section, key):
            try:
                _check(root / FOLDER, text, key)
            except ValueError as error:
                wrong.append(f"{section}.{key} names {text}: {error}")
    if wrong:
        raise ValueError(f"{PARAMS}: {'; '.join(wrong)}")


def named(document: Mapping[str, Any], section: str, key: str) -> list[str]:
    """What a key of params.yaml names, one or several; nothing where the section has no such key."""
    values = document.get(section)
    value = values.get(key) if isinstance(values, Mapping) else None
    texts = value if isinstance(value, list) else [value]
    return [text for text in texts if isinstance(text, str)]


def file_name(text: str, key: str = "metrics") -> str | None:
    """The file that an entry of a key names, relative to the folder; None for the name of a metric that is built in."""
    if key == "general":
        return text
    spec = SPEC.fullmatch(text)
    return spec["file"] if spec else None


def path_of(name: str, folder: Path = FOLDER) -> Path:
    """Raises ValueError for a file that is not there, or lies elsewhere."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{path} lies elsewhere, expected a file inside {folder}/")
    if not path.is_file():
        raise ValueError(f"{path} is not there: put the file into {folder}/, or mend its name in {PARAMS}")
    return path


def hashes_of(names: Iterable[str], folder: Path = FOLDER) -> dict[str, str]:
    """{file: sha256} of these files of the folder and of those that they import or name, at any depth, as far as there."""
    found: dict[str, str] = {}
    waiting = list(names)
    while waiting:
        name = PurePosixPath(waiting.pop()).as_posix()
        if name not in found and _is_file(folder, name):
            found[name] = file_sha256(folder / name)
            waiting += _used(folder, name) if name.endswith(".py") else []
    return dict(sorted(found.items()))


def check_syntax(source: str, path: Path) -> None:
    """Raises ValueError naming file and line where the source is no Python."""
    try:
        compile(source, str(path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise ValueError(f"{path}{line}: {getattr(error, 'msg', error)}") from None


def read_source(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from None


def _check(folder: Path, text: str, key: str) -> None:
    name = file_name(text, key)
    if name is None:
        return
    path = path_of(name, folder)
    if spec := SPEC.fullmatch(text):
        source = read_source(path)
        check_syntax(source, path)
        symbols = symtable.symtable(source, str(path), "exec").get_symbols()
        known = {symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported()}
        if spec["function"] not in known and "import *" not in source:
            raise ValueError(
                f"{path} has no {spec['function']}, expected one of {', '.join(sorted(known)) or 'nothing'}"
            )


def _used(folder: Path, name: str) -> Iterator[str]:
    """Files that a module of the folder may import or read."""
    try:
        tree = ast.parse((folder / name).read_text(encoding="utf-8"))
    except (SyntaxError, ValueError):
        # Said where it is loaded.
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (f"{alias.name}.py" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield f"{node.module}.py"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value.removeprefix(f"{FOLDER}/")


def _is_file(folder: Path, name: str) -> bool:
    try:
        path = (folder / name).resolve()
        return path.is_file() and path.is_relative_to(folder.resolve())
    except (OSError, ValueError):
        # A long text, or one with a NUL, is no path.
        return False


def _document(root: Path) -> dict[str, Any]:
    try:
        return read_params(root / PARAMS)
    except ValueError:
        return {}
