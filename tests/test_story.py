"""The pipeline, run as a user runs it, on a tiny random model: what it makes, what it does not do again."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from tests.helpers.commands import dvc, experiments_command, git, python
from tests.helpers.first_run import Ran, copied
from tests.helpers.pipeline import load, ran, set_param
from tuneline.evaluate.figures import figures

pytestmark = pytest.mark.story

OUTPUTS = [
    "data/processed/train.jsonl", "data/processed/heldout.jsonl", "data/processed/rejects.jsonl",
    "data/processed/tokens.safetensors", "data/processed/base_answers.jsonl",
    "models/base/model.safetensors", "models/adapter/adapter_model.safetensors", "models/adapter/lineage.json",
    "models/merged/model.safetensors", "models/merged/lineage.json", "models/merged/chat_template.jinja",
    "metrics/base.json", "metrics/convert.json", "metrics/tokenize.json", "metrics/data.html", "metrics/train.json",
    "metrics/loss.csv", "metrics/eval.json", "metrics/predictions.jsonl", "metrics/report.html", "metrics/export.json",
    "metrics/scores.csv", "metrics/intervals.csv", "metrics/per_class.csv", "metrics/confusion.csv", "metrics/speed/train.json",
    "data/processed/base_general.jsonl", "metrics/general.jsonl", "metrics/convert_details.json", "metrics/eval_details.json",
    "data/processed/classes.json",
]  # fmt: skip


def test_repro_then_nothing_then_an_ablation(first_run, rerun, experiment):
    project = rerun
    assert sorted(re.findall(r"^stage \d+ of \d+: (\w+)", first_run.stdout, re.MULTILINE)) == sorted(
        ["code", "fetch", "base", "convert", "tokenize", "train", "predict_base", "evaluate", "report", "export"]
    )
    assert [name for name in OUTPUTS if not (project / name).is_file()] == []
    training = load(project, "metrics/train.json")
    assert training["last_loss"] < training["first_loss"]
    assert training["steps"] == 6
    assert "tuneline/train/run.py" in load(project, "models/adapter/lineage.json")["code"]
    evaluation = load(project, "metrics/eval.json")
    details = load(project, "metrics/eval_details.json")
    assert evaluation["items"] == details["items"] == 6
    assert evaluation["nll_per_char"] == details["tuned"]["nll_per_char"]["value"]
    assert evaluation["nll_per_char"] < details["base"]["nll_per_char"]["value"]
    asked = {"decoding": "greedy", "max_new_tokens": 8, "constrain": None, "backend": "transformers"}
    assert details["generation"] == asked
    check_figures_are_few_and_flat(project)
    # The columns of `dvc exp show` are in the file's order.
    assert list(evaluation) == list(figures(details)) != sorted(evaluation)
    assert len((project / "metrics/predictions.jsonl").read_text(encoding="utf-8").splitlines()) == 6
    assert load(project, "metrics/export.json")["delta_nll"] < 0.01
    # The scratch of the run is gone once the adapter is in place.
    assert list((first_run.folder.parent / "scratch/train").iterdir()) == []
    # A second run does nothing, and git sees only what a run is meant to change.
    second = dvc(project, "repro")
    assert ran(second) == []
    assert "up to date" in dvc(project, "status").stdout
    changed = {line[3:] for line in git(project, "status", "--porcelain").splitlines()}
    assert all(name == "dvc.lock" or name.startswith("metrics/") for name in changed), changed
    assert not any("speed" in name or "details" in name for name in changed)
    check_an_ablation(experiment, project.parent / "experiment", training, details)


def check_an_ablation(experiment: Ran, project: Path, training: dict, details: dict) -> None:
    """It reruns what depends on it and nothing else, and its numbers can be compared."""
    assert re.findall("^Running stage '(.*)':", experiment.stdout, re.MULTILINE) == [
        "code",
        "train",
        "evaluate",
        "report",
        "export",
    ]
    copied(experiment, project)
    assert "nll_per_char" in dvc(project, "metrics", "diff").stdout
    assert "trainable_parameters" in dvc(project, "metrics", "diff", "--targets", "metrics/train.json").stdout
    assert load(project, "metrics/train.json")["trainable_parameters"] < training["trainable_parameters"]
    check_experiments_fit_a_screen(project)
    # Item by item against the committed run, without a checkout.
    compared = python(project, "-m", "tuneline", "compare", "HEAD", "--json")
    assert compared.returncode == 0, compared.stderr
    (against,) = json.loads(compared.stdout)
    assert (against["base"], against["tuned"], against["items"]) == ("HEAD", "workspace", 6)
    assert against["metrics"]["base"]["rouge_l"] == details["tuned"]["rouge_l"]
    check_what_code_changes_rerun(project)


@pytest.mark.matrix
def test_all_stages_forced_and_an_experiment_in_a_temporary_folder(rerun):
    git(rerun, "add", "-A")
    git(rerun, "commit", "-q", "-m", "Run")
    # Forced, every stage gives the same bytes again.
    lock = (rerun / "dvc.lock").read_bytes()
    dvc(rerun, "repro", "-f")
    assert (rerun / "dvc.lock").read_bytes() == lock
    assert git(rerun, "status", "--porcelain") == "", "wall times are no results"
    # A copy elsewhere has only what git and dvc track.
    dvc(rerun, "exp", "run", "--temp", "-S", "train.learning_rate=1e-5")
    plots = dvc(rerun, "plots", "show")
    assert "index.html" in plots.stdout
    assert "nats per supervised token" in (rerun / "dvc_plots/index.html").read_text(encoding="utf-8")


def check_figures_are_few_and_flat(project: Path) -> None:
    for stage in ("base", "convert", "tokenize", "train", "evaluate", "export"):
        name = "eval" if stage == "evaluate" else stage
        figures = load(project, f"metrics/{name}.json")
        assert 0 < len(figures) <= 10, name
        assert not any(isinstance(value, dict | list) for value in figures.values()), name


def check_experiments_fit_a_screen(project: Path) -> None:
    """Of 120 columns. DVC leaves columns out where a terminal is narrow: it is asked on a wide one what it would show."""
    wide = {"COLUMNS": "1000", "DVC_PAGER": "cat"}
    shown = python(project, "-m", "dvc", *experiments_command(), "--no-pager", env=wide).stdout
    assert "lora.r" in shown and "nll_per_char" in shown and "general_nll_change" in shown
    compared = [python(project, "-m", "dvc", "metrics", word, env=wide).stdout for word in ("diff", "show")]
    assert all("nll_per_char" in text for text in compared)
    for text in (shown, *compared):
        assert max(map(len, text.splitlines())) <= 120, text


def check_what_code_changes_rerun(project: Path) -> None:
    """A docstring reruns `code` alone; the schema of `lora` reruns training and what follows it."""
    edit(project, "tuneline/runtime/stage.py", '"""A run of a stage', '"""One run of a stage')
    edit(project, "tuneline/models/loading.py", "import", "# A comment.\nimport")
    assert ran(dvc(project, "repro")) == ["code"]
    edit(project, "tuneline/train/config/lora.py", "class Lora(Section):", "EXTRA = 1\n\n\nclass Lora(Section):")
    assert ran(dvc(project, "repro", "code")) == ["code"]
    changed = json.loads(dvc(project, "status", "--json").stdout)
    assert set(changed) == {"train"}
    assert "code/train.txt" in json.dumps(changed)


def edit(folder: Path, name: str, old: str, new: str) -> None:
    text = (folder / name).read_text(encoding="utf-8")
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1), encoding="utf-8")


def also(*values):
    return pytest.param(*values, marks=pytest.mark.matrix)


@pytest.mark.parametrize(
    ("override", "stage", "message"),
    [
        ({"lora": {"r": "abc"}}, "train", "train: params.yaml: lora.r is 'abc', expected an integer"),
        also({"train": {"epochs": -1}}, "train", "train: params.yaml: train.epochs is -1, expected greater than 0"),
        also({"train": {"dtype": "float16"}}, "train", "train.dtype is float16 and the device is a CPU"),
        ({"train": {"batch_size": 3}}, "train", "train: train.batch_size is 3, expected a multiple of"),
        also({"deepspeed": {"hostfile": "none"}}, "train", "train: deepspeed.hostfile is 'none', expected a file"),
        ({"data": {"sources": [{"path": "gone.csv"}]}}, "convert", "convert: data.sources: path 'gone.csv' is no file"),
        ({"base": {"source": "./gone"}}, "base", "base: base.source is './gone', expected a folder"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(project, override, stage, message):
    for section, values in override.items():
        set_param(project, section, **values)
    result = python(project, "-m", f"stages.{stage}")
    assert result.returncode == 1
    lines = [line for line in result.stderr.splitlines() if "WARNING" not in line]
    assert len(lines) == 1
    assert message in lines[0]
    made = [name for name in OUTPUTS if (project / name).exists()]
    assert made == []
    assert list(project.rglob(".*.partial")) == []


def test_empty_raw_file_and_base_without_weights(project, tmp_path):
    (project / "data/raw/medical.csv").write_bytes(b"")
    result = python(project, "-m", "stages.convert")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith("convert: data/raw/medical.csv is empty (0 bytes), expected")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/config.json").write_text("{}")
    set_param(project, "base", source=str(tmp_path / "bare"))
    result = python(project, "-m", "stages.base")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "holds no model: expected config.json and *.safetensors weights there" in result.stderr


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def started(project: Path, until: str, command: Sequence[str] = ("repro", "train")) -> subprocess.Popen:
    """`dvc repro train`, running, once a checkpoint of that name is there."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": ""}
    # dash, the usual /bin/sh of Debian, stays between dvc and the stage.
    environment["SHELL"] = "/bin/sh"
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", *command], cwd=project, env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 600
    while not list(project.parent.glob(f"scratch/train/*/{until}/manifest.json")):
        assert process.poll() is None, "training ended before it could be stopped"
        assert time.monotonic() < deadline, "no checkpoint within 600 s"
        time.sleep(0.05)
    return process


