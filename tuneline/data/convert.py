"""Conversion of raw files to records in two passes, so that memory holds 63 bytes an item and never the items.

The first pass parses every raw record and writes the records to the spool, a temporary file; from their hashes the
duplicates and the held-out items are decided; the second pass reads the spool and writes each record where it belongs.
"""

import tempfile
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from tuneline.data.accounting import SourceCounts, account, check_rejects
from tuneline.data.batches import batch_jobs, excluded_ids
from tuneline.data.config import Data
from tuneline.data.heldout import Split, split_items
from tuneline.data.leaks.contamination import HeldoutIndex, Leak
from tuneline.data.leaks.limit import check_leak_rates
from tuneline.data.leaks.search import build_index, find_leaks, row_texts
from tuneline.data.normalize import read_batch
from tuneline.data.remarks import remarks
from tuneline.data.shared_answers import count_same_answers
from tuneline.data.spool import KEYS, LineReader, compared_texts, record_line, record_of
from tuneline.data.workers import ordered_map, workers
from tuneline.formats.records import to_line
from tuneline.runtime.progress import ProgressBar

if TYPE_CHECKING:
    from numpy.typing import NDArray

WRITTEN = 4096
"""Records that the second pass takes at a time."""
SHOWN = 200
"""Characters of a text in the list of what was removed."""


def convert(params: Data, raw: Path, train: Path, heldout: Path, rejects: Path, removed: Path) -> dict[str, Any]:
    """Raw files to training, held-out, rejected and removed items; returns the counts of metrics/convert_details.json.

    The spool is a temporary file beside `train`. Raises ValueError for what can't be read, too many rejects, too few
    questions, a source with too many leaks, any leak when data.leak_policy is fail, and when no training row is left.
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
        lines = LineReader(spool, keys)
        count_same_answers(lines, keys, split, counts)
        index, heldout_records = build_index(lines, keys, split, params, counts)
        leaks = find_leaks(lines, keys, split, index)
        check_leak_rates(params, keys["source"], split.training, leaks, index, row_texts(lines, split))
        heldout_file.writelines(heldout_records)
        write_records(lines, keys, split, index, leaks, params.leak_policy, train_file, removed_file, counts)
        return account(params, counts) | {"unknown_excluded": unknown_excluded(params, raw, counts)}


def unknown_excluded(params: Data, raw: Path, counts: list[SourceCounts]) -> list[str]:
    """Ids of data.exclude that no record has."""
    return sorted(excluded_ids(params, raw) - {name for row in counts for name in row.excluded})


def summary_lines(counts: dict[str, Any], rejects: Path) -> list[str]:
    """Lines that the stage prints: counts of items, and what is remarkable of each source."""
    total = counts["total"]
    lines = [
        f"convert: {total['train']} training and {total['heldout']} held-out items of {total['items']}; "
        f"{total['duplicates']} duplicates, {total['leaks']} leaks, {total['rejected']} rejects ({rejects})"
    ]
    for name, row in counts["sources"].items():
        lines += remarks(name, row)
    if unknown := counts["unknown_excluded"]:
        lines.append(f"convert: {len(unknown)} ids of data.exclude are of no record, such as {', '.join(unknown[:3])}")
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
            keys.write(batch.keys)
            counts[batch.source_number].add(batch)
            bar.update(batch.items)
        keys.seek(0)
        return np.fromfile(keys, dtype=KEYS)


def write_records(
    reader: LineReader, keys: "NDArray[Any]", split: Split, index: HeldoutIndex, leaks: dict[int, Leak],
    policy: str, train: IO[bytes], removed: IO[bytes], counts: list[SourceCounts],
) -> None:  # fmt: skip
    """Second pass: training records and what was removed. Raises ValueError for a leak when the policy is to fail."""
    is_plain = split.training
    is_plain[list(leaks)] = False
    is_heldout = set(split.heldout.tolist())
    for number, source_counts in enumerate(counts):
        rows = is_plain & (keys["source"] == number)
        source_counts.train += int(rows.sum())
        source_counts.conflicts += int(split.conflicts[rows].sum())
    reader.spool.seek(0)
    failures: list[tuple[float, str]] = []
    with ProgressBar("convert: writing", len(keys), "items") as bar:
        for begin in range(0, len(keys), WRITTEN):
            lines = list(islice(reader.spool, WRITTEN))
            for row, (line, plain) in enumerate(
                zip(lines, is_plain[begin : begin + WRITTEN].tolist(), strict=True), begin
            ):
                if plain:
                    train.write(record_line(line))
                    continue
                source_counts = counts[keys["source"][row]]
                if not split.kept[row]:
                    source_counts.duplicates += 1
                    same = record_of(reader.line(int(split.kept_as[row])))
                    removed.write(_removed_line(line, "duplicate", kept=same["id"], kept_origin=same["origin"]))
                    continue
                if row in is_heldout:
                    source_counts.heldout += 1
                elif (leak := leaks[row]) and policy == "keep":
                    source_counts.train += 1
                    source_counts.leaks_kept += 1
                    train.write(record_line(line))
                else:
                    source_counts.leaks += 1
                    removed.write(_removed_line(line, leak.why, **_leaked(line, int(split.parts[row]), leak, index)))
                    if policy == "fail":
                        what = f"{record_of(line)['origin']} of {index.ids[leak.item]} ({leak.why})"
                        failures.append((leak.similarity, what))
                    continue
                source_counts.conflicts += bool(split.conflicts[row])
            bar.update(len(lines))
    if failures:
        closest = "; ".join(text for _, text in sorted(failures, reverse=True)[:5])
        raise ValueError(
            f"data.leak_policy is fail and {len(failures)} rows leak a held-out item: {closest}; "
            "take them out of the raw files, or set leak_policy to remove"
        )


def _removed_line(line: bytes, why: str, **more: Any) -> bytes:
    """A line of removed.jsonl."""
    record = record_of(line)
    return to_line({name: record[name] for name in ("id", "source", "origin")} | {"why": why} | more) + b"\n"


def _leaked(line: bytes, part: int, leak: Leak, index: HeldoutIndex) -> dict[str, Any]:
    """What removed.jsonl says of a leak. Texts are normalised and cut: they are there to be looked at."""
    heldout = index.items[leak.item]
    return {
        "of": index.ids[leak.item],
        "similarity": leak.similarity,
        "question": _shortened(leak.text or compared_texts(line, part).question),
        "heldout": _shortened(heldout.answers[0] if leak.why == "answer" else heldout.question),
    }


def _shortened(text: str) -> str:
    """Beginning and end: after a passage comes what is asked about it."""
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]} … {text[-SHOWN // 2 :]}"
