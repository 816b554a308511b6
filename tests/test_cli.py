"""The `tuneline` command: its list of subcommands, their help at once, mistakes as one sentence, and earlier names."""

import json
import re
from importlib import import_module
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from tests.helpers.commands import python
from tests.helpers.paths import ROOT
from tuneline.cli.app import COMMANDS, app

HEAVY = {"torch", "transformers", "deepspeed", "peft", "scipy", "dvc"}
EARLIER = {
    "tuneline.compare": "compare",
    "tuneline.plan": "plan",
    "tuneline.doctor": "plan",
    "tuneline.times": "times",
    "tuneline.recipe": "recipe",
    "tuneline.verify": "verify",
    "tuneline.release": "release",
    "tuneline.chatglm.adapter": "import-adapter",
}
"""{module that was started by `python -m`: subcommand}."""


def run(folder: Path, *words: str, module: str = "tuneline", **env: str) -> CompletedProcess:
    """A command in a folder that need not be this project."""
    return python(folder, "-m", module, *words, env={"PYTHONPATH": str(ROOT), "COLUMNS": "100"} | env)


def listed(text: str) -> dict[str, str]:
    """{subcommand: first line of what it does} of the help."""
    return dict(re.findall(r"^  ([a-z-]+)  +(\S.*)$", text.partition("Commands:\n")[2], re.MULTILINE))


