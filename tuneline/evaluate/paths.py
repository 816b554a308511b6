"""Paths that an evaluation reads for its report, and those that it writes."""

from pathlib import Path
from typing import NamedTuple


class Inputs(NamedTuple):
    """What the report says of how the model came to be."""

    base: Path
    adapter: Path
    training: Path
    """metrics/train.json."""
    counts: Path
    """metrics/convert_details.json."""
    curve: Path
    """metrics/loss.csv."""


class Outputs(NamedTuple):
    metrics: Path
    details: Path
    predictions: Path
    general: Path
    scores: Path
    intervals: Path
    per_class: Path
    confusion: Path
    report: Path
