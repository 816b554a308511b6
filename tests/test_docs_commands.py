"""Every command in README and docs is one that exists, with options that exist, and stands in both languages alike.

test_blocks runs the blocks.
"""

import ast
import json
import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt
from typer.main import get_command

from tests.helpers.blocks import blocks
from tests.helpers.paths import ROOT
from tuneline.cli.app import COMMANDS

PAGES = sorted(
    [ROOT / "README.md", *(path for path in (ROOT / "docs").glob("*.md") if not path.name.endswith(".zh.md"))]
)
FOLDERS = (".", "benchmarks", "docs", "docs/decisions", "evaluation", "reviews")
SENTENCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.md"))
BLOCK = re.compile(r"```(?:bash|sh)\n(.*?)```", re.DOTALL)
ELSEWHERE = {
    "$EDITOR",
    "curl",
    "docker",
    "exec",
    "export",
    "git",
    "ollama",
    "pip",
    "source",
    "uv",
    "vllm",
    "modelscope",
}
"""Programs that are not this project's."""
THEIRS = ("torch.distributed.run",)
"""Modules that are not."""


def commands(page: Path) -> list[str]:
    """Lines of the page's shell blocks, continued ones joined, without comments."""
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def parts(command: str) -> list[list[str]]:
    """Words of each program that a line runs, without assignments before it."""
    pieces = re.split(r" (?:&&|\||;) ", command)
    words = [shlex.split(re.sub(r"\s[<>]\s*\S+", "", piece)) for piece in pieces]
    return [line[next(place for place, word in enumerate(line) if not re.match(r"\w+=", word)) :] for line in words]


def options(words: list[str]) -> set[str]:
    return {word.split("=")[0] for word in words if word.startswith("--")}


def wrong_of_make(words: list[str]) -> list[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*##", makefile, re.MULTILINE))
    used = re.findall(r"\$\(([A-Z_]+)|^(?:export )?([A-Z_]+) \?=", makefile, re.MULTILINE)
    # What the Makefile sets for itself nobody gives.
    variables = {name for names in used for name in names} - set(re.findall(r"^(\w+) :?=", makefile, re.MULTILINE))
    return [word for word in words if word.partition("=")[0] not in (variables if "=" in word else targets)]


def wrong_of_tuneline(words: list[str]) -> list[str]:
    if words == ["--version"]:
        return []
    if not words or words[0] not in COMMANDS:
        return words[:1]
    command = get_command(import_module(COMMANDS[words[0]][0]).app)
    inner = getattr(command, "commands", {}).values()
    known = {
        option for one in (command, *inner) for param in one.params for option in (*param.opts, *param.secondary_opts)
    }
    return sorted(options(words) - known - {"--help"})


def wrong_of_python(words: list[str]) -> list[str]:
    if words[:1] != ["-m"] or words[1] in THEIRS:
        return []
    path = ROOT / words[1].replace(".", "/")
    if not path.with_suffix(".py").is_file() and not (path / "__main__.py").is_file():
        return [words[1]]
    files = [path.with_suffix(".py")] if path.with_suffix(".py").is_file() else sorted(path.glob("*.py"))
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    return sorted(option for option in options(words) if f'"{option}"' not in text)


def wrong_of_dvc(words: list[str]) -> list[str]:
    from dvc.cli import DvcParserError, parse_args

    try:
        parse_args(words)
    except (DvcParserError, SystemExit):
        return [" ".join(words)]
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    settings = [words[place + 1] for place, word in enumerate(words) if word in ("-S", "--set-param")]
    keys = [setting.split("=")[0].split(".") for setting in settings]
    return [".".join(key) for key in keys if key[-1] not in params.get(key[0], {})]


WRONG = {"make": wrong_of_make, "tuneline": wrong_of_tuneline, "python": wrong_of_python, "dvc": wrong_of_dvc}


def wrong(command: str) -> list[str]:
    """What of a command there is not."""
    found = []
    for program, *words in parts(command):
        name = Path(program).name
        found += WRONG[name](words) if name in WRONG else [program] * (name not in ELSEWHERE)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_exists_with_its_options(page):
    assert {command: names for command in commands(page) if (names := wrong(command))} == {}


def mentioned(page: Path) -> list[str]:
    """Commands in a page's sentences."""
    inline = [child for token in MarkdownIt().parse(page.read_text(encoding="utf-8")) for child in token.children or []]
    codes = [child.content for child in inline if child.type == "code_inline" and "<" not in child.content]
    return [code for code in codes if re.match(r"(make|tuneline|dvc|python -m) ", code)]


@pytest.mark.parametrize("page", SENTENCES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_in_a_sentence_exists_with_its_options(page):
    # A sentence may leave out what an option or a command is given.
    assert [one for one in mentioned(page) if all(map(wrong, (one, f"{one} 1", f"{one} lora.r=1")))] == []


def program(text: str) -> str:
    """Python without comments and docstrings, which are in the page's language."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = node.body[ast.get_docstring(node) is not None :]
    return ast.dump(tree)


CONTENTS = {"python": program, "yaml": yaml.safe_load, "json": json.loads}


def contents(page: Path) -> list[tuple[str, Any]]:
    """What each block that is no command says, by its language."""
    return [(one.language, CONTENTS[one.language](one.text)) for one in blocks(page) if one.language in CONTENTS]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_both_languages_have_the_same_commands(page):
    chinese = page.with_name(f"{page.stem}.zh.md")
    assert [parts(line)[0][:2] for line in commands(page)] == [parts(line)[0][:2] for line in commands(chinese)]
    assert contents(page) == contents(chinese)


@pytest.mark.parametrize(
    "command",
    [
        "make fly", "make exp SROT=x", "make exp SORTED=x", "make SORT", "tuneline fly", "tuneline chat --fly",
        "python -m benchmarks.fly", "python -m benchmarks.train --fly", "dvc fly", "dvc exp run -S lora.fly=1", "fly away",
    ],
)  # fmt: skip
def test_what_is_not_there_is_found(command):
    assert wrong(command)


def test_a_block_that_differs_in_one_language_is_found(tmp_path):
    page = '```yaml\na: 1  # one\n```\n```python\ndef f():\n    """One."""\n    return 1\n```\n'
    changes = ((), ("One.", "一。"), ("# one", "# 一"), ("a: 1", "a: 2"), ("return 1", "return 2"))
    texts = [page.replace(*change) if change else page for change in changes]
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.md").write_text(text, encoding="utf-8")
    first, *others = (contents(tmp_path / f"{number}.md") for number in range(5))
    assert [first == other for other in others] == [True, True, False, False]
