"""Experiments side by side, as `make exp` shows them: they fit a screen of 120 columns."""

import json
import shutil
from pathlib import Path

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


def test_two_changed_parameters_fit_with_the_figures_of_two_tasks(tmp_path):
    git_init(tmp_path)
    dvc(tmp_path, "init", "--quiet")
    (tmp_path / "metrics").mkdir()
    (tmp_path / "dvc.yaml").write_text(MAP)
    (tmp_path / "stages").mkdir()
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    change(tmp_path, 46.808511)
    dvc(tmp_path, "repro", "--quiet")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "Start")
    change(tmp_path, -12.345678, r="4", alpha="8")
    # The list of sources is wider than a screen.
    params = tmp_path / "params.yaml"
    params.write_text(
        params.read_text(encoding="utf-8").replace("path: general.csv", "path: visits.csv"), encoding="utf-8"
    )
    dvc(tmp_path, "repro", "--quiet")
    dvc(tmp_path, "exp", "save", "--quiet", "--name", "rank-four")
    git(tmp_path, "checkout", "-q", ".")
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
