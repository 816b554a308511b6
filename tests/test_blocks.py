"""Every block of README, docs and the other pages is run as a reader would copy it, in the order of its page.

Those that train or load models are marked in the page, for `make test-all`; what can't be run in a test says why.
"""

import json
import re
import subprocess
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from tests.helpers.blocks import PAGES, Block, blocks, commands
from tests.helpers.first_run import copied, own_caches
from tests.helpers.page_needs import ACTIVATING, NEEDS, folder_of
from tests.helpers.paths import ROOT
from tests.helpers.shell_session import Terminal, serves
from tuneline.runtime.params import load
from tuneline.sections import check_sections

ALL = [block for page in PAGES for block in blocks(page)]
RUN = ("bash", "python")
CHECKED = ("yaml", "json")
TEXT = ("", "text", "mermaid")
SKIPPED = {
    "installs a library": 1,
    "needs a Docker daemon": 1,
    "needs a GPU": 2,
    "needs the internet": 1,
    "runs the tests": 2,
    "takes half an hour": 2,
}
"""Reasons, and how many blocks may have each."""
OWN_METRIC = "# evaluation/my_metrics.py"
DIGITS = {"3f0c…": "3f0c" + 36 * "0", "1f0c…": "1f0c" + 60 * "0"}
"""Of a commit, and of a sha256."""


def of_kind(*languages: str) -> list[Block]:
    return [block for block in ALL if block.language in languages]


def pages(slow: bool) -> list[Path]:
    """Pages with blocks to run; all of a slow page's are, since one may need what the one before it made."""
    return sorted({block.page for block in of_kind(*RUN) if block.slow == slow and not block.skip and to_run(block)})


def to_run(block: Block) -> bool:
    return block.language in RUN and not block.text.startswith(OWN_METRIC)


def run_page(page: Path, slow: bool, first: Path, experiment: Path, tmp_path: Path) -> None:
    project = folder_of(page, first, experiment, tmp_path / "project")
    with ExitStack() as stack:
        terminal = stack.enter_context(
            Terminal(project, tmp_path / "home", page.stem not in ACTIVATING, **own_caches(tmp_path))
        )
        stand_ins = NEEDS[page.stem](terminal, stack) if page.stem in NEEDS else {}
        for block in filter(to_run, blocks(page)):
            if not block.skip and (slow or not block.slow):
                run(block, terminal, stand_ins)


def run(block: Block, terminal: Terminal, stand_ins: dict[str, str]) -> None:
    steps = [block.text] if block.language == "python" else commands(block)
    for step in steps:
        for text, other in stand_ins.items():
            step = step.replace(text, other)
        try:
            (terminal.python if block.language == "python" else terminal.run)(step)
        except AssertionError as error:
            raise AssertionError(f"{block}: {error}") from None


@pytest.mark.story
@pytest.mark.parametrize("page", pages(slow=False), ids=lambda page: page.stem)
def test_the_quick_blocks_of_a_page_do_what_they_say(page, first_run, experiment, tmp_path):
    run_page(page, False, first_run.folder, experiment.folder, tmp_path)


@pytest.mark.story
@pytest.mark.matrix
@pytest.mark.parametrize("page", pages(slow=True), ids=lambda page: page.stem)
def test_all_blocks_of_a_page_do_what_they_say(page, first_run, experiment, tmp_path):
    run_page(page, True, first_run.folder, experiment.folder, tmp_path)


TARGETS = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("target", [*TARGETS, "repro RECIPE=triples SET=lora.r=4"])
def test_a_target_of_make_can_be_planned(target):
    planned = subprocess.run(["make", "-n", *target.split()], cwd=ROOT, capture_output=True, text=True, check=False)
    assert planned.returncode == 0, planned.stderr


@pytest.mark.story
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("make", "every test"),
        ("make exp", "r2"),
        pytest.param("make plan", "it fits", marks=pytest.mark.matrix),
    ],
)
def test_a_target_of_make_does_what_it_says(command, expected, experiment, tmp_path):
    project = copied(experiment, tmp_path / "project")
    with Terminal(project, tmp_path / "home", False, **own_caches(tmp_path)) as terminal:
        said = terminal.run(command)
    assert expected in said


@pytest.mark.story
@pytest.mark.matrix
def test_targets_of_make_write_their_tables_anew(project, tmp_path):
    pages = ["README.md", "README.zh.md", "docs/float16.md", "docs/float16.zh.md"]
    for page in pages:
        text = (project / page).read_text(encoding="utf-8")
        # The last row of the table that is between comments.
        (project / page).write_text(re.sub(r"\n\|[^\n]+(?=\n+<!-- /(stages|cards) -->)", "", text), encoding="utf-8")
    with Terminal(project, tmp_path / "home", False, **own_caches(tmp_path)) as terminal:
        assert terminal.run("git diff --name-only").split() == pages
        terminal.run("make stage-table card-table")
        assert terminal.run("git diff --name-only") == ""


