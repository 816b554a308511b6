"""Batches of raw records of all sources, file by file, with what no reader can read."""

import hashlib
import heapq
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

from tuneline.data.accounting import SourceCounts
from tuneline.data.archives import is_folder, unpacked
from tuneline.data.config import Data, Source
from tuneline.data.detection import SAMPLE, objects, with_sample, with_traits
from tuneline.data.limits.raw_files import naming
from tuneline.data.normalize import BatchJob
from tuneline.data.readers import (
    RawFile,
    RawRecord,
    UnknownFormatError,
    detect_format,
    hub_records,
    list_files,
    raw_records,
)
from tuneline.data.readers.raw import printable

ID = re.compile(r".+:([0-9a-f]{12})")
"""Of a record: its source, and a hash of its messages."""
BATCH = 1024
"""Raw records that a worker gets at a time."""
BATCH_TEXT = 2**24
"""Characters from which on it gets fewer: a thousand long records would not fit into memory."""


def batch_jobs(params: Data, raw: Path, counts: list[SourceCounts], folder: Path | None = None) -> Iterator[BatchJob]:
    """All raw records of all sources in batches, each of one file; counts files, formats, encodings and files skipped.

    `folder` has room for what is unpacked; None is the system's.
    """
    excluded = excluded_names(params, raw)
    for number, (source, source_counts) in enumerate(zip(params.all_sources, counts, strict=True)):
        source_counts.weight = 0.0 if number == params.validation_number else source.weight
        source_counts.since = source.since
        numbers = count()
        drawn = None if source.limit is None else draw_rows(source, raw, source.limit, params.seed, folder)
        for file, records in _files(source, raw, source_counts, folder):
            source_counts.files += 1
            source_counts.formats[file.format] += 1
            if file.encoding:
                source_counts.encodings[printable(file.path)] = file.encoding
            if drawn is not None:
                records = _only(records, numbers, drawn, source_counts)
            for batch in _batches(records):
                yield BatchJob(params, source, number, file, batch, excluded)


def _batches(records: Iterator[RawRecord]) -> Iterator[list[tuple[Any, ...]]]:
    batch: list[tuple[Any, ...]] = []
    size = 0
    for record in records:
        batch.append(tuple(record))
        size += len(record.text)
        if len(batch) == BATCH or size >= BATCH_TEXT:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def draw_rows(source: Source, raw: Path, limit: int, seed: int, folder: Path | None = None) -> set[int]:
    """Numbers of the raw records of a source that its limit draws: those whose text has the smallest hashes.

    Rows that are added change few of them, and the order of rows none.
    """
    scratch = SourceCounts()
    texts = (record.text for _, records in _files(source, raw, scratch, folder) for record in records)
    hashes = (
        (hashlib.sha256(f"{seed}\n{text}".encode(errors="surrogatepass")).digest(), number)
        for number, text in enumerate(texts)
    )
    return {number for _, number in heapq.nsmallest(limit, hashes)}


def _only(
    records: Iterator[RawRecord], numbers: Iterator[int], drawn: set[int], counts: SourceCounts
) -> Iterator[RawRecord]:
    """The records whose numbers are drawn; counts the others. What says that a file can't be read is never left out."""
    for record, number in zip(records, numbers, strict=False):
        if number in drawn or record.reason == "unreadable_file":
            yield record
        else:
            counts.beyond_limit += 1


def excluded_names(params: Data, raw: Path) -> dict[str, str]:
    """{what tells a record of data.exclude: its name there}. Raises ValueError for no file.

    Of an id that is the hash of its messages, which copies in other sources have, too; else a file and line, as in `a.csv:12`.
    An item of a dialogue, as in `#2`, stands for the dialogue.
    """
    names = params.exclude
    if isinstance(names, str):
        path = raw / names
        if not path.is_file():
            raise ValueError(
                f"data.exclude: {names!r} is no file in {raw}, expected one with an id a line, or a list of ids"
            )
        with naming(path):
            names = path.read_text(encoding="utf-8-sig").splitlines()
    given = [name.strip().partition("#")[0] for name in names if name.strip()]
    return {digest[1] if (digest := ID.fullmatch(name)) else name: name for name in given}


def _files(
    source: Source, raw: Path, counts: SourceCounts, folder: Path | None
) -> Iterator[tuple[RawFile, Iterator[RawRecord]]]:
    """The files of a source that a reader claims, with their raw records."""
    if source.format == "hub":
        yield _hub_file(source, raw)
        return
    for path in list_files(source, raw):
        # A folder may hold licences and torn files; a file that was named must be read.
        named = not (raw / source.path).is_dir() and not is_folder(path)
        try:
            for name, copy in unpacked(path, path.relative_to(raw).as_posix(), folder):
                yield from _file(source, copy, raw / name, name, named, counts)
        except ValueError as error:
            if named:
                raise
            yield RawFile(path.relative_to(raw).as_posix(), "damaged"), iter([_unreadable(error)])


def _file(
    source: Source, path: Path, place: Path, name: str, named: bool, counts: SourceCounts
) -> Iterator[tuple[RawFile, Iterator[RawRecord]]]:
    """A file with its raw records; nothing where no reader claims it, and it was not `named`. Errors name its `place`."""
    try:
        with _called(path, place):
            file = with_traits(source, detect_format(source, path, name), path)
    except ValueError as error:
        if named:
            raise
        if isinstance(error, UnknownFormatError):
            counts.skipped.append(printable(name))
            counts.why_skipped = counts.why_skipped or str(error)
        else:
            yield RawFile(name, "damaged"), iter([_unreadable(error)])
        return
    records = _naming(path, place, raw_records(file, path, source.named, counts.repairs))
    yield file, records if named else _until_damage(records)


def _naming(path: Path, place: Path, records: Iterator[RawRecord]) -> Iterator[RawRecord]:
    with _called(path, place):
        yield from records


@contextmanager
def _called(path: Path, place: Path) -> Iterator[None]:
    """Name the file in what its content makes go wrong by its place, in an archive too: its copy's path is another each run."""
    try:
        with naming(path):
            yield
    except ValueError as error:
        error.args = (str(error).replace(str(path), str(place)),)
        raise


def _hub_file(source: Source, raw: Path) -> tuple[RawFile, Iterator[RawRecord]]:
    """A dataset of the hub with the traits of its first rows."""
    records = hub_records(source, raw)
    first = list(islice(records, SAMPLE))
    file = RawFile(source.path, "hub")
    return with_sample(source, file, list(objects(file, first))), chain(first, records)


def _unreadable(error: ValueError) -> RawRecord:
    """Raw record in place of a file, or of the rest of one, that a reader claims and can't read."""
    return RawRecord("end", str(error), "unreadable_file")


def _until_damage(records: Iterator[RawRecord]) -> Iterator[RawRecord]:
    """Raw records up to where the file is torn: in a folder a torn file costs only itself."""
    try:
        yield from records
    except ValueError as error:
        yield _unreadable(error)
