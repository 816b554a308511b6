"""Replay draws: which rows of earlier arrivals are trained on again first, by a hash of their ids."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from tuneline.formats.records import Record
from tuneline.formats.token_file import NEWEST


def replay_draws(sources: Mapping[str, Mapping[str, Any]]) -> Callable[[Record], float]:
    """The draw of a record: NEWEST for one of the newest arrival, else a number from 0 to 1 by which rows are taken again.

    The label of the newest arrival is hashed with the id, so that each arrival repeats other rows, and a larger share holds
    all rows of a smaller one. `sources` are those of metrics/convert_details.json; without `since` all rows are NEWEST, and
    so are rows to validate on.
    """
    arrivals = {name: row.get("arrival", 0) for name, row in sources.items()}
    newest = max(arrivals.values(), default=0)
    label = next((row.get("since") for row in sources.values() if row.get("arrival") == newest), None)
    earlier = {name for name, arrival in arrivals.items() if arrival < newest and sources[name]["weight"]}

    def draw(record: Record) -> float:
        if record["source"] not in earlier:
            return NEWEST
        digest = hashlib.sha256(f"{label}\n{record['id']}".encode()).digest()
        return int.from_bytes(digest[:4], "big") / 2**32

    return draw
