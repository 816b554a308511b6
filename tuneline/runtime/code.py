"""The code that a stage runs: its module and all that it imports, each file with a hash of its code alone.

The first stage, `code`, writes one list per stage into code/<stage>.txt, on which the stage depends: a changed comment or
docstring reruns nothing, changed code reruns just the stages that run it, and a diff of the list names the file.
"""

import ast
import hashlib
import io
import re
import tokenize
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from tuneline.runtime.evaluation_folder import files_of_stages, is_inside
from tuneline.runtime.hashing import file_sha256

FOLDER = Path("code")
OURS = re.compile(r"(tuneline|stages)(\.\w+)+")
"""Names of modules that count as code of a stage."""
BY_NAME = {"import_module", "__import__", "run_module"}
"""Functions that run a module by its name, which must be a constant, or the module could not be found here."""
BY_TEXT = {"run_path", "spec_from_file_location", "exec", "eval"}
"""Functions that run code which is not found here at all."""
OF_USERS = "tuneline/scoring/own_modules.py"
"""The one module that runs such code: files of evaluation/, which the lists hold."""
SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING}


def list_path(stage: str) -> Path:
    """Where the list of a stage lies."""
    return FOLDER / f"{stage}.txt"


def code_lists(root: Path = Path()) -> dict[str, dict[str, str]]:
    """{stage: {file: hash}} of every module in stages/ but `code` itself, and of what params.yaml names in evaluation/.

    Raises ValueError naming file and line for code that can't be found by reading.
    """
    modules, read = sorted((root / "stages").glob("[a-z]*.py")), dict[Path, set[Path]]()
    files = {module.stem: stage_files(root, module, read) for module in modules if module.stem != "code"}
    hashes = {path: code_hash(path) for path in {path for paths in files.values() for path in paths}}
    brought = files_of_stages(root)
    return {
        stage: {path.relative_to(root).as_posix(): hashes[path] for path in paths} | brought.get(stage, {})
        for stage, paths in files.items()
    }


def all_code(root: Path = Path()) -> dict[str, str]:
    """{file: hash} of the code of all stages."""
    return {name: digest for files in code_lists(root).values() for name, digest in files.items()}


