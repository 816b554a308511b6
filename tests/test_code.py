"""The list of code that a stage runs: all of it, and nothing that changes no result."""

import shutil
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from tuneline.runtime.code import (
    changed_files,
    code_hash,
    code_lists,
    list_path,
    read_list,
    stage_files,
    strip_comments,
    to_text,
)

MODULE = '''\
import os

LIMIT = 5


class Reader:
    size = 3

    def read(self, path):
        text = """one

  two   # no comment
three   
"""
        return f"{path} {text}"


f"{os.getcwd()}"
print("# no comment", LIMIT)
'''  # noqa: W291


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def same_code(tmp_path: Path, one: str, other: str) -> bool:
    write(tmp_path, {"one.py": one, "other.py": other})
    return code_hash(tmp_path / "one.py") == code_hash(tmp_path / "other.py")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("import os\n", "#!/usr/bin/env python\n# Why.\nimport os\n"),
        ("LIMIT = 5\n", "LIMIT = 5  # 上限\n"),
        ("    size = 3\n", "    # Why.\n    size = 3\n"),
        ("import os\n", '"""A module."""\n\nimport os\n'),
        ("import os\n", '"""A module.\n\nIn # several lines.   \n"""\nimport os\n'),
        ("class Reader:\n", 'class Reader:\n    """A class."""\n\n'),
        ("path):\n", "path):\n        'A function.'\n"),
        ("path):\n", 'path):\n        """A function."""  # and a comment\n'),
        ("LIMIT = 5\n", 'LIMIT = 5\n"""An attribute."""\n'),
        ("    size = 3\n", '    size = 3\n    """An attribute of a class."""\n'),
        ("LIMIT = 5\n\n\n", "LIMIT = 5\n"),
        ("LIMIT = 5\n", "LIMIT = 5\n\n\n\n"),
        ("LIMIT = 5\n", "LIMIT = 5   \n"),
        ("LIMIT)\n", "LIMIT)"),
    ],
)
def test_comments_docstrings_and_white_space_change_no_hash(tmp_path, old, new):
    assert MODULE.count(old) == 1
    assert same_code(tmp_path, MODULE, MODULE.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 5", "LIMIT = 6"),
        ("    size = 3\n", ""),
        ("        return", "    return"),
        ('"# no comment"', '"# another"'),
        ('"# no comment"', '"# no comment "'),
        ("two   # no comment", "two"),
        ("one\n\n", "one\n"),
        ("one\n\n", "one\n \n"),
        ("three   \n", "three\n"),
        ("  two", " two"),
        ("{path} {text}", "{path}{text}"),
        ("{path} {text}", "{text} {path}"),
        ('f"{os.getcwd()}"\n', ""),
        ('f"{os.getcwd()}"', 'f"{os.getpid()}"'),
    ],
)
def test_code_and_the_contents_of_strings_change_the_hash(tmp_path, old, new):
    assert MODULE.count(old) == 1
    assert not same_code(tmp_path, MODULE, MODULE.replace(old, new))


def test_what_is_kept_is_the_same_text_on_every_version_of_python():
    # Python 3.12 and later cut an f-string into pieces, and give the blank lines between its braces as lines of code.
    braces = 'x = f"""好 {\n\n  LIMIT   \n\n} b   \n\n{LIMIT}"""\n'
    assert strip_comments(f'"""Doc."""\n# 注\nLIMIT = 5  # 五\n\n{braces}f"{{LIMIT}}"\n\n') == (
        f'LIMIT = 5\n{braces}f"{{LIMIT}}"\n'
    )
    nested = "y = f'{x:{LIMIT}}{x!r}'"
    assert strip_comments(f"{nested}  # c\n\nz = 1\n") == f"{nested}\nz = 1\n"
    assert strip_comments("def one():\n\n    '''Doc.'''\n    # c\n    return (\n        1,  # c\n\n    )\n") == (
        "def one():\n    return (\n        1,\n    )\n"
    )


def test_a_file_that_is_no_python_counts_whole(tmp_path):
    write(tmp_path, {"a.jinja": "# one\n", "b.jinja": "# one \n", "c.jinja": "# one\n"})
    assert code_hash(tmp_path / "a.jinja") == code_hash(tmp_path / "c.jinja") != code_hash(tmp_path / "b.jinja")


PACKAGES = {
    "stages/__init__.py": '"""Stages."""\n',
    "tuneline/__init__.py": '"""A package."""\n',
    "tuneline/train/__init__.py": '"""A package."""\n',
    "tuneline/train/loop.py": "run = 1\n",
    "tuneline/train/step.py": "one = 1\n",
    "tuneline/train/config/__init__.py": '"""A package."""\n',
    "tuneline/train/config/lora.py": "r = 1\n",
    "tuneline/formats/__init__.py": '"""A package."""\n',
    "tuneline/formats/rows.py": "rows = 1\n",
}


