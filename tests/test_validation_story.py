"""Curves by generation through the stage: each checkpoint evaluated apart, killed and resumed, one process and two."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from subprocess import DEVNULL

import pytest

from tests.helpers.commands import python
from tests.helpers.workspace import CHATS, make_workspace, write_records
from tuneline.train.checkpoints import newest_complete

pytestmark = [pytest.mark.story, pytest.mark.matrix]

MEASURED = ["rouge_l", "length_ratio", "distinct_2"]
CHANGES = {"eval_fraction": 0.4, "eval_max_new_tokens": 12, "save_steps": 5, "max_steps": 20, "eval_items": 3}
TRAIN = CHANGES | {"eval_metrics": [*MEASURED, "mine.py:said"], "best_by": "mine.py:said"}
KEEP = """
import sys
from pathlib import Path
from transformers import TrainerCallback
import tuneline.train.run as training
from tuneline.train import methods

ours = training.train

class Keep(TrainerCallback):
    def on_evaluate(self, args, state, control, model=None, **kwargs):
        inside = getattr(model, "module", model)
        methods.save(inside, CONFIG[0].method, Path("kept") / str(state.global_step))

CONFIG = []

def train(config, paths, resume, callbacks=()):
    CONFIG.append(config)
    ours(config, paths, resume, [Keep()])

training.train = train
import stages.train
from tuneline.runtime.stage import run_stage
run_stage(stages.train.main, stages.train.__doc__)
"""


KEEP_IN_EACH = """
import os
if os.environ.get("RANK") == "0":
    from tuneline.train.validation.answering import Answering
    ours = Answering.__call__

    def keep(self, model):
        model.save_pretrained(f"kept/{5 * (self.validations + 1)}")
        return ours(self, model)

    Answering.__call__ = keep
"""
LIMIT = 600
"""Seconds."""


def env_of(folder: Path) -> dict[str, str]:
    return {"TUNELINE_SCRATCH": str(folder / "scratch"), "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}


def run(folder: Path, *words: str) -> str:
    """Train to the end; returns what was printed."""
    result = python(folder, *(words or ("-m", "stages.train")), env=env_of(folder), timeout=LIMIT)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def adapter(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


def folder_of(root: Path, base: Path, processes: int = 1, zero_stage: int = 1, **changes) -> Path:
    train = {"epochs": 99, "learning_rate": 0.01} | TRAIN | changes
    deepspeed = {"processes": processes, "zero_stage": zero_stage}
    make_workspace(root, base, {"train": train, "lora": {"dropout": 0.0}, "deepspeed": deepspeed})
    write_records(root, CHATS)
    # A link to the project's.
    (root / "evaluation").unlink()
    (root / "evaluation").mkdir()
    (root / "evaluation/mine.py").write_text("def said(prediction):\n    return len(prediction)\n", encoding="utf-8")
    return root


def curve_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics/loss.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["validation_loss"]]


def evaluated(folder: Path, checkpoint: Path) -> dict[str, float]:
    """A checkpoint's figures by the evaluate package, of the items that the curve is of."""
    import torch

    from tuneline.evaluate.compare import compare
    from tuneline.evaluate.config import Evaluate
    from tuneline.evaluate.predict import Model, predict
    from tuneline.evaluate.results import prediction_rows
    from tuneline.formats.token_file import Tokens
    from tuneline.models.loading import load_adapter, load_model, load_tokenizer
    from tuneline.runtime.params import load
    from tuneline.train.config.train import Train
    from tuneline.train.validation.items import validation_items

    base, params = folder / "models/base", load(Train, folder / "params.yaml")
    tokens = Tokens(folder / "data/processed/tokens.safetensors")
    records = validation_items(params, tokens, folder / "data/processed/train.jsonl")
    assert len(records) == 3
    network = load_adapter(load_model(base, torch.float32), checkpoint)
    section = {"max_new_tokens": 12, "max_thinking_tokens": 12, "batch_size": 2, "dtype": "float32", "constrain": None}
    model, threads = Model(network, load_tokenizer(base), {}), torch.get_num_threads()
    # As many as the training had: their number changes float results.
    torch.set_num_threads(1)
    found = predict(model, records, Evaluate.model_validate(section), "evaluate").answers
    torch.set_num_threads(threads)
    figures = compare(prediction_rows(records, found, found))["tuned"]
    said = sum(len(one["prediction"]) for one in found) / len(found)
    return {name: figures[name]["value"] for name in MEASURED} | {"said": said}


