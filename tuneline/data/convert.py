"""From raw files to records on disk in two passes, so that memory holds 54 bytes an item and never the items.

The first pass understands every piece and spills the records to a file; from their hashes the duplicates and the
held-out items are told; the second pass reads the spill again and writes each record to where it belongs.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from tuneline.data.config import Data, Source
from tuneline.data.contamination import Exam, Leak
from tuneline.data.heldout import compared_parts, conflicts_of, draw, kept_of, questions_of
from tuneline.data.normalize import EARLIER, KEYS, Task, printable, read_batch
from tuneline.data.readers import Opened, Piece, UnclaimedError, files_of, hub_pieces, opened, pieces_of
from tuneline.data.workers import ordered_map, workers
from tuneline.formats.records import to_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH = 1024
"""Pieces that a worker gets at a time."""
WRITTEN = 4096
"""Records that the second pass takes at a time."""
SHOWN = 200
"""Characters of a question in the list of what was removed."""


@dataclass
class Tally:
    """What became of a source's items; `items` is the sum of train, heldout, duplicates, leaks and rejected."""

    items: int = 0
    train: int = 0
    heldout: int = 0
    duplicates: int = 0
    leaks: int = 0
    rejected: int = 0
    conflicts: int = 0
    """Training and held-out items that ask what another one asks, and answer otherwise."""
    leaks_kept: int = 0
    """Leaks that are in training, because data.leak_policy is keep."""
    files: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    repairs: Counter[str] = field(default_factory=Counter)
    placeholders: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    skipped: list[str] = field(default_factory=list)
    """Files that no reader claims."""


@dataclass
class Split:
    """Where each item goes; arrays have one entry an item."""

    kept: "NDArray[np.bool_]"
    conflicts: "NDArray[np.bool_]"
    parts: "NDArray[np.uint8]"
    heldout: "NDArray[np.int64]"
    """Places of the held-out items, in the order of their file."""


def sources_of(params: Data) -> list[Source]:
    """All sources; the explicit held-out one, if any, is the last."""
    return [*params.sources, *([params.heldout_source] if params.heldout_source else [])]


def read_all(
    params: Data, raw: Path, folder: Path, spill: IO[bytes], rejects: IO[bytes], tallies: list[Tally]
) -> "NDArray[Any]":
    """First pass: write the spill and the rejects, fill the tallies, return the keys of all records.

    `folder` has room for a temporary file.
    """
    from tqdm import tqdm

    # On disk first: a list of arrays and their concatenation would be held at the same time.
    with (
        tempfile.TemporaryFile(dir=folder) as keys,
        tqdm(desc="convert: reading", unit="item", unit_scale=True, delay=1, dynamic_ncols=True) as bar,
    ):
        for batch in ordered_map(read_batch, tasks_of(params, raw, tallies), workers()):
            tally = tallies[batch.source]
            spill.write(batch.spill)
            rejects.write(batch.rejects)
            keys.write(batch.keys.tobytes())
            tally.items += batch.items
            tally.rejected += batch.reasons.total()
            tally.reasons += batch.reasons
            tally.repairs += batch.repairs
            tally.placeholders += batch.placeholders
            bar.update(batch.items)
        keys.seek(0)
        return np.fromfile(keys, dtype=KEYS)


def tasks_of(params: Data, raw: Path, tallies: list[Tally]) -> Iterator[Task]:
    """All pieces of all sources in batches, each of one file; fills in what the tallies say of files."""
    for number, (source, tally) in enumerate(zip(sources_of(params), tallies, strict=True)):
        left = source.limit
        for file, pieces in _files(source, raw, tally):
            tally.files += 1
            tally.formats[file.format] += 1
            pieces = islice(pieces, left)
            while batch := list(islice(pieces, BATCH)):
                left = None if left is None else left - len(batch)
                yield Task(params, source, number, file, batch)
            if left == 0:
                break


def _files(source: Source, raw: Path, tally: Tally) -> Iterator[tuple[Opened, Iterator[Piece]]]:
    """The files of a source that a reader claims, with their pieces."""
    if source.format == "hub":
        yield Opened(source.path, "hub"), hub_pieces(source, raw)
        return
    # A folder may hold licences and torn files; a file that was named must be read.
    named = (raw / source.path).is_file()
    for path in files_of(source, raw):
        name = path.relative_to(raw).as_posix()
        try:
            file = opened(source, path, raw)
        except ValueError as error:
            if named:
                raise
            if isinstance(error, UnclaimedError):
                tally.skipped.append(printable(name))
            else:
                yield Opened(name, "damaged"), iter([unreadable(error)])
            continue
        pieces = pieces_of(file, raw)
        yield file, pieces if named else _to_the_damage(pieces)


def unreadable(error: ValueError) -> Piece:
    """What stands for a file, or for the rest of one, that a reader claims and can't read."""
    return Piece("end", str(error), "unreadable_file")


