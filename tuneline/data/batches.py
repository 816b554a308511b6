"""Batches of raw records of all sources, file by file, with what no reader can read."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tuneline.data.accounting import SourceCounts
from tuneline.data.config import Data, Source
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

BATCH = 1024
"""Raw records that a worker gets at a time."""


def batch_jobs(params: Data, raw: Path, counts: list[SourceCounts]) -> Iterator[BatchJob]:
    """All raw records of all sources in batches, each of one file; counts files, formats and files skipped."""
    for number, (source, source_counts) in enumerate(zip(params.all_sources, counts, strict=True)):
        left = source.limit
        for file, records in _files(source, raw, source_counts):
            source_counts.files += 1
            source_counts.formats[file.format] += 1
            if file.encoding:
                source_counts.encodings[printable(file.path)] = file.encoding
            records = islice(records, left)
            while batch := list(islice(records, BATCH)):
                left = None if left is None else left - len(batch)
                yield BatchJob(params, source, number, file, batch)
            if left == 0:
                break


def _files(source: Source, raw: Path, counts: SourceCounts) -> Iterator[tuple[RawFile, Iterator[RawRecord]]]:
    """The files of a source that a reader claims, with their raw records."""
    if source.format == "hub":
        yield RawFile(source.path, "hub"), hub_records(source, raw)
        return
    # A folder may hold licences and torn files; a file that was named must be read.
    named = (raw / source.path).is_file()
    for path in list_files(source, raw):
        name = path.relative_to(raw).as_posix()
        try:
            file = detect_format(source, path, raw)
        except ValueError as error:
            if named:
                raise
            if isinstance(error, UnknownFormatError):
                counts.skipped.append(printable(name))
            else:
                yield RawFile(name, "damaged"), iter([_unreadable(error)])
            continue
        records = raw_records(file, raw, counts.repairs)
        yield file, records if named else _until_damage(records)


def _unreadable(error: ValueError) -> RawRecord:
    """Raw record in place of a file, or of the rest of one, that a reader claims and can't read."""
    return RawRecord("end", str(error), "unreadable_file")


def _until_damage(records: Iterator[RawRecord]) -> Iterator[RawRecord]:
    """Raw records up to where the file is torn: in a folder a torn file costs only itself."""
    try:
        yield from records
    except ValueError as error:
        yield _unreadable(error)
