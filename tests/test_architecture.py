"""How the tree is built: who may import whom, how large things may be, and what a module may not be called."""

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

CODE = ("stages", "tuneline", "chat", "benchmarks")
BELOW = {
    "runtime": {"runtime"},
    "formats": {"runtime", "formats"},
    "models": {"runtime", "formats", "models"},
    "endpoint": {"runtime", "formats", "endpoint"},
    "scoring": {"runtime", "formats", "scoring"},
}
"""What all of the pipeline stands on, and what each of these may import."""
OF_STAGES = {"fetch", "base", "data", "tokenize", "train", "evaluate", "export"}
"""Packages that hold what a stage runs."""
PACKAGE = {"convert": "data", "predict_base": "evaluate", "report": "evaluate"}
"""Of a stage whose package has another name."""
EXCEPTIONS = {
    "tuneline/__main__.py": {"cli", "runtime"},
    "tuneline/cli/app.py": {"chat"},
    "benchmarks/plan.py": {"cli"},
    "benchmarks/rows/text.py": {"cli"},
    "benchmarks/study/coverage.py": {"study"},
    "benchmarks/train.py": {"cli"},
    "tuneline/export/card_figures.py": {"evaluate"},
    "tuneline/export/model_card.py": {"evaluate"},
}
"""The command's two ways in, `python -m tuneline` and its list of subcommands; the stage that checks all parameters;
benchmarks of what a command predicts or computes; and the model card, which says what the report does."""
NOT_NAMES = {"utils", "common", "helpers", "core"}


def python_files(root: Path) -> list[Path]:
    return sorted(path for folder in CODE for path in (root / folder).rglob("*.py"))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(root: Path, path: Path) -> set[str]:
    """Names of our packages and modules that a file imports at any depth, or names as a whole string to start them.

    A benchmark starts what it measures as a user does, so its strings do not count.
    """
    names: set[str] = set()
    by_name = path.relative_to(root).parts[0] != "benchmarks"
    package = path.relative_to(root).parent.parts
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom):
            parts = [*(package[: len(package) - node.level + 1] if node.level else ()), *filter(None, [node.module])]
            names |= {".".join([*parts, alias.name]) for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and by_name:
            names |= {node.value} if is_module(root, node.value) else set()
    return {name for name in names if name.partition(".")[0] in CODE}


def is_module(root: Path, text: str) -> bool:
    """Whether a string is the dotted name of a module or package of ours."""
    path = root / text.replace(".", "/")
    return bool(re.fullmatch(r"\w+(\.\w+)+", text)) and (path.with_suffix(".py").is_file() or path.is_dir())


def group(name: str) -> str:
    """The package that a name is in: of tuneline's, the one below it."""
    first, *rest = name.split(".")
    return rest[0] if first == "tuneline" and rest else first


def allowed(file: str) -> set[str] | None:
    """What a file may import of ours; None when it is in a package that the rule does not know."""
    folder, *rest = Path(file).with_suffix("").parts
    everything = {"tuneline", "sections", *BELOW, *OF_STAGES}
    if folder == "stages":
        stage = rest[0]
        return {"runtime", "sections"} if stage == "code" else {*BELOW, PACKAGE.get(stage, stage)}
    if folder != "tuneline":
        return {*everything, folder}
    if rest[0] in OF_STAGES:
        return {*BELOW, rest[0]}
    known = {
        "cli": {*everything, "served", "study", "cli"},
        "study": {*everything, "study"},
        "served": {*BELOW, "evaluate", "served"},
        "sections": everything,
        "__init__": set(),
        "__main__": set(),
    }
    return (BELOW | known).get(rest[0])


def wrong_imports(root: Path) -> list[str]:
    """Every import against the rule, as `file: name`."""
    found = []
    for path in python_files(root):
        file = path.relative_to(root).as_posix()
        groups = allowed(file)
        if groups is None:
            found.append(f"{file}: in no known package")
            continue
        groups = groups | EXCEPTIONS.get(file, set())
        names = sorted(imported(root, path))
        found += [f"{file}: {name}" for name in names if group(name) not in groups]
        if file == "tuneline/sections.py":
            # Schemas, and nothing that a stage runs.
            found += [
                f"{file}: {name}" for name in names if not re.search(r"\.config\b|\.runtime\b|\.sections\b", name)
            ]
    return found


def too_long_modules(root: Path) -> list[str]:
    sizes = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in python_files(root)}
    return [f"{path.relative_to(root)}: {size} lines" for path, size in sizes.items() if size > 250]


