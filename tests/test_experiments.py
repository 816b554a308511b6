"""Experiments side by side, as `make exp` shows them: they fit a screen of 120 columns."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.helpers.commands import dvc, experiments_command, git, git_init, python
from tests.helpers.paths import ROOT

FIGURES = ("label_accuracy", "rouge_l", "general_nll_change", "nll_per_char", "eos_rate", "repetition")
"""Of label and question-answer items together, as metrics/eval.json has them."""
WIDE = {"COLUMNS": "1000"}
"""DVC leaves columns out where a terminal is narrow: on a wide one it shows what it would."""

MAP = """
metrics: [metrics/eval.json]
stages: {evaluate: {cmd: echo, deps: [stages, metrics/train.json]}}
"""


def change(folder: Path, value: float, **params: str) -> None:
    for name in ("stages/adapter.py", "metrics/train.json"):
        (folder / name).write_text(str(value))
    figures = {**dict.fromkeys(FIGURES, value), "items": 50}
    (folder / "metrics/eval.json").write_text(json.dumps(figures))
    for name, new in params.items():
        old = next(
            line for line in (ROOT / "params.yaml").read_text().splitlines() if line.startswith(f"  {name}: ")
        ).partition("#")[0]
        text = (folder / "params.yaml").read_text(encoding="utf-8")
        (folder / "params.yaml").write_text(text.replace(old.rstrip(), f"  {name}: {new}", 1), encoding="utf-8")


def start(folder: Path) -> None:
    """A commit with results, and an experiment with less of each figure, rank-four."""
    git_init(folder)
    dvc(folder, "init", "--quiet")
    (folder / "metrics").mkdir()
    (folder / "dvc.yaml").write_text(MAP)
    (folder / "stages").mkdir()
    shutil.copy(ROOT / "params.yaml", folder / "params.yaml")
    change(folder, 46.808511)
    dvc(folder, "repro", "--quiet")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Start")
    experiment(folder, "rank-four", -12.345678, r="4", alpha="8")


def experiment(folder: Path, name: str, value: float, **params: str) -> None:
    change(folder, value, **params)
    # The list of sources is wider than a screen.
    path = folder / "params.yaml"
    path.write_text(
        path.read_text(encoding="utf-8").replace("path: general.csv", f"path: {name}.csv"), encoding="utf-8"
    )
    dvc(folder, "repro", "--quiet")
    dvc(folder, "exp", "save", "--quiet", "--name", name)
    git(folder, "checkout", "-q", ".")


def test_two_changed_parameters_fit_with_the_figures_of_two_tasks(tmp_path):
    start(tmp_path)
    # DVC has a column for the hash of every dependency, too.
    every = dvc(tmp_path, "exp", "show", "--csv").stdout.splitlines()[0].split(",")
    assert {"stages", "metrics/train.json"} <= set(every)
    first = every.index(FIGURES[0])
    assert every[first:][:8] == [*FIGURES, "items", "fetch.packages"]
    shown = python(tmp_path, "-m", "dvc", *experiments_command(), "--no-pager", env=WIDE).stdout
    columns = shown.splitlines()[1].split()
    shown_figures = [name for name in FIGURES if name not in ("eos_rate", "repetition")]
    assert columns == ["Experiment", *shown_figures, "lora.r", "lora.alpha"]
    compared = [dvc(tmp_path, "metrics", *words).stdout for words in (("diff", "HEAD", "rank-four"), ("show",))]
    assert all(name in text for name in FIGURES for text in compared)
    for text in (shown, *compared):
        assert max(map(len, text.splitlines())) <= 120, text


@pytest.mark.story
@pytest.mark.matrix
def test_experiments_are_sorted_by_what_is_named(tmp_path):
    start(tmp_path)
    experiment(tmp_path, "rank-two", 30.5, r="2")
    orders = []
    for variables in (["SORT=rouge_l"], ["SORT=rouge_l", "ORDER=asc"], ["SORT=lora.r"]):
        rows = python(tmp_path, "-m", "dvc", *experiments_command(*variables), "--csv").stdout
        orders.append(re.findall(r"rank-\w+", rows))
    assert orders == [["rank-two", "rank-four"], ["rank-four", "rank-two"], ["rank-four", "rank-two"]]