def test_help_lists_every_command():
    result = run(ROOT, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    commands = listed(result.stdout)
    assert list(commands) == list(COMMANDS)
    assert all(COMMANDS[name][1].startswith(line) for name, line in commands.items())
    assert {"plan", "compare", "chat", "serve", "demo", "verify", "release", "recipe"} <= set(commands)
    # Every module that is a command is one of them.
    files = [path for folder in ("tuneline/cli", "chat") for path in (ROOT / folder).rglob("*.py")]
    apps = {
        path for path in files if re.search(r"^app = typer\.Typer\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in apps}
    assert modules - {"tuneline.cli.app"} == {module for module, _ in COMMANDS.values()}


def test_no_word_at_all_is_asking_for_help():
    result = run(ROOT)
    assert listed(result.stdout + result.stderr) == listed(run(ROOT, "--help").stdout) != {}


def test_help_and_checks_need_no_place_for_temporary_files(tmp_path):
    program = "import sys, tempfile; tempfile._candidate_tempdir_list = list; sys.argv[0] = 'tuneline'; "
    program += "from tuneline.cli.app import app; app()"

    def shown(*words: str) -> CompletedProcess:
        return python(tmp_path, "-c", program, *words, env={"PYTHONPATH": str(ROOT)})

    result = shown("verify", "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert "checksums" in result.stdout
    assert "SHA256SUMS is missing" in shown("verify", str(tmp_path)).stderr


def test_version_is_one_line():
    result = run(ROOT, "--version")
    assert (result.returncode, result.stderr) == (0, "")
    assert re.fullmatch(r"tuneline(,? \S.*)\n", result.stdout)


def help_of(words: list[str], before: str = "") -> tuple[str, list[str], object]:
    """(what `tuneline … --help` prints, heavy libraries that it imported, exit status)."""
    program = (
        f"import json, runpy, sys\n{before}\n"
        f"sys.argv = {['tuneline', *words, '--help']}\n"
        "try:\n"
        "    runpy.run_module('tuneline', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n"
        f"    print(json.dumps([sorted({HEAVY} & set(sys.modules)), end.code]))\n"
    )
    result = python(ROOT, "-c", program, env={"PYTHONPATH": str(ROOT)})
    assert result.returncode == 0, result.stderr
    text, _, facts = result.stdout.rstrip("\n").rpartition("\n")
    return text, *json.loads(facts)


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_imports_nothing_heavy(command):
    text, heavy, status = help_of([command] if command else [])
    assert (heavy, status) == ([], 0)
    assert text.startswith("Usage: tuneline")
    assert command is None or f"tuneline {command}" in text.splitlines()[0]


def test_what_is_heavy_would_be_seen():
    assert help_of(["times"], before="import scipy")[1:] == (["scipy"], 0)


def test_an_unknown_command_is_named():
    result = run(ROOT, "nonsense")
    assert (result.returncode, result.stdout) == (2, "")
    assert "No such command 'nonsense'" in result.stderr
    assert "Traceback" not in result.stderr
    assert "Did you mean" not in result.stderr


@pytest.mark.parametrize(
    ("typed", "meant"), [("compar", "compare"), ("summery", "summary"), ("import_adapter", "import-adapter")]
)
def test_an_unknown_command_proposes_the_near_one(typed, meant):
    result = CliRunner().invoke(app, [typed])
    assert result.exit_code == 2
    assert f"No such command '{typed}'. Did you mean '{meant}'?" in result.output


@pytest.mark.parametrize("name", list(COMMANDS))
def test_help_is_in_one_style(name):
    command = get_command(import_module(COMMANDS[name][0]).app)
    assert re.fullmatch(r"[A-Z].*[.?]", COMMANDS[name][1])
    assert re.match(r"[A-Z].*?[.:]\s", f"{command.help}\n", re.DOTALL), "the first sentence"
    for one in (command, *getattr(command, "commands", {}).values()):
        for param in one.params:
            # Values as they are typed keep their case.
            assert re.fullmatch(r"([A-Z0-9]|base, |section\.key).*[.]", param.help or ""), param.name


@pytest.mark.parametrize(
    "words", [["compare"], ["verify", "--nonsense"], ["plan", "--gpus", "many"], ["serve", "--port", "x"]]
)
def test_a_wrong_option_is_shown_with_the_usage(words):
    result = run(ROOT, *words)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"Usage: tuneline {words[0]} [OPTIONS]")
    assert "Traceback" not in result.stderr


MISTAKES = [
    (["compare", "HEAD"], "compare: HEAD: metrics/predictions.jsonl can't be read ("),
    (
        ["compare", "HEAD", "--json", "--markdown"],
        "compare: --markdown and --json are both given, expected one of them",
    ),
    (["recipe", "nothing"], "recipe: RECIPE is 'nothing', expected one of "),
    (
        ["release"],
        "release: models/merged can't be handed out: models/merged is no folder: run `dvc repro`, or `dvc pull`\n",
    ),
    (["serve", "--host", "0.0.0.0"], "serve: --host is 0.0.0.0, which others can reach, and TUNELINE_KEY is unset: "),
    (
        ["demo", "--host", "0.0.0.0"],
        "demo: --host is 0.0.0.0, which others can reach, and TUNELINE_PASSWORD is unset: ",
    ),
    (["review"], "review: metrics/predictions.jsonl is missing: run `dvc repro evaluate`"),
    (["repro"], "repro: dvc.yaml was not found in "),
    (["summary"], "summary: metrics/eval.json was not found in "),
    (["times"], "times: dvc.yaml was not found in "),
    (["verify", "gone"], "verify: gone is no folder: "),
    (["served", "--url", "here"], "served: the URL is 'here', expected one such as "),
    (["plan"], "plan: params.yaml was not found in "),
    (["study", "--seeds", "17"], "study: params.yaml was not found in "),
    (["rows"], "rows: params.yaml was not found in "),
    (["chat", "--prompt", "?"], "chat: there is no model in models/base or models/merged: "),
    (["import-adapter", "gone", "out"], "import-adapter: "),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES)
def test_a_mistake_is_one_sentence(tmp_path, words, message):
    result = run(tmp_path, *words)
    # For CI, where 1 is a server that says something else.
    assert result.returncode == (2 if words[0] == "served" else 1)
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


def test_every_command_has_a_mistake_above():
    assert {words[0] for words, _ in MISTAKES} == set(COMMANDS)


def test_a_traceback_can_be_asked_for(tmp_path):
    result = run(tmp_path, "times", TUNELINE_TRACEBACK="1")
    assert result.returncode == 1
    assert result.stderr.startswith("Traceback (most recent call last)")
    assert "ValueError: dvc.yaml was not found in " in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("module", EARLIER)
@pytest.mark.parametrize("words", [["--help"], ["--nonsense"]])
def test_an_earlier_name_says_the_present_one_and_does_the_same(module, words):
    command = EARLIER[module]
    earlier, present = run(ROOT, *words, module=module), run(ROOT, command, *words)
    notice, _, rest = earlier.stderr.partition("\n")
    assert notice == f"`python -m {module}` is now `tuneline {command}`"
    assert (earlier.returncode, earlier.stdout, rest) == (present.returncode, present.stdout, present.stderr)


def test_an_earlier_name_works(tmp_path):
    (tmp_path / "dvc.yaml").write_text("stages: {fetch: {}, train: {}}\n")
    (tmp_path / "metrics/speed").mkdir(parents=True)
    (tmp_path / "metrics/speed/train.json").write_text('{"wall_seconds": 12.5, "peak_memory_gb": 1.25}')
    earlier, present = run(tmp_path, module="tuneline.times"), run(tmp_path, "times")
    assert (earlier.returncode, present.returncode) == (0, 0)
    assert earlier.stdout == present.stdout
    assert [line.split() for line in present.stdout.splitlines()] == [
        ["stage", "seconds", "peak", "GB"],
        ["train", "12.5", "1.25"],
        ["total", "12.5", "1.25"],
    ]
    assert "is now" not in present.stderr


def test_every_earlier_name_is_tested():
    folder = ROOT / "tuneline/cli/deprecated"
    files = {path.relative_to(folder) for path in folder.rglob("[a-z]*.py")}
    assert {".".join(("tuneline", *file.with_suffix("").parts)) for file in files} == set(EARLIER)
