"""Conversion of raw files to records in two passes, so that memory holds 83 bytes an item and never the items.

The first pass parses every raw record and writes the records to the spool, temporary files; from their hashes the
duplicates and the held-out items are decided; the second pass reads the spool and writes each record where it belongs.
"""

import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from tuneline.data.accounting import SourceCounts, account, check_rejects
from tuneline.data.arrivals.slices import slices_line, split_by_arrival
from tuneline.data.batches import batch_jobs, excluded_names
from tuneline.data.config import Data
from tuneline.data.heldout import Split, beyond_share, split_items
from tuneline.data.leaks.contamination import HeldoutIndex, Leak
from tuneline.data.leaks.limit import check_leak_rates
from tuneline.data.leaks.search import build_index, find_leaks
from tuneline.data.normalize import read_to_spool
from tuneline.data.notices.shared_answers import count_same_answers
from tuneline.data.remarks import remarks
from tuneline.data.spool import KEYS, Spool, record_of
from tuneline.data.workers import Workers, workers
from tuneline.formats.records import to_line
from tuneline.runtime.progress import ProgressBar

if TYPE_CHECKING:
    from numpy.typing import NDArray

WRITTEN = 1024
"""Records that the second pass takes at a time."""
SHOWN = 200
"""Characters of a text in the list of what was removed."""


def convert(params: Data, raw: Path, train: Path, heldout: Path, rejects: Path, removed: Path) -> dict[str, Any]:
    """Raw files to training, held-out, rejected and removed items; returns the counts of metrics/convert_details.json.

    The spool is a temporary folder beside `train`. Raises ValueError for what can't be read, too many rejects, too few
    questions, a source with too many leaks, any leak when data.leak_policy is fail, and when no training row is left.
    """
    counts = [SourceCounts() for _ in params.all_sources]
    with ExitStack() as stack:
        train_file, heldout_file, rejects_file, removed_file = (
            stack.enter_context(path.open("wb")) for path in (train, heldout, rejects, removed)
        )
        spool = stack.enter_context(Spool(train.with_name(".spool.partial")))
        pool = stack.enter_context(Workers(workers()))
        keys = read_sources(params, raw, spool.folder, spool, rejects_file, counts, pool)
        unknown = unknown_excluded(params, raw, counts)
        check_rejects(params, counts)
        if params.arrivals.grows and not params.heldout_source:
            split, leaks = split_by_arrival(params, keys, spool, pool, counts)
        else:
            split, leaks = split_items(params, keys), {}
        count_same_answers(spool, keys, split, counts)
        index, heldout_records = build_index(spool, keys, split, params, counts)
        leaks = find_leaks(spool, split, index, pool) | leaks
        check_leak_rates(
            params, keys["source"], split.training, leaks, index, lambda row: spool.texts(row, int(split.parts[row]))
        )
        heldout_file.writelines(heldout_records)
        left_out = split.training & beyond_share(params, keys)
        # A leak is one, whether its row would be trained on or not.
        left_out[list(leaks) if params.leak_policy != "keep" else []] = False
        write_records(spool, keys, split, index, leaks, left_out, params.leak_policy, train_file, removed_file, counts)
        return account(params, counts) | {"unknown_excluded": unknown}


def unknown_excluded(params: Data, raw: Path, counts: list[SourceCounts]) -> list[str]:
    """Names in data.exclude that are of no record. Raises ValueError for one, unless it may be of a row beyond a limit."""
    unknown = sorted(set(excluded_names(params, raw).values()) - {name for row in counts for name in row.excluded})
    if unknown and not any(row.beyond_limit for row in counts):
        raise ValueError(
            f"data.exclude: {len(unknown)} of its names are of no record, such as {', '.join(unknown[:3])}. An id is a hash of "
            "the text that is learnt, so it changes with template, system, instruction, columns and data.repairs: take it anew "
            "from data/processed, or name the row by its file and line, as in visits.csv:12"
        )
    return unknown


def summary_lines(counts: dict[str, Any], rejects: Path) -> list[str]:
    """Lines that the stage prints: counts of items, and what is remarkable of each source."""
    total = counts["total"]
    lines = [
        f"convert: {total['train']} training and {total['heldout']} held-out items of {total['items']}; "
        f"{total['duplicates']} duplicates, {total['leaks']} leaks, {total['rejected']} rejects ({rejects})"
    ]
    lines += filter(None, [few_rows_line(counts["sources"]), slices_line(counts["sources"])])
    for name, row in counts["sources"].items():
        lines += remarks(name, row)
    if unknown := counts["unknown_excluded"]:
        lines.append(
            f"convert: {len(unknown)} names in data.exclude are of no record read, such as {', '.join(unknown[:3])}"
        )
    return lines