def listed(root: Path, files: dict[str, str]) -> set[str]:
    """What is listed for stages/fit.py in a project of PACKAGES with these files."""
    write(root, PACKAGES | files)
    return {path.relative_to(root).as_posix() for path in stage_files(root, root / "stages/fit.py")} - {"stages/fit.py"}


@pytest.mark.parametrize(
    "statement",
    [
        "import tuneline.train.loop",
        "import os, tuneline.train.loop as it",
        "from tuneline.train.loop import run",
        "from tuneline.train import loop",
        "def main():\n    from tuneline.train.loop import run",
        "if True:\n    import tuneline.train.loop",
        'WORDS = ["--module", "tuneline.train.loop"]',
        'import_module("tuneline.train.loop")',
        'importlib.import_module("tuneline.train.loop")',
        '__import__("tuneline.train.loop")',
        'runpy.run_module("tuneline.train.loop", run_name="__main__")',
    ],
)
def test_an_imported_module_is_listed(tmp_path, statement):
    assert listed(tmp_path, {"stages/fit.py": f"{statement}\n"}) == {"tuneline/train/loop.py"}


@pytest.mark.parametrize(
    "statement", ["import os", "# import tuneline.train.loop", 'print("see tuneline.train.loop")', "model.eval()"]
)
def test_a_module_that_nobody_imports_is_not_listed(tmp_path, statement):
    assert listed(tmp_path, {"stages/fit.py": f"{statement}\n"}) == set()


@pytest.mark.parametrize(
    ("file", "statement", "found"),
    [
        ("tuneline/train/loop.py", "from .step import one", "tuneline/train/step.py"),
        ("tuneline/train/loop.py", "from . import step", "tuneline/train/step.py"),
        ("tuneline/train/loop.py", "from .config import lora", "tuneline/train/config/lora.py"),
        ("tuneline/train/loop.py", "from ..formats.rows import rows", "tuneline/formats/rows.py"),
        ("tuneline/train/loop.py", "from .. import formats\nfrom ..formats import rows", "tuneline/formats/rows.py"),
        ("tuneline/train/config/__init__.py", "from . import lora", "tuneline/train/config/lora.py"),
        ("tuneline/train/config/__init__.py", "from ..step import one", "tuneline/train/step.py"),
    ],
)
def test_a_relative_import_is_followed(tmp_path, file, statement, found):
    stage = "import tuneline.train.loop\nimport tuneline.train.config\n"
    before = listed(tmp_path, {"stages/fit.py": stage})
    assert found not in before
    assert listed(tmp_path, {"stages/fit.py": stage, file: f"{statement}\n"}) == before | {file, found}


@pytest.mark.parametrize("package", ["tuneline", "tuneline/train", "tuneline/train/config", "stages"])
def test_a_package_with_code_is_listed_when_a_module_inside_it_is_imported(tmp_path, package):
    stage = {"stages/fit.py": "import tuneline.train.config.lora\n"}
    assert listed(tmp_path, stage) == {"tuneline/train/config/lora.py"}
    init = f"{package}/__init__.py"
    assert listed(tmp_path, stage | {init: "LIMIT = 5\n"}) == {"tuneline/train/config/lora.py", init}


def test_what_a_package_with_code_imports_is_listed_too(tmp_path):
    files = {"stages/fit.py": "import tuneline.train.loop\n", "tuneline/train/__init__.py": "from .step import one\n"}
    assert listed(tmp_path, files) == {
        "tuneline/train/loop.py",
        "tuneline/train/step.py",
        "tuneline/train/__init__.py",
    }


@pytest.mark.parametrize(
    "call",
    [
        "import_module(name)",
        "importlib.import_module(name)",
        "import_module(name=name)",
        'import_module(f"tuneline.train.{name}")',
        'import_module("tuneline.train." + name)',
        'import_module(".step", name)',
        "__import__(name)",
        "runpy.run_module(name)",
        "runpy.run_path(name)",
        'spec_from_file_location("step", name)',
        "exec(name)",
        "eval(name)",
    ],
)
def test_an_import_of_a_name_that_is_no_constant_is_refused_with_file_and_line(tmp_path, call):
    files = {"stages/fit.py": "import tuneline.train.loop\n", "tuneline/train/loop.py": f"name = 1\n\n\nit = {call}\n"}
    with pytest.raises(ValueError, match=r"tuneline/train/loop\.py, line 4: .* no constant"):
        listed(tmp_path, files)
    # A module that no stage runs may.
    del files["stages/fit.py"]
    write(tmp_path / "other", PACKAGES | files | {"stages/fit.py": "import tuneline.train.step\n"})
    assert set(code_lists(tmp_path / "other")["fit"]) == {"stages/fit.py", "tuneline/train/step.py"}


