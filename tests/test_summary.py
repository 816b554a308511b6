"""The summary at the end of a run: verdict, warnings in red with a remedy, next commands; DVC's messages that are left out."""

import json
import logging

import pytest

from tests.helpers.commands import git, git_init, python
from tests.helpers.paths import ROOT
from tuneline.cli.repro import PUSH, UP_TO_DATE, StageLog, has_remote, leave_out_last_words
from tuneline.cli.summary import figure_lines, verdict, warnings
from tuneline.evaluate.tasks import TaskResult
from tuneline.runtime.environment import require_environment
from tuneline.runtime.unsaved import is_unsaved, refuse_to_overwrite
from tuneline.sections import check_sections


def metrics(**changes: dict) -> dict:
    """Contents of metrics/eval.json where all is well; changes are {metric: (base, tuned, p)}."""
    values = {"rouge_l": (10.0, 14.0, 0.001), "nll_per_char": (2.0, 1.5, 0.001), "repetition": (20.0, 5.0, 0.01)}
    values |= {"eos_rate": (0.0, 98.0, 0.001)} | changes
    side = {place: {name: {"value": value[place]} for name, value in values.items()} for place in (0, 1)}
    delta = {
        name: {
            "value": tuned - base,
            "low": tuned - base - 1,
            "high": tuned - base + 1,
            "p": p,
            "wins": 9,
            "ties": 0,
            "losses": 1,
        }
        for name, (base, tuned, p) in values.items()
    }
    general = {"nll_per_token": {"delta": {"value": 0.1}}}
    return {"items": 10, "tasks": {"qa": 10}, "base": side[0], "tuned": side[1], "delta": delta, "general": general}


@pytest.mark.parametrize(
    ("found", "begins"),
    [
        (metrics(), "Better than the base in ROUGE-L on 10 held-out items (9 items better, 1 worse"),
        (metrics(rouge_l=(14.0, 10.0, 0.001)), "WORSE than the base in ROUGE-L"),
        (metrics(rouge_l=(10.0, 14.0, 0.4)), "No difference in ROUGE-L that 10 held-out items could show"),
        (metrics(label_accuracy=(0.0, 70.0, 0.001)), "Better than the base in Accuracy"),
    ],
)
def test_the_verdict_is_a_sentence(found, begins):
    assert verdict(found).startswith(begins)


def test_three_figures_begin_with_the_one_that_decides():
    def titles(found: dict, results: list | None = None) -> list[str]:
        return [line.partition("  ")[0] for line in figure_lines(found, results or [])]

    labelled = metrics(label_accuracy=(0.0, 70.0, 0.001))
    assert titles(metrics()) == ["ROUGE-L", "NLL per character", "Repeated 4-grams"]
    assert titles(labelled) == ["Accuracy", "ROUGE-L", "NLL per character"]
    assert titles(labelled | {"tasks": {"label": 10}}) == ["Accuracy", "NLL per character", "Repeated 4-grams"]


def test_figures_are_of_each_tasks_own_items_as_in_the_report():
    """One-word labels would raise the ROUGE-L of texts."""
    whole = metrics(label_accuracy=(0.0, 70.0, 0.001), rouge_l=(2.0, 63.0, 0.001)) | {"tasks": {"label": 6, "qa": 4}}
    results = [
        TaskResult("label", 6, "label_accuracy", metrics(label_accuracy=(0.0, 70.0, 0.001))),
        TaskResult("qa", 4, "rouge_l", metrics(rouge_l=(4.0, 28.0, 0.001))),
    ]
    accuracy, overlap, _ = figure_lines(whole, results)
    assert accuracy.startswith("Accuracy of 6 items  base 0.0 → tuned 70.0 %")
    assert overlap.startswith("ROUGE-L of 4 items  base 4.0 → tuned 28.0  +24.0")
    assert figure_lines(metrics(), [TaskResult("qa", 10, "rouge_l", metrics())])[0].startswith("ROUGE-L  base 10.0")


