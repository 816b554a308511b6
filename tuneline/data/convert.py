"""Conversion of raw files to records in two passes, so that memory holds 63 bytes an item and never the items.

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

from tuneline.data.accounting import SourceCounts, account, check_rejects
from tuneline.data.batches import batch_jobs, excluded_ids
from tuneline.data.config import Data
from tuneline.data.contamination import HeldoutIndex, Leak
from tuneline.data.heldout import Split, split_items
from tuneline.data.normalize import read_batch
from tuneline.data.readers.messages import compared_question
from tuneline.data.remarks import remarks
from tuneline.data.scored_turn import scored_records
from tuneline.data.shared_answers import count_same_answers
from tuneline.data.spool import BOTH, KEYS, LineReader, compared_questions, compared_text, record_line, record_of
from tuneline.data.workers import ordered_map, workers
from tuneline.formats.records import normalise, to_line
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
        lines = LineReader(spool, keys)
        count_same_answers(lines, keys, split, counts)
        index, heldout_records = build_index(lines, keys, split, params.heldout_turns, counts)
        heldout_file.writelines(heldout_records)
        gate = LeakGate(lines, keys, split, index, heldout_records, params.validation_number)
        write_records(lines, keys, split, gate, params.leak_policy, train_file, removed_file, counts)
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
        for batch in ordered_map(read_batch, batch_jobs(params, raw, counts), workers()):
            spool.write(batch.spool)
            rejects.write(batch.rejects)
            keys.write(batch.keys.tobytes())
            counts[batch.source_number].add(batch)
            bar.update(batch.items)
        keys.seek(0)
        return np.fromfile(keys, dtype=KEYS)


def build_index(
    lines: LineReader, keys: "NDArray[Any]", split: Split, turns: str, counts: list[SourceCounts]
) -> tuple[HeldoutIndex, list[bytes]]:
    """Index of the held-out questions, and the held-out records as lines, each up to its scored answer."""
    questions: list[str] = []
    records: list[bytes] = []
    for row, scored in zip(split.heldout.tolist(), split.scored.tolist(), strict=True):
        line, source_counts = lines.line(row), counts[keys["source"][row]]
        whole = record_of(line)
        items = scored_records(whole, turns, scored)
        source_counts.scored += len(items)
        source_counts.scored_earlier += items[-1]["id"] != whole["id"]
        records += [record_line(line) if item is whole else to_line(item) + b"\n" for item in items]
        # Of one item the question is known; of several each has its own.
        own = [compared_text(line, int(split.parts[row]))]
        questions += (
            own
            if turns != "all" or len(items) == 1
            else [normalise(compared_question(item["messages"])) for item in items]
        )
    return HeldoutIndex(questions), records


class LeakGate:
    """What training rows may not repeat: held-out items, and those to validate on, which may not repeat held-out ones."""

    def __init__(
        self, reader: LineReader, keys: "NDArray[Any]", split: Split, heldout: HeldoutIndex,
        heldout_records: list[bytes], validation_number: int | None,
    ) -> None:  # fmt: skip
        self.validation_number = validation_number
        self.heldout = self.both = heldout
        self.ids = [json.loads(record)["id"] for record in heldout_records]
        if validation_number is not None:
            rows = np.flatnonzero(split.kept & (keys["source"] == validation_number)).tolist()
            lines = [reader.line(row) for row in rows]
            own = [compared_text(line, int(split.parts[row])) for line, row in zip(lines, rows, strict=True)]
            self.both = HeldoutIndex([*heldout.questions, *own])
            self.ids += [record_of(line)["id"] for line in lines]
        self.questions = self.both.questions

    def find_leaks(self, questions: dict[int, list[str]], sources: dict[int, int]) -> dict[int, Leak | None]:
        """The first leak of each row, by the questions and the source number of each."""
        validated = {place: texts for place, texts in questions.items() if sources[place] == self.validation_number}
        trained = {place: texts for place, texts in questions.items() if place not in validated}
        return _find_leaks(self.both, trained) | _find_leaks(self.heldout, validated)


def write_records(
    reader: LineReader, keys: "NDArray[Any]", split: Split, gate: LeakGate, policy: str, train: IO[bytes],
    removed: IO[bytes], counts: list[SourceCounts],
) -> None:  # fmt: skip
    """Second pass: training records and what was removed. Raises ValueError for a leak when the policy is to fail."""
    is_heldout = np.zeros(len(keys), dtype=bool)
    is_heldout[split.heldout] = True
    failures: list[tuple[float, str]] = []
    with ProgressBar("convert: writing", len(keys), "items") as bar:
        for begin in range(0, len(keys), WRITTEN):
            lines = list(islice(reader.spool, WRITTEN))
            rows = slice(begin, begin + len(lines))
            kept, parts = split.kept[rows].tolist(), split.parts[rows].tolist()
            conflicts, numbers = split.conflicts[rows].tolist(), keys["source"][rows].tolist()
            training = np.flatnonzero(split.kept[rows] & ~is_heldout[rows]).tolist()
            leaks = gate.find_leaks(
                {place: compared_questions(lines[place], parts[place]) for place in training}, dict(enumerate(numbers))
            )
            for place, line in enumerate(lines):
                source_counts = counts[numbers[place]]
                if not kept[place]:
                    source_counts.duplicates += 1
                    same = record_of(reader.line(int(split.kept_as[begin + place])))
                    removed.write(_duplicate_line(line, same))
                    continue
                if place not in leaks:
                    source_counts.heldout += 1
                elif (leak := leaks[place]) is None or policy == "keep":
                    source_counts.train += 1
                    source_counts.leaks_kept += leak is not None
                    train.write(record_line(line))
                else:
                    source_counts.leaks += 1
                    leaked = gate.ids[leak.item]
                    removed.write(_leak_line(line, leak, leaked, gate.questions[leak.item]))
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


def _duplicate_line(line: bytes, kept: dict[str, Any]) -> bytes:
    """A line of removed.jsonl for a duplicate: which row it repeats."""
    record = record_of(line)
    entry = {name: record[name] for name in ("id", "source", "origin")} | {"why": "duplicate"}
    return to_line(entry | {"kept": kept["id"], "kept_origin": kept["origin"]}) + b"\n"


def _leak_line(line: bytes, leak: Leak, heldout_id: str, heldout_question: str) -> bytes:
    """A line of removed.jsonl for a leak. Questions are normalised and cut: they are there to be looked at."""
    record = record_of(line)
    entry: dict[str, Any] = {name: record[name] for name in ("id", "source", "origin")} | {
        "why": leak.why,
        "of": heldout_id,
        "similarity": leak.similarity,
        "question": compared_text(line, BOTH)[:SHOWN],
        "heldout": heldout_question[:SHOWN],
    }
    return to_line(entry) + b"\n"