def too_long_mains(root: Path) -> list[str]:
    """Also stages without a main()."""
    found = []
    for path in sorted((root / "stages").glob("[a-z]*.py")):
        mains = [node for node in parsed(path).body if isinstance(node, ast.FunctionDef) and node.name == "main"]
        sizes = [(node.end_lineno or 0) - node.lineno + 1 for node in mains]
        found += [f"{path.relative_to(root)}: {sizes}"] if len(sizes) != 1 or sizes[0] > 15 else []
    return found


def too_many_beside(root: Path) -> list[str]:
    """Packages with over 20 modules, and tuneline/ with over 18 modules and packages."""
    folders = sorted({path.parent for path in python_files(root)})
    counts = {folder: len(list(folder.glob("*.py"))) for folder in folders}
    found = [f"{folder.relative_to(root)}: {count} modules" for folder, count in counts.items() if count > 20]
    top = {path.relative_to(root / "tuneline").parts[0] for path in (root / "tuneline").rglob("*.py")}
    return found + ([f"tuneline: {len(top)} modules and packages"] if len(top) > 18 else [])


def names_of_nothing(root: Path) -> list[str]:
    files = [path.relative_to(root) for path in python_files(root)]
    return [str(file) for file in files if NOT_NAMES & set(file.with_suffix("").parts)]


def too_long_map(root: Path) -> list[str]:
    size = len((root / "dvc.yaml").read_text(encoding="utf-8").splitlines())
    return [f"dvc.yaml: {size} lines"] if size > 200 else []


Check = Callable[[Path], list[str]]
CHECKS: list[Check] = [
    wrong_imports, too_long_modules, too_long_mains, too_many_beside, names_of_nothing, too_long_map,
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_tree_is_built_as_contributing_says(check):
    assert len(python_files(ROOT)) > 100
    assert check(ROOT) == []


def tree(root: Path, files: dict[str, str]) -> Path:
    """A project that is built as it should be, but for these files."""
    modules = [f"tuneline/{name}/__init__.py" for name in (*BELOW, *OF_STAGES, "cli")]
    modules += ["tuneline/cli/plan.py", "chat/page.py", "stages/__init__.py", "benchmarks/train.py"]
    for name, text in (dict.fromkeys(modules, "") | {"dvc.yaml": "stages:\n"} | files).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("tuneline/runtime/a.py", "tuneline.formats.records"),
        ("tuneline/runtime/a.py", "tuneline.train"),
        ("tuneline/formats/a.py", "tuneline.models.loading"),
        ("tuneline/formats/a.py", "tuneline.evaluate.report"),
        ("tuneline/models/a.py", "tuneline.train.methods"),
        ("tuneline/models/chatglm/a.py", "tuneline.base.source"),
        ("tuneline/train/a.py", "tuneline.data.config"),
        ("tuneline/train/config/a.py", "tuneline.export.config"),
        ("tuneline/scoring/a.py", "tuneline.tokenize.encode"),
        ("tuneline/data/a.py", "tuneline.cli.plan"),
        ("tuneline/export/a.py", "chat.page"),
        ("tuneline/base/a.py", "stages.base"),
        ("tuneline/fetch/a.py", "benchmarks.train"),
        ("tuneline/cli/a.py", "chat.page"),
        ("tuneline/cli/a.py", "stages.train"),
        ("tuneline/cli/a.py", "benchmarks.train"),
        ("tuneline/__init__.py", "tuneline.runtime.atomic"),
        ("tuneline/__main__.py", "tuneline.train.run"),
        ("stages/train.py", "tuneline.tokenize.encode"),
        ("stages/convert.py", "tuneline.convert.rows"),
        ("stages/predict_base.py", "tuneline.train.methods"),
        ("stages/train.py", "stages.base"),
        ("stages/train.py", "tuneline.cli.plan"),
        ("stages/code.py", "tuneline.formats.records"),
        ("stages/code.py", "tuneline.train.methods"),
        ("stages/train.py", "tuneline.sections"),
        ("tuneline/train/a.py", "tuneline.sections"),
        ("tuneline/sections.py", "tuneline.train.methods"),
        ("chat/a.py", "tuneline.cli.plan"),
        ("chat/a.py", "stages.train"),
        ("benchmarks/a.py", "tuneline.cli.plan"),
        ("benchmarks/a.py", "chat.page"),
    ],
)
def test_a_planted_import_against_the_rule_is_found(tmp_path, file, name):
    package, _, module = name.rpartition(".")
    for statement in (
        f"import {name}",
        f"from {package} import {module}",
        f"from {name} import something",
        f"def main():\n    from {name} import something",
    ):
        (found,) = wrong_imports(tree(tmp_path, {file: f"{statement}\n"}))
        assert found.startswith(f"{file}: {name}")