def to_text(files: Mapping[str, str]) -> str:
    """A list as it is written: `<hash>  <file>` a line, sorted by file."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(files.items()))


def read_list(stage: str) -> dict[str, str]:
    """{file: hash} from code/<stage>.txt. Raises ValueError when it is missing."""
    path = list_path(stage)
    if not path.is_file():
        raise ValueError(f"{path} was not found in {Path.cwd()}: run `dvc repro` in the root of the project")
    lines = (line.partition("  ") for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    return {name: digest for digest, _, name in lines}


def changed_files(files: Mapping[str, str], root: Path = Path()) -> list[str]:
    """Files of a list that are not there any more, or whose code has another hash."""
    return [name for name, digest in files.items() if not (root / name).is_file() or _listed(root, name) != digest]


def _listed(root: Path, name: str) -> str:
    """The hash of a file as a list has it."""
    return file_sha256(root / name) if is_inside(name) else code_hash(root / name)


def stage_files(root: Path, module: Path, read: dict[Path, set[Path]] | None = None) -> list[Path]:
    """The module, all of ours that it imports at any depth, and the data files that these read, sorted.

    Packages that hold only a docstring are left out. `read` is {file: what it imports and reads}, for several stages: what
    is not in it yet is added.
    """
    read = {} if read is None else read
    seen: set[Path] = set()
    waiting = [module]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            if current not in read:
                code = current.suffix == ".py"
                read[current] = _imported_files(root, current) | _data_files(root, current) if code else set()
            waiting += read[current]
    return sorted(path for path in seen if path.suffix != ".py" or _has_code(path))


def code_hash(path: Path) -> str:
    """sha256 of a file; of Python code without its comments, docstrings and blank lines."""
    content = path.read_bytes()
    if path.suffix == ".py":
        # A file that is being edited may be no Python at this moment.
        with suppress(SyntaxError, tokenize.TokenError, UnicodeDecodeError):
            content = strip_comments(content.decode("utf-8")).encode()
    return hashlib.sha256(content).hexdigest()


@cache
def strip_comments(source: str) -> str:
    """Python source without comments, docstrings, trailing white space and blank lines; the rest stays as it is written.

    A docstring is any string that is a statement of its own. Text, and not a syntax tree, so that every version of Python
    gives the same.
    """
    lines = [list(line) for line in source.split("\n")]
    kept: set[int] = set()
    """Numbers of the lines that end inside a string, where white space counts."""
    for begin, end in _silent_spans(source, kept):
        for number in range(begin[0], end[0] + 1):
            first = begin[1] if number == begin[0] else 0
            last = end[1] if number == end[0] else len(lines[number - 1])
            lines[number - 1][first:last] = " " * (last - first)
    texts = ("".join(line) for line in lines)
    stripped = [text if number in kept else text.rstrip() for number, text in enumerate(texts, start=1)]
    return "".join(text + "\n" for number, text in enumerate(stripped, start=1) if text or number in kept)


Place = tuple[int, int]


def _silent_spans(source: str, kept: set[int]) -> Iterator[tuple[Place, Place]]:
    """Where comments and docstrings begin and end; adds to `kept` the lines that end inside any other string."""
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    starts_statement = True
    opened: list[int] = []
    """Lines on which f-strings begin that are not closed yet: Python 3.12 and later give an f-string in pieces."""
    for number, token in enumerate(tokens):
        if token.type == tokenize.COMMENT:
            yield token.start, token.end
        elif _is_docstring(token) and starts_statement and _ends_statement(tokens, number):
            yield token.start, token.end
            continue
        elif token.type not in SILENT:
            kept.update(range(token.start[0], token.end[0]))
        if (kind := tokenize.tok_name[token.type]) == "FSTRING_START":
            opened.append(token.start[0])
        elif kind == "FSTRING_END":
            kept.update(range(opened.pop(), token.end[0]))
        starts_statement = token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING) or (
            token.type in (tokenize.COMMENT, tokenize.NL) and starts_statement
        )


def _is_docstring(token: tokenize.TokenInfo) -> bool:
    # An f-string, which Python 3.11 has as one token, runs code.
    return token.type == tokenize.STRING and "f" not in token.string.partition(token.string[-1])[0].lower()


def _ends_statement(tokens: list[tokenize.TokenInfo], number: int) -> bool:
    return tokens[number + 1].type in (tokenize.NEWLINE, tokenize.COMMENT, tokenize.ENDMARKER)


def _has_code(path: Path) -> bool:
    return bool(strip_comments(path.read_text(encoding="utf-8")))


def _imported_files(root: Path, path: Path) -> set[Path]:
    found = {file for name in imported_modules(root, path) if (file := module_file(root, name))}
    # Importing a module runs the packages around it, and so does running this one.
    around = {
        folder / "__init__.py" for file in (*found, path) for folder in file.parents if folder.is_relative_to(root)
    }
    return found | {file for file in around if file.is_file() and file.parent != root}


def module_file(root: Path, name: str) -> Path | None:
    """The file of one of our modules or packages; None for a name inside a module."""
    path = root / name.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def imported_modules(root: Path, path: Path) -> set[str]:
    """Dotted names of ours that a file imports, at its top or inside, or names as a whole string (`--module`).

    Raises ValueError for an import whose name is no constant.
    """
    names: set[str] = set()
    package = path.relative_to(root).parent.parts
    for node in _nodes(root, path):
        if isinstance(node, ast.ImportFrom):
            parts = list(package[: len(package) - node.level + 1] if node.level else [])
            module = ".".join([*parts, *([node.module] if node.module else [])])
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)
        elif isinstance(node, ast.Call) and _is_hidden(node) and path.relative_to(root).as_posix() != OF_USERS:
            raise ValueError(
                f"{path.relative_to(root)}, line {node.lineno}: {_called(node)} of a name that is no constant, so what it runs "
                "can't be found; import the module, or give its full name as text"
            )
    return {name for name in names if OURS.fullmatch(name)}


def _nodes(root: Path, path: Path) -> list[ast.AST]:
    """Every node of a file's syntax tree."""
    try:
        return _walk(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise ValueError(f"{path.relative_to(root)}, line {error.lineno}: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.relative_to(root)} is not UTF-8: {error}") from None


@cache
def _walk(source: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse(source)))


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _is_hidden(node: ast.Call) -> bool:
    """Whether a call runs code that can't be found by reading."""
    if _called(node) in BY_TEXT:
        # A method of that name without an argument (a model's, for eval mode) runs no code.
        return bool(node.args or node.keywords)
    if _called(node) not in BY_NAME:
        return False
    name = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
    return not isinstance(name, str) or name.startswith(".")


def _data_files(root: Path, path: Path) -> set[Path]:
    """Files that a module which knows its own place (`__file__`) reads: all beside it, and those it names further up."""
    tree = _nodes(root, path)
    if not any(isinstance(node, ast.Name) and node.id == "__file__" for node in tree):
        return set()
    texts = {node.value for node in tree if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    # Editors keep their own copies under names that begin or end so.
    visible = (file for file in path.parent.iterdir() if not file.name.startswith(".") and not file.name.endswith("~"))
    beside = {file for file in visible if file.is_file() and file.suffix not in (".py", ".pyc")}
    folders = [folder for folder in path.parents if folder != root and folder.is_relative_to(root)]
    above = {folder / text for folder in folders for text in texts if re.fullmatch(r"[\w.-]+\.\w+", text)}
    return beside | {file for file in above if file.is_file()}
