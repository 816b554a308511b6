"""Paths that an evaluation writes, and those that its report reads."""

from pathlib import Path
from typing import NamedTuple


class Outputs(NamedTuple):
    metrics: Path
    details: Path
    predictions: Path
    general: Path
    scores: Path
    intervals: Path
    per_class: Path
    confusion: Path


class Inputs(NamedTuple):
    """What the report reads, each written by an earlier stage, but the votes."""

    details: Path
    """metrics/eval_details.json."""
    predictions: Path
    general: Path
    base_general: Path
    training: Path
    """metrics/train.json."""
    counts: Path
    """metrics/convert_details.json."""
    curve: Path
    """metrics/loss.csv."""
    reviews: Path
    """The folder of votes."""