@pytest.fixture(scope="module")
def straight(llama_base, tmp_path_factory) -> Path:
    """A run that nobody killed, with the adapter of each validation in kept/."""
    folder = folder_of(tmp_path_factory.mktemp("validated") / "straight", llama_base)
    # A stage is called as its file.
    (folder / "train.py").write_text(KEEP, encoding="utf-8")
    said = run(folder, "train.py")
    assert "train: 4 validations answer 3 items each, of 12 tokens at most: up to 144 tokens" in said
    return folder


def test_the_curve_equals_each_checkpoints_evaluation(straight):
    curve = curve_of(straight)
    assert [row["step"] for row in curve] == ["5", "10", "15", "20"]
    assert len({row["said"] for row in curve}) > 1, "answers change"
    for row in curve:
        for name, value in evaluated(straight, straight / "kept" / row["step"]).items():
            assert float(row[name]) == pytest.approx(value, rel=1e-5), (row["step"], name)
    # The adapter is that of the best step by the user's own metric.
    summary = json.loads((straight / "metrics/train.json").read_text())
    best = max(curve, key=lambda row: float(row["said"]))
    assert (summary["best_step"], summary["validation_said"]) == (int(best["step"]), float(best["said"]))
    assert adapter(straight / "models/adapter") == adapter(straight / "kept" / best["step"])
    speed = json.loads((straight / "metrics/speed/train.json").read_text())["validation_answers"]
    assert (speed["validations"], speed["items"]) == (4, 3)
    assert speed["seconds"] > 0


def test_a_run_that_was_killed_ends_with_the_same_curve(straight, llama_base, tmp_path):
    killed = folder_of(tmp_path / "killed", llama_base)
    command = [sys.executable, "-m", "stages.train"]
    process = subprocess.Popen(command, cwd=killed, env=os.environ | env_of(killed), stdout=DEVNULL, stderr=DEVNULL)
    scratches = killed / "scratch"
    until = time.monotonic() + LIMIT
    while time.monotonic() < until and process.poll() is None:
        if any(newest_complete(one.parent) for one in scratches.rglob("checkpoint-10")):
            break
        time.sleep(0.05)
    process.kill()
    process.wait(timeout=LIMIT)
    assert "going on from checkpoint" in run(killed)
    assert (killed / "metrics/loss.csv").read_bytes() == (straight / "metrics/loss.csv").read_bytes()
    assert adapter(killed / "models/adapter") == adapter(straight / "models/adapter")


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_two_processes_share_the_items(llama_base, tmp_path, stage):
    """Their weights are others by rounding than one process's, so the curve is compared with their own."""
    pair = folder_of(tmp_path / "pair", llama_base, processes=2, zero_stage=stage, early_stopping=1)
    # The launcher starts others, which keep the adapter of each validation.
    (pair / "sitecustomize.py").write_text(KEEP_IN_EACH, encoding="utf-8")
    result = python(pair, "-m", "stages.train", env=env_of(pair) | {"PYTHONPATH": str(pair)}, timeout=LIMIT)
    assert result.returncode == 0, result.stderr[-3000:]
    curve = curve_of(pair)
    for row in curve:
        for name, value in evaluated(pair, pair / "kept" / row["step"]).items():
            assert float(row[name]) == pytest.approx(value, rel=1e-5), (row["step"], name)
    summary = json.loads((pair / "metrics/train.json").read_text())
    best = max(curve, key=lambda row: float(row["said"]))
    assert summary["best_step"] == int(best["step"])
    assert adapter(pair / "models/adapter") == adapter(pair / "kept" / best["step"])
    assert int(curve[-1]["step"]) == min(20, int(best["step"]) + 5), "one validation without a better one is the last"


def test_a_metric_that_fails_in_the_middle_ends_both_processes(llama_base, tmp_path):
    pair = folder_of(tmp_path / "pair", llama_base, processes=2)
    known = sorted({chat[-1]["content"] for chat in CHATS} | {""})
    text = f"def said(prediction):\n    return {known}.index(prediction)\n"
    (pair / "evaluation/mine.py").write_text(text, encoding="utf-8")
    result = python(pair, "-m", "stages.train", env=env_of(pair), timeout=LIMIT)
    assert result.returncode
    assert "mine.py, line 2" in result.stderr and "is not in list" in result.stderr
    assert "another process of this run is gone" not in result.stderr
