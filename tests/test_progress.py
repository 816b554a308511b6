"""Progress: plain lines where there is no terminal, one style of bar where there is one, numbers of stages."""

import sys

import pytest

import tuneline.train.trainer.progress as curve_module
from tests.helpers.commands import python
from tests.helpers.paths import ROOT
from tests.helpers.terminal import Terminal, allow_colours
from tuneline.runtime import progress
from tuneline.runtime.progress import ProgressBar, clock, track
from tuneline.runtime.stage import announcement, numbered
from tuneline.runtime.storage.stage_map import stage_names
from tuneline.train.trainer.progress import Progress, curve_rows


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (45, "45 s"), (129, "2 min 09 s"), (3599.6, "1 h 00 min"), (3900, "1 h 05 min")]
)
def test_a_duration_in_words(seconds, text):
    assert clock(seconds) == text


def test_a_log_gets_a_line_every_so_often_and_no_bar(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with ProgressBar("evaluate: answers", 6400, "tokens", done=400) as bar:
        bar.note(step="5 of 16")
        for _ in range(10):
            now[0] += 7
            bar.update(100)
    assert capsys.readouterr().err.splitlines() == [
        "evaluate: answers: 900 of 6,400 tokens, 6 min 25 s left, step 5 of 16",
        "evaluate: answers: 1,400 of 6,400 tokens, 5 min 50 s left, step 5 of 16",
    ]


def test_a_terminal_gets_a_bar_that_goes_away(monkeypatch):
    screen = Terminal()
    allow_colours(monkeypatch)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(progress, "DELAY", 0)
    assert list(track("abcd", "convert: writing", 4, "items")) == list("abcd")
    assert "convert: writing  " in screen.getvalue()
    assert " of 4 items, " in screen.getvalue()
    assert screen.getvalue().endswith("\r")


def test_only_the_first_process_shows_progress(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(progress, "EVERY", 0)
    with ProgressBar("train", 2, "tokens") as bar:
        bar.update()
    assert capsys.readouterr().err == ""


def test_transformers_shows_its_progress_as_ours(monkeypatch, capsys):
    from transformers.utils import logging

    monkeypatch.setattr(progress, "EVERY", 0)
    progress.restyle_library_bars()
    try:
        assert list(logging.tqdm([1, 2], desc="Loading weights")) == [1, 2]
    finally:
        logging.set_tqdm_hook(None)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        "loading weights: 1 of 2 tensors",
        "loading weights: 2 of 2 tensors",
    ]


def test_transformers_shows_a_gguf_file_as_ours(monkeypatch, capsys):
    from transformers import modeling_gguf_pytorch_utils as reading

    monkeypatch.setattr(progress, "EVERY", 0)
    monkeypatch.setattr(reading, "tqdm", reading.tqdm)
    progress.restyle_gguf_bar()
    assert list(reading.tqdm([1], desc="Converting and de-quantizing GGUF tensors...")) == [1]
    assert capsys.readouterr().err.startswith("reading the GGUF file: 1 of 1 tensors")


def test_stages_are_numbered_as_in_the_map(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert stage_names()[:3] == ["code", "fetch", "base"]
    assert len(stage_names()) == 10
    assert numbered("train") == "stage 6 of 10: train"
    monkeypatch.chdir(tmp_path)
    assert (stage_names(), numbered("train")) == ([], "stage train")


def test_a_stage_says_how_long_it_took_last_time(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages:\n  one:\n    cmd: x\n  two:\n    cmd: y\nmetrics:\n  - z\n")
    assert announcement("one") == "stage 1 of 2: one"
    (tmp_path / "metrics/speed").mkdir(parents=True)
    for name, seconds in (("one", 5), ("two", 60)):
        (tmp_path / f"metrics/speed/{name}.json").write_text(f'{{"wall_seconds": {seconds}}}')
    assert announcement("one") == "stage 1 of 2: one (5 s last time, 1 min 05 s to the end if all stages run)"
    assert announcement("two") == "stage 2 of 2: two (1 min 00 s last time)"


class State:
    def __init__(self, max_steps: int) -> None:
        self.global_step, self.max_steps, self.log_history = 0, max_steps, []


def log(progress_of: Progress, state: State, step: int, **values: float) -> None:
    state.global_step = step
    state.log_history.append({"step": step, **values})
    progress_of.on_log(None, state, None)


def test_the_curve_grows_by_what_is_new(tmp_path, monkeypatch):
    """Whatever was logged before, a log reads and writes its own rows alone."""
    read: list[int] = []
    monkeypatch.setattr(curve_module, "curve_rows", lambda history: read.append(len(history)) or curve_rows(history))
    curve, state = tmp_path / "metrics/loss.csv", State(4)
    first = Progress(curve, [10, 20, 30, 40])
    first.on_train_begin(None, state, None)
    log(first, state, 1, loss=3.25, learning_rate=0.001, grad_norm=1.5)
    log(first, state, 2, loss=2.0, learning_rate=0.0005)
    log(first, state, 2, eval_loss=2.5)
    log(first, state, 2, train_runtime=1.0)
    log(first, state, 3, eval_loss=1 / 3)
    log(first, state, 4, loss=1.0)
    assert read == [1] * 6
    text = "step,loss,learning_rate,grad_norm,validation_loss\n1,3.25,0.001,1.5,\n2,2.0,0.0005,,2.5\n3,,,,0.333333\n4,1.0,,,\n"
    assert curve.read_text() == text
    assert first.bar is not None and "step 4 of 4, loss 1.000" in first.bar._notes
    # A resume forgets what came after its checkpoint.
    del state.log_history[-2:]
    state.global_step = 2
    again = Progress(curve, [10, 20, 30, 40])
    again.on_train_begin(None, state, None)
    assert again.bar is not None and (again.bar.done, again.bar.total) == (30, 100)
    log(again, state, 3, loss=1.5)
    again.on_step_end(None, state, None)
    assert again.bar.done == 60
    assert curve.read_text() == "".join(text.splitlines(keepends=True)[:3]) + "3,1.5,,,\n"
    curve.unlink()
    log(again, state, 4, loss=0.5)
    assert curve.read_text().splitlines()[1:] == ["1,3.25,0.001,1.5,", "2,2.0,0.0005,,2.5", "3,1.5,,,", "4,0.5,,,"]


def test_metrics_of_answers_have_columns_of_their_own(tmp_path):
    curve, state = tmp_path / "loss.csv", State(2)
    one = Progress(curve, [10, 20], None, ["rouge_l", "triage"])
    one.on_train_begin(None, state, None)
    log(one, state, 1, loss=3.0)
    log(one, state, 1, eval_loss=2.5, eval_rouge_l=12.3456789, eval_triage=0.5)
    log(one, state, 2, loss=2.0)
    header = "step,loss,learning_rate,grad_norm,validation_loss,rouge_l,triage"
    assert curve.read_text().splitlines() == [header, "1,3.0,,,2.5,12.3457,0.5", "2,2.0,,,,,"]


def test_the_time_of_the_first_step_is_that_of_this_start(tmp_path, monkeypatch):
    times = iter([100.0, 200.0])
    state, one = State(4), Progress(tmp_path / "loss.csv", [10, 20])
    monkeypatch.setattr(curve_module.time, "time", lambda: next(times))
    assert one.first_step_at is None
    one.on_step_begin(None, state, None)
    one.on_step_begin(None, state, None)
    assert one.first_step_at == 100.0


def test_a_torn_map_is_one_sentence(tmp_path):
    (tmp_path / "dvc.yaml").write_text("stages: [\n")
    result = python(tmp_path, "-m", "stages.convert", env={"PYTHONPATH": str(ROOT)})
    assert result.returncode == 1
    assert result.stderr.startswith("convert: dvc.yaml is not valid YAML: ")
    assert result.stderr.count("\n") == 1
