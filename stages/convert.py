"""Read the raw files, set the held-out items aside, write the rest for training, and account for every item.

    python -m stages.convert

Reads data/raw and section `data`; writes data/processed/{train,heldout,rejects,removed}.jsonl and
metrics/convert.json. TUNELINE_WORKERS sets the number of processes; the outputs do not depend on it.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tuneline.data.config import Data
from tuneline.data.convert import (
    Tally,
    check_rejects,
    exam_of,
    read_all,
    sources_of,
    split_of,
    write_parts,
)
from tuneline.formats.records import TERMS
from tuneline.runtime.atomic import building, write_json
from tuneline.runtime.params import load
from tuneline.runtime.stage import run

RAW = Path("data/raw")
TRAIN = Path("data/processed/train.jsonl")
HELDOUT = Path("data/processed/heldout.jsonl")
REJECTS = Path("data/processed/rejects.jsonl")
REMOVED = Path("data/processed/removed.jsonl")
METRICS = Path("metrics/convert.json")


def main() -> None:
    params = load(Data)
    tallies = [Tally() for _ in sources_of(params)]
    with ExitStack() as stack:
        train, heldout, rejects, removed = (
            stack.enter_context(stack.enter_context(building(path)).open("wb"))
            for path in (TRAIN, HELDOUT, REJECTS, REMOVED)
        )
        spill = stack.enter_context(tempfile.TemporaryFile(dir=TRAIN.parent))
        keys = read_all(params, RAW, TRAIN.parent, spill, rejects, tallies)
        check_rejects(params, tallies)
        split = split_of(params, keys)
        exam, records = exam_of(spill, keys, split)
        heldout.writelines(records)
        write_parts(spill, keys, split, exam, records, params.leak_policy, train, removed, tallies)
        counts = account(params, tallies)
    write_json(METRICS, counts)
    total = counts["total"]
    print(f"convert: {total['train']} training and {total['heldout']} held-out items of {total['items']}; ", end="")
    print(f"{total['duplicates']} duplicates, {total['leaks']} leaks, {total['rejected']} rejects ({REJECTS})")
    for name, row in counts["sources"].items():
        if row["placeholders"]:
            found = ", ".join(f"{text} ({count}×)" for text, count in row["placeholders"].items())
            print(f"convert: {name} holds placeholders that data.placeholders does not fill: {found}")


def account(params: Data, tallies: list[Tally]) -> dict[str, Any]:
    """Counts per source and in total. Raises ValueError when no training row is left."""
    counts: dict[str, Any] = {"sources": {}, "total": {}}
    for source, tally in zip(sources_of(params), tallies, strict=True):
        row = {name: dict(value) if isinstance(value, dict) else value for name, value in vars(tally).items()}
        counts["sources"][source.name] = row
    for term in ("items", *TERMS, "conflicts", "leaks_kept"):
        counts["total"][term] = sum(row[term] for row in counts["sources"].values())
    for row in (*counts["sources"].values(), counts["total"]):
        assert row["items"] == sum(row[term] for term in TERMS), f"items were lost or made: {row}"
    if not counts["total"]["train"]:
        raise ValueError(
            "no training row is left: "
            + ", ".join(f"{counts['total'][term]} {term}" for term in ("items", *TERMS[1:]))
            + "; give more data or a smaller data.heldout"
        )
    return counts


if __name__ == "__main__":
    run(main, __doc__)
