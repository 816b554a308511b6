"""Inputs of an export: what earlier stages wrote of the model."""

from pathlib import Path
from typing import NamedTuple


class Inputs(NamedTuple):
    base: Path
    adapter: Path
    train: Path
    heldout: Path
    counts: Path
    """metrics/convert_details.json."""
    training: Path
    """metrics/train.json."""
    evaluation: Path
    """metrics/eval_details.json."""
    predictions: Path
    """metrics/predictions.jsonl."""
    classes: Path
    """data/processed/classes.json."""