def few_rows_line(sources: dict[str, dict[str, Any]]) -> str | None:
    """Line that says that the held-out items, drawn from the sources, leave fewer rows to train on; None if they don't."""
    drawn_from = [row for row in sources.values() if row["train"] and row["weight"]]
    train = sum(row["train"] + row["beyond_share"] for row in drawn_from)
    heldout = sum(row["heldout"] for row in drawn_from)
    if train >= heldout:
        return None
    return (
        f"convert: {heldout} held-out items leave {train} rows to train on: "
        "add rows, or lower data.heldout in params.yaml, to a tenth of the items, say"
    )


def read_sources(
    params: Data, raw: Path, folder: Path, spool: Spool, rejects: IO[bytes], counts: list[SourceCounts], pool: Workers
) -> "NDArray[Any]":
    """First pass: write the spool and the rejects, count per source, return the KEYS of all records.

    `folder` has room for a temporary file.
    """
    # On disk first: a list of arrays and their concatenation would be held at the same time.
    with (
        tempfile.TemporaryFile(dir=folder) as file,
        ProgressBar("convert: reading", None, "items") as bar,
    ):
        for batch in pool.map(partial(read_to_spool, spool.folder), batch_jobs(params, raw, counts, folder)):
            if batch.part:
                spool.add(batch.part, len(batch.keys) // KEYS.itemsize)
            rejects.write(batch.rejects)
            file.write(batch.keys)
            counts[batch.source_number].add(batch)
            bar.update(batch.items)
        file.seek(0)
        keys = np.fromfile(file, dtype=KEYS)
    spool.finish(keys)
    return keys


def write_records(
    spool: Spool, keys: "NDArray[Any]", split: Split, index: HeldoutIndex, leaks: dict[int, Leak],
    left_out: "NDArray[np.bool_]", policy: str, train: IO[bytes], removed: IO[bytes], counts: list[SourceCounts],
) -> None:  # fmt: skip
    """Second pass: training records and what was removed. Raises ValueError for a leak when the policy is to fail."""
    is_plain = split.training
    is_plain[list(leaks)] = False
    is_plain &= ~left_out
    is_heldout = set(split.heldout.tolist())
    for number, source_counts in enumerate(counts):
        rows = is_plain & (keys["source"] == number)
        source_counts.train += int(rows.sum())
        source_counts.conflicts += int(split.conflicts[rows].sum())
        source_counts.beyond_share = int((left_out & (keys["source"] == number)).sum())
        source_counts.items -= source_counts.beyond_share
    failures: list[tuple[float, str]] = []
    with ProgressBar("convert: writing", len(keys), "items") as bar:
        for first in range(0, len(keys), WRITTEN):
            begin, end = first, min(first + WRITTEN, len(keys))
            for row in (first + np.flatnonzero(~is_plain[first:end])).tolist():
                train.write(spool.records(begin, row))
                begin = row + 1
                if left_out[row]:
                    continue
                source_counts = counts[keys["source"][row]]
                line = spool.record(row)
                if not split.kept[row]:
                    source_counts.duplicates += 1
                    same = record_of(spool.record(int(split.kept_as[row])))
                    removed.write(_removed_line(line, "duplicate", kept=same["id"], kept_origin=same["origin"]))
                    continue
                if row in is_heldout:
                    source_counts.heldout += 1
                elif (leak := leaks[row]) and policy == "keep":
                    source_counts.train += 1
                    source_counts.leaks_kept += 1
                    train.write(line)
                else:
                    source_counts.leaks += 1
                    question = leak.text or spool.texts(row, int(split.parts[row])).question
                    removed.write(_removed_line(line, leak.why, **_leaked(question, leak, index)))
                    if policy == "fail":
                        what = f"{record_of(line)['origin']} of {index.ids[leak.item]} ({leak.why})"
                        failures.append((leak.similarity, what))
                    continue
                source_counts.conflicts += bool(split.conflicts[row])
            train.write(spool.records(begin, end))
            bar.update(end - first)
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


def _leaked(question: str, leak: Leak, index: HeldoutIndex) -> dict[str, Any]:
    """What removed.jsonl says of a leak. Texts are normalised and cut: they are there to be looked at."""
    heldout = index.items[leak.item]
    return {
        "of": index.ids[leak.item],
        "similarity": leak.similarity,
        "question": _shortened(question),
        "heldout": _shortened(heldout.answers[0] if leak.why == "answer" else heldout.question),
    }


def _shortened(text: str) -> str:
    """Beginning and end: after a passage comes what is asked about it."""
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]} … {text[-SHOWN // 2 :]}"
