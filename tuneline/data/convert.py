"""Conversion of raw files to records in two passes, so that memory holds 54 bytes an item and never the items.

The first pass parses every raw record and writes the records to the spool, a temporary file; from their hashes the
duplicates and the held-out items are decided; the second pass reads the spool and writes each record where it belongs.
"""

import json
import tempfile
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from tuneline.data.accounting import SourceCounts, account, check_rejects, remarks
from tuneline.data.batches import batch_jobs
from tuneline.data.config import Data
from tuneline.data.contamination import HeldoutIndex, Leak
from tuneline.data.heldout import Split, split_items
from tuneline.data.normalize import read_batch
from tuneline.data.spool import BOTH, KEYS, compared_questions, compared_text, record_line, record_of
from tuneline.data.workers import ordered_map, workers
from tuneline.formats.records import to_line
from tuneline.runtime.progress import ProgressBar

if TYPE_CHECKING:
    from numpy.typing import NDArray

WRITTEN = 4096
"""Records that the second pass takes at a time."""
SHOWN = 200
"""Characters of a question in the list of what was removed."""


def convert(params: Data, raw: Path, train: Path, heldout: Path, rejects: Path, removed: Path) -> dict[str, Any]:
    """Raw files to training, held-out, rejected and removed items; returns the counts of metrics/convert_details.json.

    The spool is a temporary file beside `train`. Raises ValueError for what can't be read, too
    many rejects, too few questions, leaks when data.leak_policy is fail, and when no training row is left.
    """
    counts = [SourceCounts() for _ in params.all_sources]
    with ExitStack() as stack:
        train_file, heldout_file, rejects_file, removed_file = (
            stack.enter_context(path.open("wb")) for path in (train, heldout, rejects, removed)
        )
        spool = stack.enter_context(tempfile.TemporaryFile(dir=train.parent))
        keys = read_sources(params, raw, train.parent, spool, rejects_file, counts)
        check_rejects(params, counts)
        split = split_items(params, keys)
        index, heldout_records = build_index(spool, keys, split)
        heldout_file.writelines(heldout_records)
        write_records(spool, keys, split, index, heldout_records, params.leak_policy, train_file, removed_file, counts)
        return account(params, counts)


def summary_lines(counts: dict[str, Any], rejects: Path) -> list[str]:
    """Lines that the stage prints: counts of items, and for each source the placeholders that are left."""
    total = counts["total"]
    lines = [
        f"convert: {total['train']} training and {total['heldout']} held-out items of {total['items']}; "
        f"{total['duplicates']} duplicates, {total['leaks']} leaks, {total['rejected']} rejects ({rejects})"
    ]
    for name, row in counts["sources"].items():
        if row["placeholders"]:
            found = ", ".join(f"{text} ({count}×)" for text, count in row["placeholders"].items())
            lines.append(f"convert: {name} holds placeholders that data.placeholders does not fill: {found}")
        lines += [f"convert: {name} {told}" for told in remarks(row)]
    return lines


def read_sources(
    params: Data, raw: Path, folder: Path, spool: IO[bytes], rejects: IO[bytes], counts: list[SourceCounts]
) -> "NDArray[Any]":
    """First pass: write the spool and the rejects, count per source, return the KEYS of all records.

    `folder` has room for a temporary file.
    """
    # On disk first: a list of arrays and their concatenation would be held at the same time.
    with (
        tempfile.TemporaryFile(dir=folder) as keys,
        ProgressBar("convert: reading", None, "items") as bar,
    ):
        for batch in ordered_map(read_batch, batch_jobs(params, raw, counts, folder), workers()):
            spool.write(batch.spool)
            rejects.write(batch.rejects)
            keys.write(batch.keys.tobytes())
            counts[batch.source_number].add(batch)
            bar.update(batch.items)
        keys.seek(0)
        return np.fromfile(keys, dtype=KEYS)