def test_no_more_blocks_are_left_out_and_each_says_why():
    found = Counter(block.skip for block in ALL if block.skip)
    assert found.keys() <= SKIPPED.keys()
    assert {reason: number for reason, number in found.items() if number > SKIPPED[reason]} == {}
    assert {block.language for block in ALL} <= {*RUN, *CHECKED, *TEXT}


@pytest.mark.parametrize("block", of_kind("yaml"), ids=str)
def test_an_example_of_parameters_is_right(block, workspace):
    text = re.sub(r"\w+…", lambda found: DIGITS.get(found[0], found[0]), block.text)
    changes = yaml.safe_load(text)
    workspace(**changes)
    check_sections(load)


def test_examples_of_own_metrics_are_metrics(tmp_path, monkeypatch):
    from tuneline.scoring.own import load_metrics

    monkeypatch.chdir(tmp_path)
    Path("evaluation").mkdir()
    examples = [block for block in of_kind("python") if block.text.startswith(OWN_METRIC)]
    assert [block.page.name for block in examples] == ["evaluation.md", "README.md"]
    for number, block in enumerate(examples):
        name = f"my_metrics{number}.py"
        (Path("evaluation") / name).write_text(block.text, encoding="utf-8")
        metric = load_metrics([f"{name}:triage_accuracy"])[0]
        found = [metric.function("内科 ", ["内科"], {"task": task}) for task in ("label", "qa")]
        assert (metric.unit, metric.meaning[:5], found) == ("%", "Share", [True, None])


def test_an_example_of_a_vote_is_one():
    from tuneline.evaluate.review.votes import Vote

    (block,) = of_kind("json")
    vote = Vote(**json.loads(block.text))
    assert vote.vote in vote.answers and not vote.by_judge


@pytest.mark.parametrize(
    ("text", "said"),
    [
        *(
            (f"{mark}\n```bash\nls\n```\n", "page.md:1: .*expected <!-- test: slow -->")
            for mark in (
                "<!-- test: never -->",
                "<!--test: slow-->",
                "<!-- Test: skip: needs a GPU -->",
                "<!-- tests: slow -->",
                "<!-- test slow -->",
                "<!-- test: skip -->",
                "<!-- test: slow --> ls",
                "In a line: <!-- test: slow -->",
            )
        ),
        ("<!-- test: slow -->\n", "no block after"),
        ("<!-- test: slow -->\n<!-- test: skip: needs a GPU -->\n\n```bash\nls\n```\n", "no block after"),
        ("<!-- test: slow -->\n\n<!-- test: skip: needs a GPU -->\n\n```bash\nls\n```\n", "no block after"),
    ],
)
def test_a_mark_that_marks_nothing_is_found(tmp_path, text, said):
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(ValueError, match=said):
        blocks(tmp_path / "page.md")


def test_marks_belong_to_the_next_block(tmp_path):
    page = ROOT / "page.md"
    text = "<!-- test: skip: needs a GPU -->\n```bash\na \\\n  b\n\nc\n```\n- in a list\n  ```yaml\n  d: 1\n  ```\n"
    (tmp_path / page.name).write_text(text)
    first, second = blocks(tmp_path / page.name)
    assert (first.skip, first.slow, first.line, commands(first)) == ("needs a GPU", False, 3, ["a    b", "c"])
    assert (second.skip, second.slow, second.language, second.text) == (None, False, "yaml", "d: 1\n")


def test_a_server_is_known_by_its_command():
    assert all(
        serves(command, "serve")
        for command in ("tuneline serve  # an API", "A=b tuneline serve", "docker run x tuneline serve")
    )
    assert not any(
        serves(command, "serve") for command in ("tuneline served", "tuneline serve --help", "x  # tuneline serve")
    )
    assert serves("make demo", "demo") and not serves("tuneline review --judge URL", "review")


def test_a_terminal_keeps_folder_and_variables_and_tells_of_a_failure(tmp_path):
    (tmp_path / "project").mkdir()
    with Terminal(tmp_path / "project", tmp_path / "home") as terminal:
        terminal.run("mkdir sub && cd sub && export KEPT='a  b'")
        assert terminal.run('echo "$KEPT" && basename "$PWD"').splitlines() == ["a  b", "sub"]
        for command in ("false", "false | true", "echo $UNSET_ONE", "exit 3"):
            with pytest.raises(AssertionError, match=r"exit code \d of: "):
                terminal.run(command)
        assert terminal.run(
            "source ../.venv/bin/activate && python -c 'import yaml, sys; print(sys.prefix)'"
        ).strip() == str(tmp_path / "project/.venv")