@pytest.mark.parametrize(
    ("changes", "problem", "remedy"),
    [
        ({"eos_rate": (0.0, 60.0, 0.001)}, "40 % of the answers are cut off", "train.max_steps"),
        ({"repetition": (20.0, 79.0, 0.001)}, "answers loop: 79 %", "base.source"),
    ],
)
def test_what_is_wrong_is_said_with_its_remedy(changes, problem, remedy):
    assert warnings(metrics()) == []
    (warned,) = warnings(metrics(**changes))
    assert warned.problem.startswith(problem)
    assert remedy in warned.remedy


def test_forgetting_is_said():
    general = {"nll_per_token": {"delta": {"value": 5.8}}}
    (warned,) = warnings(metrics() | {"general": general})
    assert warned.problem == "it forgets: NLL of general prompts rose by 5.8 nats per token"


def test_details_are_read_where_they_are(tmp_path):
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/eval.json").write_text('{"rouge_l": 14.0}')
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    environment = {"PYTHONPATH": str(ROOT)}
    result = python(tmp_path, "-m", "tuneline", "summary", env=environment)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith("summary: metrics/eval.json has no intervals")
    (tmp_path / "metrics/eval_details.json").write_text(json.dumps(metrics(repetition=(20.0, 79.0, 0.01))))
    result = python(tmp_path, "-m", "tuneline", "summary", env=environment)
    assert result.returncode == 0, result.stderr
    assert "WARNING: answers loop" in result.stdout
    assert "not merged yet" in result.stdout


def record(
    text: str, *arguments: object, level: int = logging.INFO, error: Exception | None = None
) -> logging.LogRecord:
    info = (type(error), error, None) if error else None
    return logging.LogRecord("dvc", level, "", 0, text, arguments, info)


def test_what_dvc_says_while_all_is_well_is_left_out_and_nothing_else(monkeypatch):
    monkeypatch.chdir(ROOT)
    log = StageLog()
    left_out = [
        record("Running stage '%s':", "train"),
        record("%s %s", ">", "python -m stages.train"),
        record("Updating lock file '%s'", "dvc.lock"),
        record("'%s' is empty.", "data/processed/rejects.jsonl", level=logging.WARNING),
    ]
    kept = [
        record("'%s' is empty.", "data/processed/train.jsonl", level=logging.WARNING),
        record("%s", "anything else"),
        record("", level=logging.ERROR, error=ValueError("failed to run: python -m stages.train, exited with 1")),
    ]
    assert [log.filter(one) for one in left_out] == [False] * 4
    assert [log.filter(one) for one in kept] == [True] * 3
    assert (log.ran, log.reused, log.stopped) == (["train"], [], False)


def test_reused_stages_are_one_line_before_the_next_that_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    log = StageLog()
    for name in ("code", "fetch", "base"):
        # Each of DVC's handlers asks.
        assert not log.filter(record("Stage '%s' didn't change, skipping", name))
        assert not log.filter(record("Stage '%s' didn't change, skipping", name))
    cached = "Stage '%s' is cached - skipping run, checking out outputs"
    assert not log.filter(record(cached, "convert"))
    assert capsys.readouterr().out == ""
    log.filter(record("Running stage '%s':", "train"))
    assert capsys.readouterr().out.splitlines() == [
        "3 stages unchanged: code, fetch, base",
        "stage 4 of 10: convert, taken from the cache",
    ]
    log.say_reused()
    assert (capsys.readouterr().out, log.reused) == ("", ["code", "fetch", "base", "convert"])


def test_a_failed_stage_is_kept_for_the_end_and_other_errors_are_shown():
    log = StageLog()
    error = ValueError("failed to reproduce 'train'")
    error.__cause__ = ValueError("failed to run: python -m stages.train, exited with 1")
    assert not log.filter(record("", level=logging.ERROR, error=error))
    assert (log.failed, log.stopped) == ({"train": 1}, False)
    error.__cause__ = ValueError("output 'models/adapter' does not exist")
    assert log.filter(record("", level=logging.ERROR, error=error))