def build_index(spool: IO[bytes], keys: "NDArray[Any]", split: Split) -> tuple[HeldoutIndex, list[bytes]]:
    """Index of the held-out questions, and the held-out records as lines."""
    ends = np.cumsum(keys["bytes"], dtype=np.int64)
    lines: list[bytes] = []
    for row in split.heldout:
        size = int(keys["bytes"][row])
        spool.seek(int(ends[row]) - size)
        lines.append(spool.read(size))
    spool.seek(0)
    questions = [compared_text(line, int(split.parts[row])) for line, row in zip(lines, split.heldout, strict=True)]
    return HeldoutIndex(questions), [record_line(line) for line in lines]


def write_records(
    spool: IO[bytes], keys: "NDArray[Any]", split: Split, index: HeldoutIndex, heldout_records: list[bytes],
    policy: str, train: IO[bytes], removed: IO[bytes], counts: list[SourceCounts],
) -> None:  # fmt: skip
    """Second pass: training records and what was removed. Raises ValueError for a leak when the policy is to fail."""
    is_heldout = np.zeros(len(keys), dtype=bool)
    is_heldout[split.heldout] = True
    heldout_ids = [json.loads(record)["id"] for record in heldout_records]
    failures: list[tuple[float, str]] = []
    with ProgressBar("convert: writing", len(keys), "items") as bar:
        for begin in range(0, len(keys), WRITTEN):
            lines = list(islice(spool, WRITTEN))
            rows = slice(begin, begin + len(lines))
            kept, parts = split.kept[rows].tolist(), split.parts[rows].tolist()
            conflicts, numbers = split.conflicts[rows].tolist(), keys["source"][rows].tolist()
            training = np.flatnonzero(split.kept[rows] & ~is_heldout[rows]).tolist()
            leaks = _find_leaks(index, {place: compared_questions(lines[place], parts[place]) for place in training})
            for place, line in enumerate(lines):
                source_counts = counts[numbers[place]]
                if not kept[place]:
                    source_counts.duplicates += 1
                    removed.write(_removed_line(line, "duplicate", None, "", ""))
                    continue
                if place not in leaks:
                    source_counts.heldout += 1
                elif (leak := leaks[place]) is None or policy == "keep":
                    source_counts.train += 1
                    source_counts.leaks_kept += leak is not None
                    train.write(record_line(line))
                else:
                    source_counts.leaks += 1
                    leaked = heldout_ids[leak.item]
                    removed.write(_removed_line(line, leak.why, leak, leaked, index.questions[leak.item]))
                    if policy == "fail":
                        failures.append((leak.similarity, f"{record_of(line)['origin']} of {leaked} ({leak.why})"))
                    continue
                source_counts.conflicts += conflicts[place]
            bar.update(len(lines))
    if failures:
        closest = "; ".join(text for _, text in sorted(failures, reverse=True)[:5])
        raise ValueError(
            f"data.leak_policy is fail and {len(failures)} rows leak a held-out item: {closest}; "
            "take them out of the raw files, or set leak_policy to remove"
        )


def _find_leaks(index: HeldoutIndex, questions: dict[int, list[str]]) -> dict[int, Leak | None]:
    """First leak of each row's questions; all of them are looked up together."""
    found = iter(index.find_leaks([text for texts in questions.values() for text in texts]))
    return {
        place: next((leak for leak in [next(found) for _ in texts] if leak is not None), None)
        for place, texts in questions.items()
    }


def _removed_line(line: bytes, why: str, leak: Leak | None, heldout_id: str, heldout_question: str) -> bytes:
    """A line of removed.jsonl. Questions are normalised and cut: they are there to be looked at."""
    record = record_of(line)
    entry: dict[str, Any] = {name: record[name] for name in ("id", "source", "origin")} | {"why": why}
    if leak is not None:
        entry |= {
            "of": heldout_id,
            "similarity": leak.similarity,
            "question": compared_text(line, BOTH)[:SHOWN],
            "heldout": heldout_question[:SHOWN],
        }
    return to_line(entry) + b"\n"
