"""Read the raw files, set the held-out items aside, write the rest for training, and account for every item.

    python -m stages.convert

Reads data/raw and section `data`; writes data/processed/{train,heldout,rejects}.jsonl and metrics/convert.json.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tuneline.heldout import Split, split
from tuneline.outputs import building, write_json
from tuneline.params import load
from tuneline.records import Record, record_id, write_jsonl
from tuneline.sections.data import Data, Source
from tuneline.sources import Item, Reject, read_source
from tuneline.stage import run

RAW = Path("data/raw")
TRAIN = Path("data/processed/train.jsonl")
HELDOUT = Path("data/processed/heldout.jsonl")
REJECTS = Path("data/processed/rejects.jsonl")
METRICS = Path("metrics/convert.json")


def main() -> None:
    params = load(Data)
    read = [entry for source in params.sources for entry in read_source(source, RAW)]
    items = [entry for entry in read if isinstance(entry, Item)]
    rejects = [entry for entry in read if isinstance(entry, Reject)]
    refuse_unread(params.sources, read)
    parts = split(items, params.heldout, params.seed)
    counts = account([source.name for source in params.sources], read, rejects, parts)
    with ExitStack() as stack:
        train, heldout, rejected = (stack.enter_context(building(path)) for path in (TRAIN, HELDOUT, REJECTS))
        write_jsonl(train, map(to_record, parts.train))
        write_jsonl(heldout, map(to_record, parts.heldout))
        write_jsonl(rejected, (reject.line() for reject in rejects))
    write_json(METRICS, counts)
    total = counts["total"]
    print(f"convert: {total['train']} training and {total['heldout']} held-out items of {total['items']}; ", end="")
    print(f"{total['duplicates']} duplicates, {total['leaks']} leaks, {total['rejected']} rejects ({REJECTS})")


def refuse_unread(sources: list[Source], read: list[Item | Reject]) -> None:
    """Raises ValueError for a source of which no row was read, naming the most common reasons."""
    for source in sources:
        entries = [entry for entry in read if entry.source == source.name]
        rejects = [entry for entry in entries if isinstance(entry, Reject)]
        if entries and len(rejects) == len(entries):
            reasons = ", ".join(f"{count} × {reason}" for reason, count in sorted(_reasons(rejects).items())[:5])
            raise ValueError(
                f"data.sources: no row of {source.path!r} could be read ({reasons}; first at {rejects[0].origin}): "
                "set question, columns, template or format of this source"
            )


def to_record(item: Item) -> Record:
    return {
        "id": record_id(item.source, item.messages),
        "source": item.source,
        "origin": item.origin,
        "task": item.task,
        "messages": item.messages,
    }


def account(names: list[str], read: list[Item | Reject], rejects: list[Reject], parts: Split) -> dict[str, Any]:
    """Counts per source and in total, with items = train + heldout + duplicates + leaks + rejected in each."""
    counts: dict[str, Any] = {"sources": {}, "total": {}}
    for name in names:
        counts["sources"][name] = {
            "items": _of(name, read),
            "train": _of(name, parts.train),
            "heldout": _of(name, parts.heldout),
            "duplicates": _of(name, parts.duplicates),
            "leaks": _of(name, parts.leaks),
            "rejected": _of(name, rejects),
            "reasons": _reasons(reject for reject in rejects if reject.source == name),
        }
    for key in ("items", "train", "heldout", "duplicates", "leaks", "rejected"):
        counts["total"][key] = sum(source[key] for source in counts["sources"].values())
    for row in (*counts["sources"].values(), counts["total"]):
        parted = row["train"] + row["heldout"] + row["duplicates"] + row["leaks"] + row["rejected"]
        assert row["items"] == parted, f"items were lost or made: {row}"
    return counts


def _of(name: str, entries: Iterable[Item | Reject]) -> int:
    return sum(entry.source == name for entry in entries)


def _reasons(rejects: Iterable[Reject]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for reject in rejects:
        counts[reject.reason] = counts.get(reject.reason, 0) + 1
    return counts


if __name__ == "__main__":
    run(main, __doc__)