def _to_the_damage(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """In a folder a torn file costs only itself."""
    try:
        yield from pieces
    except ValueError as error:
        yield unreadable(error)


def split_of(params: Data, keys: "NDArray[Any]") -> Split:
    """Duplicates and held-out items. Raises ValueError when there are too few different questions."""
    kept = kept_of(keys, len(params.sources) if params.heldout_source else None)
    parts = compared_parts(keys, kept)
    questions = questions_of(keys, parts)
    if params.heldout_source:
        heldout = np.flatnonzero(kept & (keys["source"] == len(params.sources)))
        if not len(heldout):
            raise ValueError(f"data.heldout_source: {params.heldout_source.path!r} holds no item that can be used")
    else:
        heldout = draw(questions, keys, kept, params.heldout)
    return Split(kept, conflicts_of(questions, kept), parts, heldout)


def compared(line: bytes, part: int) -> str:
    """The normalised text that is compared of a spilled line."""
    head, tail, _ = line.decode().split("\t", 2)
    return head if part == 1 else tail if part == 2 or not head else f"{head} {tail}"


def record_of(line: bytes) -> bytes:
    return line.split(b"\t", 3)[3]


def questions_in(line: bytes, part: int) -> list[str]:
    """All that a training row asks: what is compared of it, and its earlier questions, whose answers it holds as well."""
    earlier = line.split(b"\t", 3)[2].decode()
    return [compared(line, part), *(earlier.split(EARLIER) if earlier else [])]


def exam_of(spill: IO[bytes], keys: "NDArray[Any]", split: Split) -> tuple[Exam, list[bytes]]:
    """The held-out questions, and the held-out records as lines."""
    ends = np.cumsum(keys["bytes"], dtype=np.int64)
    lines: list[bytes] = []
    for place in split.heldout:
        size = int(keys["bytes"][place])
        spill.seek(int(ends[place]) - size)
        lines.append(spill.read(size))
    spill.seek(0)
    questions = [compared(line, int(split.parts[place])) for line, place in zip(lines, split.heldout, strict=True)]
    return Exam(questions), [record_of(line) for line in lines]


def write_parts(
    spill: IO[bytes], keys: "NDArray[Any]", split: Split, exam: Exam, records: list[bytes],
    policy: str, train: IO[bytes], removed: IO[bytes], tallies: list[Tally],
) -> None:  # fmt: skip
    """Second pass: training records and what was removed. Raises ValueError for a leak when the policy is to fail."""
    from tqdm import tqdm

    held = np.zeros(len(keys), dtype=bool)
    held[split.heldout] = True
    names = [json.loads(record)["id"] for record in records]
    worst: list[tuple[float, str]] = []
    with tqdm(
        total=len(keys), desc="convert: writing", unit="item", unit_scale=True, delay=1, dynamic_ncols=True
    ) as bar:
        for begin in range(0, len(keys), WRITTEN):
            lines = list(islice(spill, WRITTEN))
            rows = slice(begin, begin + len(lines))
            kept, parts = split.kept[rows].tolist(), split.parts[rows].tolist()
            conflicts, numbers = split.conflicts[rows].tolist(), keys["source"][rows].tolist()
            asked = np.flatnonzero(split.kept[rows] & ~held[rows]).tolist()
            leaks = _leaks(exam, {place: questions_in(lines[place], parts[place]) for place in asked})
            for place, line in enumerate(lines):
                tally = tallies[numbers[place]]
                if not kept[place]:
                    tally.duplicates += 1
                    removed.write(_removed(line, "duplicate", None, "", ""))
                    continue
                if place not in leaks:
                    tally.heldout += 1
                elif (leak := leaks[place]) is None or policy == "keep":
                    tally.train += 1
                    tally.leaks_kept += leak is not None
                    train.write(record_of(line))
                else:
                    tally.leaks += 1
                    removed.write(_removed(line, leak.why, leak, names[leak.item], exam.questions[leak.item]))
                    if policy == "fail":
                        worst.append((leak.similarity, f"{_origin(line)} of {names[leak.item]} ({leak.why})"))
                    continue
                tally.conflicts += conflicts[place]
            bar.update(len(lines))
    if worst:
        shown = "; ".join(text for _, text in sorted(worst, reverse=True)[:5])
        raise ValueError(
            f"data.leak_policy is fail and {len(worst)} rows give a held-out item away: {shown}; "
            "take them out of the raw files, or set leak_policy to remove"
        )


def _leaks(exam: Exam, questions: dict[int, list[str]]) -> dict[int, Leak | None]:
    """For each row the first of its questions' leaks, all judged together."""
    found = iter(exam.leaks([text for texts in questions.values() for text in texts]))
    return {
        place: next((leak for leak in [next(found) for _ in texts] if leak is not None), None)
        for place, texts in questions.items()
    }


def _removed(line: bytes, why: str, leak: Leak | None, of: str, question: str) -> bytes:
    """A line of removed.jsonl. Questions are normalised and cut: they are there to be looked at."""
    record = json.loads(record_of(line))
    entry: dict[str, Any] = {name: record[name] for name in ("id", "source", "origin")} | {"why": why}
    if leak is not None:
        asked = compared(line, 0)[:SHOWN]
        entry |= {"of": of, "similarity": leak.similarity, "question": asked, "heldout": question[:SHOWN]}
    return to_line(entry) + b"\n"


def _origin(line: bytes) -> str:
    return str(json.loads(record_of(line))["origin"])


def check_rejects(params: Data, tallies: list[Tally]) -> None:
    """Raises ValueError for a source of which too much was rejected, naming the first five reasons."""
    for source, tally in zip(sources_of(params), tallies, strict=True):
        where = "data.heldout_source" if source is params.heldout_source else "data.sources"
        if not tally.items:
            skipped = f" ({len(tally.skipped)} files skipped, such as {tally.skipped[0]})" if tally.skipped else ""
            raise ValueError(f"{where}: {source.path!r} holds no row, expected questions and answers{skipped}")
        rate = tally.rejected / tally.items
        if rate > params.max_reject_rate or tally.rejected == tally.items:
            reasons = ", ".join(f"{count} × {reason}" for reason, count in tally.reasons.most_common(5))
            raise ValueError(
                f"{where}: {tally.rejected} of {tally.items} items of {source.path!r} were rejected ({reasons}), "
                f"expected at most data.max_reject_rate {params.max_reject_rate:g}: set question, columns, template or "
                "format of this source, mend the file, or raise the rate"
            )
