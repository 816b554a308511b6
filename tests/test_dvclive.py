"""DVCLive's curves: a step once, at its own number, also after a resume."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

from tuneline.train.trainer.dvclive_callback import DVCLiveCallback


def test_a_resumed_run_has_the_whole_curve_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    history = [
        {"step": 2, "loss": 3.0, "epoch": 0.1},
        {"step": 4, "loss": 2.0, "learning_rate": 0.5},
        {"step": 4, "eval_loss": 2.5},
    ]
    for start, end in ((0, 2), (1, 3)):
        curves = DVCLiveCallback()
        curves.on_train_begin(None, SimpleNamespace(log_history=history[:start]), None)
        for seen in range(start + 1, end + 1):
            curves.on_log(None, SimpleNamespace(log_history=history[:seen]), None)
        curves.on_train_end(None, None, None)
    assert points("loss") == [("2", 3.0), ("4", 2.0)]
    assert points("validation_loss") == [("4", 2.5)]
    said = json.loads(Path("dvclive/metrics.json").read_text())
    assert said == {"train": {"loss": 2.0, "learning_rate": 0.5, "validation_loss": 2.5}, "step": 4}
    assert not Path("dvc.yaml").exists()


def points(name: str) -> list[tuple[str, float]]:
    with Path(f"dvclive/plots/metrics/train/{name}.tsv").open(newline="") as file:
        return [(row["step"], float(row[name])) for row in csv.DictReader(file, delimiter="\t")]
