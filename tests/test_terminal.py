"""What a person sees: lines in a terminal's width, plain lines in a pipe, panels, bars, and what a failed stage leaves."""

import ast
import io
import re
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.helpers.commands import python
from tests.helpers.paths import ROOT
from tests.helpers.terminal import Terminal, allow_colours, on_screen, shown
from tuneline.cli import failure, panel
from tuneline.cli.repro import restyle_bars
from tuneline.runtime import stage
from tuneline.runtime.errors import exit_with_sentence
from tuneline.runtime.locks import exclusive_lock
from tuneline.runtime.terminal import log
from tuneline.runtime.terminal.lines import count, is_terminal, say, wrapped

LONG = "convert: 80 training and 6 held-out items of 86; 0 duplicates, 0 leaks (data/processed/rejects.jsonl)"
CHINESE = "convert: 医疗问答 holds answers with faults: 回答中途截断的有十二条，重复的有三条，共八十六条数据"


@pytest.fixture(autouse=True)
def usual(monkeypatch):
    allow_colours(monkeypatch)
    for name in (log.FILE, failure.RECIPE, failure.CHANGES):
        monkeypatch.delenv(name, raising=False)
    yield
    log.end()


@pytest.mark.parametrize("width", [40, 80])
@pytest.mark.parametrize("text", [LONG, CHINESE])
def test_a_sentence_keeps_to_the_width_and_loses_nothing(text, width):
    lines = wrapped(text, width).split("\n")
    assert len(lines) > 1
    assert all(cell_len(line) <= width for line in lines)
    assert all(line.startswith("  ") for line in lines[1:])
    assert "".join("".join(lines).split()) == "".join(text.split())
    # Words of Latin script stay whole.
    assert {"held-out", "training"} <= set(wrapped(LONG, width).split())


ADDRESS = f"https://example.org/{'models/' * 12}chatglm3-6b/resolve/main/config.json"
FOLDER = f"/home/user/{'training/' * 11}项目/医疗.jsonl"


@pytest.mark.parametrize("width", [40, 80])
@pytest.mark.parametrize("text", [ADDRESS, FOLDER])
def test_what_is_longer_than_a_line_stays_whole(text, width):
    assert len(text) > 115
    assert wrapped(f"fetch: could not read {text}: not found", width) == (
        f"fetch: could not read\n  {text}:\n  not found"
    )
    assert wrapped(f"数据：读不到（{text}），请检查。", width) == f"数据：读不到\n  （{text}），\n  请检查。"


def test_a_command_stays_whole_where_it_fits_a_line():
    command = "`dvc repro --force train`"
    assert wrapped(f"train: to go on, type the command {command}: it goes on", 40) == (
        f"train: to go on, type the command\n  {command}: it goes on"
    )
    assert wrapped(f"训练：要继续，请输入命令{command}，已完成的都会保留，不会丢失。", 40).split("\n") == [
        "训练：要继续，请输入命令", f"  {command}，已完成的都", "  会保留，不会丢失。",
    ]  # fmt: skip
    assert wrapped(f"type `{'word ' * 10}end`, then one ` alone", 40).split("\n") == [
        "type `word word word word word word word", "  word word word end`, then one ` alone",
    ]  # fmt: skip


def test_a_short_sentence_stays_as_it_is():
    assert wrapped("code: 二十个字", 20) == "code: 二十个字"


@pytest.mark.parametrize(
    ("name", "value", "is_one"),
    [
        ("CI", "true", False),
        ("CI", "0", True),
        ("NO_COLOR", "1", False),
        ("TERM", "dumb", False),
        ("TERM", "xterm", True),
    ],
)
def test_where_lines_are_plain(monkeypatch, name, value, is_one):
    monkeypatch.setenv(name, value)
    assert is_terminal(Terminal()) == is_one
    assert not is_terminal(io.StringIO())
    screen = Terminal()
    say(LONG, file=screen, style="bold")
    assert (screen.getvalue() == f"{LONG}\n") == (not is_one)
    assert ("\x1b[1m" in screen.getvalue()) == is_one


def test_numbers_of_things():
    assert [count(1, "process"), count(2, "process"), count(1200, "row")] == ["1 process", "2 processes", "1,200 rows"]


PROGRAM = f"""
import sys, time
from tuneline.runtime import progress
from tuneline.runtime.progress import ProgressBar
from tuneline.runtime.terminal.lines import say
progress.DELAY = 0
with ProgressBar("predict_base: answers", 6400, "tokens") as bar:
    bar.note(step="5 of 16")
    for _ in range(3):
        time.sleep(0.11)
        bar.update(800)
    say({CHINESE!r})
    say({LONG!r}, file=sys.stderr)
with ProgressBar("convert: reading", None, "items") as bar:
    time.sleep(0.11)
    bar.update(3)
"""


