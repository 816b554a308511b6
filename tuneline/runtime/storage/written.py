"""What stages wrote, by content: metrics/sums/<stage>.json, so that a later stage sees what has changed since."""

import json
from collections.abc import Mapping
from pathlib import Path

from tuneline.runtime.atomic import atomic_output, to_json
from tuneline.runtime.storage.content import Listing, listing
from tuneline.runtime.storage.stage_map import read_later

RECORDS = Path("metrics/sums")


def record_written(stage: str, made: Mapping[Path, Path]) -> None:
    """Record {output: where it lies now} as what the stage wrote, of those that others read; the rest is kept as it was."""
    listings = {target.as_posix(): listing(made[target]) for target in sorted(made.keys() & read_later(stage))}
    if listings:
        update(stage, listings)


def update(stage: str, listings: Mapping[str, Listing]) -> None:
    """Add to what is recorded of the stage, whatever other processes add at the same time."""
    with atomic_output(_path(stage), wait=True) as partial:
        partial.write_text(to_json(written(stage) | dict(listings)), encoding="utf-8")


def written(stage: str) -> dict[str, Listing]:
    """{output: its files' quick hashes}; {} where nothing is known."""
    try:
        found = json.loads(_path(stage).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    entries = found.items() if isinstance(found, dict) else ()
    return {path: files for path, files in entries if isinstance(files, dict)}


def _path(stage: str) -> Path:
    return RECORDS / f"{stage}.json"