@pytest.mark.parametrize(
    ("file", "statement"),
    [
        ("tuneline/train/a.py", "from ..data import config"),
        ("tuneline/train/a.py", "from .. import data"),
        ("tuneline/train/config/a.py", "from ...data.config import Data"),
        ("tuneline/data/a.py", "import tuneline"),
        ("tuneline/data/a.py", "import chat"),
        ("tuneline/data/a.py", 'WORDS = ["-m", "tuneline.cli.plan"]'),
        ("tuneline/cli/plan.py", 'MODULE = "chat.page"'),
    ],
)
def test_other_ways_to_import_are_seen(tmp_path, file, statement):
    assert len(wrong_imports(tree(tmp_path, {file: f"{statement}\n"}))) == 1


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("tuneline/runtime/a.py", "tuneline.runtime.atomic"),
        ("tuneline/formats/a.py", "tuneline.runtime.atomic"),
        ("tuneline/models/chatglm/a.py", "tuneline.formats.records"),
        ("tuneline/train/config/a.py", "tuneline.train.methods"),
        ("tuneline/evaluate/a.py", "tuneline.models.loading"),
        ("tuneline/cli/a.py", "tuneline.train.methods"),
        ("tuneline/cli/app.py", "chat.page"),
        ("tuneline/__main__.py", "tuneline.cli.plan"),
        ("stages/convert.py", "tuneline.data.config"),
        ("stages/predict_base.py", "tuneline.evaluate.predict"),
        ("stages/train.py", "tuneline.models.loading"),
        ("stages/code.py", "tuneline.runtime.code"),
        ("stages/code.py", "tuneline.sections"),
        ("tuneline/sections.py", "tuneline.export.config"),
        ("chat/a.py", "tuneline.train.methods"),
        ("benchmarks/a.py", "tuneline.data.readers"),
        ("tuneline/data/a.py", "collections.abc"),
    ],
)
def test_an_import_by_the_rule_is_not_found(tmp_path, file, name):
    assert wrong_imports(tree(tmp_path, {file: f"import {name}\nfrom {name} import something\n"})) == []


def test_a_command_may_find_the_package_and_a_benchmark_may_start_what_it_measures(tmp_path):
    files = {"tuneline/cli/a.py": "import tuneline\n", "benchmarks/a.py": 'WORDS = ["-m", "chat.page"]\n'}
    assert wrong_imports(tree(tmp_path, files)) == []


MAIN = "def main(stage):\n" + "    x = 1\n"


@pytest.mark.parametrize(
    ("check", "files", "found"),
    [
        (wrong_imports, {"tuneline/portal/a.py": ""}, "tuneline/portal/a.py: in no known package"),
        (too_long_modules, {"chat/a.py": "x = 1\n" * 251}, "chat/a.py: 251 lines"),
        (too_long_mains, {"stages/a.py": MAIN + "\n    # why\n" * 7}, None),
        (too_long_mains, {"stages/a.py": MAIN + "    x = 1\n" * 14}, "stages/a.py: [16]"),
        (too_long_mains, {"stages/a.py": "def run(stage):\n    x = 1\n"}, "stages/a.py: []"),
        (too_many_beside, {f"tuneline/train/a{n}.py": "" for n in range(20)}, "tuneline/train: 21 modules"),
        (too_many_beside, {f"tuneline/a{n}.py": "" for n in range(6)}, "tuneline: 19 modules and packages"),
        (names_of_nothing, {"tuneline/data/utils.py": ""}, "tuneline/data/utils.py"),
        (names_of_nothing, {"tuneline/train/core/a.py": ""}, "tuneline/train/core/a.py"),
        (names_of_nothing, {"benchmarks/helpers.py": ""}, "benchmarks/helpers.py"),
        (too_long_map, {"dvc.yaml": "stages:\n" * 201}, "dvc.yaml: 201 lines"),
    ],
)
def test_what_is_planted_is_found_by_its_check_alone(tmp_path, check, files, found):
    assert all(other(tree(tmp_path / "good", {})) == [] for other in CHECKS)
    root = tree(tmp_path / "bad", files)
    assert check(root) == ([found] if found else [])