@pytest.mark.parametrize("columns", [40, 80])
def test_a_terminal_has_bars_that_go_away_and_lines_that_fit(columns):
    result = shown(ROOT, columns, "-c", PROGRAM, env={"PYTHONPATH": str(ROOT)})
    assert result.status == 0, result.raw
    assert [line for line in result.lines if line] == [
        *wrapped(CHINESE, columns).split("\n"),
        *wrapped(LONG, columns).split("\n"),
    ]
    assert " left" in result.raw
    assert ("of 6,400 tokens" in result.raw) == (columns == 80)
    assert "3 items" in result.raw
    written = [on_screen(part) for part in re.split(r"[\r\n]", result.raw)]
    assert max(map(cell_len, written)) <= columns


@pytest.mark.parametrize("env", [{"CI": "1"}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_plain_terminal_gets_what_a_pipe_gets(env):
    piped = python(ROOT, "-c", PROGRAM, env={"PYTHONPATH": str(ROOT)})
    assert (piped.returncode, piped.stdout, piped.stderr) == (0, f"{CHINESE}\n", f"{LONG}\n")
    assert shown(ROOT, 40, "-c", PROGRAM, env={"PYTHONPATH": str(ROOT)} | env).raw == f"{CHINESE}\n{LONG}\n"


def test_a_panel_is_framed_on_a_terminal_and_text_elsewhere(capsys):
    rows = [
        (
            "result",
            [
                panel.Line("Better.", "bold"),
                panel.Line("✘ it loops", "red", plain="WARNING: it loops"),
                panel.Line("x", plain=""),
            ],
        )
    ]
    panel.show("tuneline", [*rows, ("none", [])], "red")
    assert capsys.readouterr().out == "\nresult  Better.\n        WARNING: it loops\n"
    screen = Terminal()
    panel.show("tuneline", rows, "red", screen)
    lines = [on_screen(line) for line in screen.getvalue().splitlines()]
    assert lines[0].startswith("╭") and "tuneline" in lines[0]
    assert "✘ it loops" in "".join(lines) and "WARNING" not in "".join(lines)
    assert len({cell_len(line) for line in lines}) == 1


def test_bars_of_dvc_wait_and_go_away(monkeypatch):
    from dvc.progress import Tqdm
    from dvc_data.callbacks import Tqdm as DataTqdm
    from dvc_data.hashfile._progress import QueryingProgress

    for name in ("__init__", "display", "BAR_FMT_DEFAULT", "BAR_FMT_DEFAULT_NESTED", "BAR_FMT_NOTOTAL"):
        for bars in (Tqdm, DataTqdm):
            monkeypatch.setattr(bars, name, getattr(bars, name))
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    restyle_bars()
    with Tqdm(total=3, desc="Collecting files", unit="file") as bar:
        bar.update(1)
    # Of another class, it stood before each stage that was taken from the cache.
    with QueryingProgress(phase="Checking", name=".dvc/cache/files/md5") as bar:
        bar.update(1)
        say("stage 3 of 10", file=screen)
    shown_lines = [on_screen(line) for line in screen.getvalue().split("\n")]
    assert list(filter(None, shown_lines)) == ["stage 3 of 10"] and "Checking" not in screen.getvalue()
    with Tqdm(total=3, desc="Collecting files", unit="file") as bar:
        bar.start_t -= 10
        bar.last_print_t -= 10
        bar.update(1)
    assert "Collecting files" in screen.getvalue()
    assert on_screen(screen.getvalue().rpartition("\n")[2]) == ""


def failed(stage: str, error: Exception) -> None:
    log.begin(stage)
    say(f"{stage}: begins")
    try:
        with exit_with_sentence(stage):
            raise error
    except (SystemExit, Exception):
        pass


def test_a_failed_stage_leaves_its_log_and_the_next_run_removes_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    failed("train", ValueError("train.epochs is -1, expected more"))
    text = log.path_of("train").read_text(encoding="utf-8")
    assert text.startswith("train: begins\nTraceback")
    assert text.endswith("failed: train: train.epochs is -1, expected more\n")
    failure.show("train", 1)
    said = capsys.readouterr().err
    assert "failed  stage train\n" in said
    assert "why     train.epochs is -1, expected more\n" in said
    assert "log     metrics/logs/train.log  " in said
    assert "next    fix that, then run `make repro`: it goes on from train" in said
    log.begin("train")
    assert list(tmp_path.iterdir()) == [tmp_path / "metrics"]
    assert list((tmp_path / "metrics").iterdir()) == []


def test_a_bug_and_a_kill_are_told_from_a_mistake(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed("train", KeyError("x"))
    said = dict(failure.rows("train", 1))
    assert said["why"] == ["KeyError: 'x'"]
    assert "a bug: report it with the log" in said["next"][0]
    log.begin("train")
    said = dict(failure.rows("train", -9))
    assert "ran out of memory" in said["why"][0]
    assert "`tuneline plan` says what fits" in said["next"][0]
    assert said["log"] == []
    monkeypatch.setenv(failure.RECIPE, "law")
    assert "`make repro RECIPE=law`" in dict(failure.rows("train", 1))["next"][0]


def test_of_several_processes_the_first_says_why(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed("train", ValueError("rank 0 has no room"))
    log.fail(ValueError("x"), "train: training stopped before its end", log.REASON)
    assert log.reason("train") == ("train: rank 0 has no room", False)


def test_the_reason_is_the_stages_and_not_a_librarys(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log.begin("train")
    say("failed: to open a display", "fault: none")
    with pytest.raises(SystemExit), exit_with_sentence("train"):
        raise ValueError("first\nfailed: second\nrefused: third")
    text = log.path_of("train").read_text(encoding="utf-8")
    assert " failed: to open a display\n fault: none\n" in text and "\n failed: second\n" in text
    assert log.reason("train") == ("train: first failed: second refused: third", False)


def test_a_reason_of_an_earlier_run_is_not_shown(tmp_path, monkeypatch, capsys):
    """One that ends before it can remove its log: it is killed, or an import fails."""
    monkeypatch.chdir(tmp_path)
    failed("train", ValueError("of old"))
    before = log.states()
    failed("train", ValueError("of new"))
    failure.show("train", 1, before=before)
    assert "of new" in capsys.readouterr().err
    failure.show("train", -9, before=log.states())
    said = capsys.readouterr().err
    assert "ran out of memory" in said and "of new" not in said and "metrics/logs" not in said
    assert log.states() == {}


def test_a_stage_that_is_refused_logs_it_and_the_one_that_goes_on_has_its_own_reason(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metrics").mkdir()
    for name in ("choose_accelerator", "end_on_signals"):
        monkeypatch.setattr(stage, name, lambda *_: None)
    monkeypatch.setattr(stage, "dvc_pid", lambda: None)
    monkeypatch.setattr(sys, "argv", ["fit.py"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    log.begin("fit")
    say("of an earlier run")
    log.fail(ValueError("x"), "fit: of old", log.REASON)
    with exclusive_lock(Path("metrics/.fit.lock"), "it is run"), pytest.raises(SystemExit):
        stage.run_stage(lambda _: None, "Fit.")
    assert log.reason("fit").text.startswith(
        "fit: the stage fit is run in this folder by another process now: process "
    )
    log.fail(ValueError("x"), "fit: no room", log.REASON)
    assert log.reason("fit") == ("fit: no room", False)


def test_the_panel_names_the_command_and_the_folder_of_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed("train", ValueError("x"))
    assert failure.again() == "make repro"
    said = dict(failure.rows("train", 1, ["train", "-f"]))
    assert said["next"][0] == "fix that, then run `tuneline repro train -f`: finished stages run again, as --force asks"
    assert said["log"][0].startswith("metrics/logs/train.log ")
    monkeypatch.setenv(failure.RECIPE, "law")
    monkeypatch.setenv(failure.CHANGES, "lora.r=4 train.epochs=2")
    said = dict(failure.rows("train", 1))
    assert "`make repro RECIPE=law SET='lora.r=4 train.epochs=2'`: it goes on from train" in said["next"][0]
    assert said["log"][0].startswith("runs/law/metrics/logs/train.log ")
    monkeypatch.setenv(failure.CHANGES, "'lora.target_modules=[q_proj]'")
    assert failure.again() == "tuneline recipe law 'lora.target_modules=[q_proj]'"


def test_stages_speak_through_one_place():
    """A `print` knows nothing of the terminal's width, of a bar that is shown, or of the log."""
    folders = (
        "stages",
        "tuneline/base",
        "tuneline/data",
        "tuneline/evaluate",
        "tuneline/export",
        "tuneline/fetch",
        "tuneline/models",
        "tuneline/tokenize",
        "tuneline/train",
    )
    found = []
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                found.append(str(path.relative_to(ROOT)))
    # It speaks out of a handler of signals.
    assert found == ["tuneline/train/launchers/elsewhere.py"]
