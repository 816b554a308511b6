"""The JSON object in a file that a stranger may have made: of a size that can be read, or one sentence."""

import json
from pathlib import Path
from typing import Any

LARGEST = 20_000_000
"""Bytes of a config: the longest published ones have a hundredth."""


def json_object(path: Path) -> dict[str, Any]:
    """A file's JSON object. Raises ValueError when it is none, or too large."""
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes, expected at most {LARGEST:,} of a config")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds {type(values).__name__}, expected an object")
    return values