def test_only_with_a_remote_is_pushing_proposed(tmp_path, monkeypatch):
    from dvc.ui import ui

    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "global"))
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "system"))
    monkeypatch.chdir(tmp_path)
    written: list[str] = []
    monkeypatch.setattr(ui, "write", written.append)
    leave_out_last_words()
    ui.write(PUSH)
    ui.write(UP_TO_DATE)
    ui.write("anything else")
    assert written == ["anything else"]
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config.local").write_text("['remote \"store\"']\n    url = /mnt/store\n")
    ui.write(PUSH)
    assert written == ["anything else", PUSH]


@pytest.mark.parametrize(
    ("place", "text", "expected"),
    [
        ("project/.dvc/config", "[core]\n    # no remote yet\n    analytics = false\n", False),
        ("project/.dvc/config", "[core]\n    site_cache_dir = /mnt/remote\n", False),
        ("project/.dvc/config", "[core\nremote", False),
        ("project/.dvc/config", "['remote \"store\"']\n    url = /mnt/store\n", True),
        ("global/config", "['remote \"store\"']\n    url = /mnt/store\n", True),
        ("system/config", "['remote \"store\"']\n    url = /mnt/store\n", True),
    ],
)
def test_a_remote_is_what_dvc_takes_for_one(monkeypatch, tmp_path, place, text, expected):
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "global"))
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "system"))
    for name in ("global", "system", "project/.dvc"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    assert not has_remote()
    (tmp_path / place).write_text(text)
    assert has_remote() is expected


@pytest.mark.parametrize("status", ["130", "-2"])
def test_a_stage_that_ctrl_c_stopped_is_no_error(status):
    log = StageLog()
    error = ValueError("failed to reproduce 'train'")
    error.__cause__ = ValueError(f"failed to run: python -m stages.train, exited with {status}")
    assert not log.filter(record("", level=logging.ERROR, error=error))
    assert log.stopped


def test_a_python_without_the_libraries_says_how_to_get_them(capsys):
    require_environment()
    with pytest.raises(SystemExit) as end:
        require_environment(("pydantic", "no_such_library"))
    assert "no_such_library is not installed" in str(end.value)
    assert "source .venv/bin/activate" in str(end.value)


@pytest.mark.parametrize("module", ["stages.train", "stages.code", "tuneline"])
def test_an_entry_with_another_python_is_one_sentence(tmp_path, module):
    # -S -I: this Python without its site-packages, as another one would be.
    program = f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r}); runpy.run_module({module!r}, run_name='__main__')"
    result = python(tmp_path, "-S", "-I", "-c", program)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "run `source .venv/bin/activate`" in result.stderr


def test_results_are_unsaved_until_a_commit_or_an_experiment_has_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = tmp_path.joinpath("metrics/eval.json").relative_to(tmp_path)
    results.parent.mkdir()
    results.write_text("1")
    assert not is_unsaved(results), "there is no git"
    git_init(tmp_path)
    (tmp_path / "other").write_text("x")
    git(tmp_path, "add", "other")
    git(tmp_path, "commit", "-q", "-m", "Other")
    assert is_unsaved(results)
    refuse_to_overwrite(results)
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "x")
    with pytest.raises(ValueError, match="no commit and in no experiment.*git add dvc.lock metrics"):
        refuse_to_overwrite(results)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path.parent))
    refuse_to_overwrite(results)
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "Results")
    assert not is_unsaved(results)
    results.write_text("2")
    assert is_unsaved(results)
    git(tmp_path, "commit", "-q", "-a", "-m", "Experiment")
    git(tmp_path, "update-ref", "refs/exps/ab/cdef/r8", "HEAD")
    git(tmp_path, "reset", "-q", "--soft", "HEAD~1")
    assert not is_unsaved(results), "an experiment has them"


def test_every_section_is_checked_at_once(workspace, params):
    from tuneline.runtime.params import load

    workspace()
    check_sections(load)
    params["export"]["max_delta_nl"] = params["export"].pop("max_delta_nll")
    params["lora"]["r"] = "abc"
    params["exports"] = {}
    workspace()
    with pytest.raises(ValueError, match=r"^params\.yaml: ") as found:
        check_sections(load)
    for complaint in (
        "export.max_delta_nl is not a known key",
        "lora.r is 'abc'",
        "section 'exports' is read by no stage",
    ):
        assert complaint in str(found.value)
    assert str(found.value).count("params.yaml") == 1