def test_a_killed_dvc_takes_training_with_it_and_the_next_run_ends_with_the_same_bytes(rerun):
    project = rerun
    set_param(project, "train", epochs=100, max_steps=150, save_steps=25)
    process = started(project, "checkpoint-25")
    family = descendants(process.pid)
    assert len(family) >= 2, "dash and the stage, which trains"
    # While it runs, a second run in this workspace is refused, with the pid of the first.
    second = python(project, "-m", "stages.train")
    assert second.returncode == 1
    assert "the stage train is run in this folder by another process now: process" in second.stderr
    assert any(str(member.pid) in second.stderr for member in family)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []
    assert not (project / "models/adapter").exists()
    resumed = dvc(project, "repro", "train")
    assert "going on from checkpoint-" in resumed.stdout
    adapter = project / "models/adapter/adapter_model.safetensors"
    after_kill, curve = adapter.read_bytes(), (project / "metrics/loss.csv").read_bytes()
    dvc(project, "repro", "-f", "-s", "train")
    assert adapter.read_bytes() == after_kill
    assert (project / "metrics/loss.csv").read_bytes() == curve


@pytest.mark.matrix
def test_a_killed_experiment_goes_on_in_its_next_temporary_folder(project):
    set_param(project, "train", epochs=100, max_steps=6, save_steps=25)
    dvc(project, "repro", "tokenize")
    git(project, "add", "-A")
    git(project, "commit", "-q", "-m", "Tokens")
    command = ("exp", "run", "--temp", "-S", "train.max_steps=150", "train")
    process = started(project, "checkpoint-25", command)
    family = descendants(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []
    resumed = dvc(project, *command)
    assert "going on from checkpoint-" in resumed.stdout
    assert not list(project.parent.glob("scratch/train/*"))


@pytest.mark.matrix
def test_sigterm_to_the_stage_saves_and_stops(project):
    set_param(project, "train", epochs=100, max_steps=400, save_steps=100)
    process = started(project, "checkpoint-100")
    stage = next(member for member in descendants(process.pid) if "stages.train" in member.cmdline())
    stage.send_signal(signal.SIGTERM)
    assert process.wait(timeout=40) != 0
    (scratch,) = project.parent.glob("scratch/train/*")
    steps = [int(path.name.partition("-")[2]) for path in scratch.glob("checkpoint-*")]
    assert any(step % 100 for step in steps), f"only regular checkpoints: {steps}"
    assert not (project / "models/adapter").exists()