DATA = {
    "tuneline/train/page.html.jinja": "page\n",
    "tuneline/train/limits.yaml": "limits\n",
    "tuneline/train/.limits.yaml.swp": "what an editor keeps\n",
    "tuneline/train/config/other.yaml": "other\n",
    "tuneline/packages.yaml": "packages\n",
    "tuneline/spare.yaml": "spare\n",
    "params.yaml": "params\n",
}


def test_data_beside_a_module_that_knows_its_place_is_listed_and_what_it_names_further_up(tmp_path):
    files = DATA | {"stages/fit.py": "import tuneline.train.loop\n"}
    knows = "HERE = Path(__file__)\nUP = HERE.parent.with_name('packages.yaml')\nNO = 'params.yaml'\n"
    assert listed(tmp_path, files | {"tuneline/train/loop.py": knows}) == {
        "tuneline/train/loop.py",
        "tuneline/train/page.html.jinja",
        "tuneline/train/limits.yaml",
        "tuneline/packages.yaml",
    }
    # One that does not know its place reads nothing by it.
    unaware = {"tuneline/train/loop.py": "UP = 'packages.yaml'\n"}
    assert listed(tmp_path, files | unaware) == {"tuneline/train/loop.py"}


def test_the_list_names_every_stage_but_the_one_that_writes_it(tmp_path):
    files = {"stages/fit.py": "import tuneline.train.loop\n", "stages/code.py": "x = 1\n", "stages/read.py": "x = 1\n"}
    lists = code_lists(write(tmp_path, PACKAGES | files))
    assert {stage: sorted(names) for stage, names in lists.items()} == {
        "fit": ["stages/fit.py", "tuneline/train/loop.py"],
        "read": ["stages/read.py"],
    }


def test_a_list_is_read_as_it_was_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"code/fit\.txt was not found in .*: run `dvc repro`"):
        read_list("fit")
    files = {"tuneline/b.py": "1" * 64, "stages/fit.py": "2" * 64}
    write(tmp_path, {"code/fit.txt": to_text(files)})
    assert read_list("fit") == files
    assert list(read_list("fit")) == ["stages/fit.py", "tuneline/b.py"]


def test_a_file_that_changed_or_is_gone_is_named(tmp_path):
    files = code_lists(write(tmp_path, PACKAGES | {"stages/fit.py": "from tuneline.train import loop, step\n"}))["fit"]
    assert changed_files(files, tmp_path) == []
    write(tmp_path, {"tuneline/train/loop.py": "# A comment.\nrun = 1\n"})
    assert changed_files(files, tmp_path) == []
    write(tmp_path, {"tuneline/train/loop.py": "run = 2\n"})
    (tmp_path / "tuneline/train/step.py").unlink()
    assert changed_files(files, tmp_path) == ["tuneline/train/loop.py", "tuneline/train/step.py"]


HALF_WRITTEN = ["run = (\n", 'run = """one\n', "if run:\n    one\n  two\n", "def run(:\n"]


@pytest.mark.parametrize("text", HALF_WRITTEN)
def test_a_file_that_is_half_written_has_changed(tmp_path, text):
    files = code_lists(write(tmp_path, PACKAGES | {"stages/fit.py": "import tuneline.train.loop\n"}))["fit"]
    write(tmp_path, {"tuneline/train/loop.py": text})
    assert changed_files(files, tmp_path) == ["tuneline/train/loop.py"]


@pytest.mark.parametrize("text", HALF_WRITTEN)
def test_a_mistake_in_the_syntax_is_named_with_file_and_line(tmp_path, text):
    files = {"stages/fit.py": "import tuneline.train.loop\n", "tuneline/train/loop.py": text}
    with pytest.raises(ValueError, match=r"tuneline/train/loop\.py, line \d"):
        code_lists(write(tmp_path, PACKAGES | files))


def out_of_date(root: Path) -> list[str]:
    """Lists in code/ that are not as the code is now, or of no stage."""
    expected = {list_path(stage).name: to_text(files) for stage, files in code_lists(root).items()}
    found = {path.name: path.read_text(encoding="utf-8") for path in (root / "code").iterdir()}
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def test_the_lists_in_git_are_as_the_code_is_now():
    assert out_of_date(ROOT) == [], "run `python -m stages.code` and commit code/"


def test_a_list_that_is_out_of_date_is_found(tmp_path):
    for name in ("stages", "tuneline"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    write(tmp_path, {f"code/{stage}.txt": to_text(files) for stage, files in code_lists(tmp_path).items()})
    assert out_of_date(tmp_path) == []
    with (tmp_path / "tuneline/fetch/data_packages.py").open("a", encoding="utf-8") as file:
        file.write("LIMIT = 5\n")
    (tmp_path / "code/export.txt").unlink()
    write(tmp_path, {"code/gone.txt": ""})
    assert out_of_date(tmp_path) == ["export.txt", "fetch.txt", "gone.txt"]
