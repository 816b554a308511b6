"""Limits of what one raw file, and one record of it, may take: levels, text, memory."""

import hashlib
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tuneline.data.readers.raw import RawRecord
from tuneline.data.readers.text import REJECT_BYTES
from tuneline.data.turns.conversation import RejectedRecordError
from tuneline.formats.json_values import DEEPEST
from tuneline.formats.records import to_line
from tuneline.runtime.storage.content import files_of

MEMORY = 2**30
"""Bytes that a step of a library which reads binary files may add to this process."""
FREE = 2**30
"""Bytes that a small file may unpack to."""
RATIO = 200
"""Bytes that a larger one may, for each of its own: text packs to a tenth, a table that repeats itself to a fiftieth."""
_STATUS = Path("/proc/self/status")


def check_depth(value: Any) -> None:
    """Raises RejectedRecordError for a value of more levels than a record has: what walks through it would run out of stack."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise RejectedRecordError(f"more_than_{DEEPEST}_levels")


def reason_of(error: Exception) -> str:
    """Reason's code for a record that could not be read: its own, or the kind of error that reading it ended in.

    Raises the error itself where the machine is at fault: another run reads the record.
    """
    if isinstance(error, MemoryError | OSError):
        raise error
    return str(error) if isinstance(error, RejectedRecordError) else f"unreadable_{type(error).__name__}"


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in what its content makes go wrong: ValueErrors, OSErrors of a read, and stacks that run out."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None
    except (RecursionError, MemoryError) as error:
        what = "is nested too deeply" if isinstance(error, RecursionError) else "does not fit into memory"
        raise ValueError(f"{path} {what}; leave it out, or mend it") from None
    except ArithmeticError as error:
        raise ValueError(f"{path} holds a number that is out of reach ({error})") from None
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path} can't be read: {error}") from None


def may_be_deep(text: str) -> bool:
    """Whether text has brackets enough for more levels than a record has."""
    return text.count("[") + text.count("{") > DEEPEST


class Unpacked:
    """Count of what comes out of a packed file, archives inside it included, or out of the files of a folder."""

    def __init__(self, path: Path, unit: str = "bytes", most: tuple[int, int] | None = None) -> None:
        """`most` is (how much of `unit` may come out of any file, how much of a larger one for each of its bytes)."""
        free, self.ratio = most or (FREE, RATIO)
        self.path, self.unit = path, unit
        self.most = max(free, self.ratio * sum(file.stat().st_size for file in files_of(path).values()))
        self.size = 0

    def add(self, size: int) -> None:
        """Raises ValueError when it is more than a file of this size can hold but as a trap."""
        self.size += size
        if self.size > self.most:
            raise ValueError(
                f"{self.path} unpacks to more than {self.most} {self.unit}, {self.ratio} for each of its own bytes, expected "
                "less; unpack it by hand if it is meant so"
            )

    def counted(self, records: Iterator[RawRecord]) -> Iterator[RawRecord]:
        """The records, as long as they are not too much in all."""
        for record in records:
            self.add(len(record.text))
            yield record


@contextmanager
def limited_memory(path: Path) -> Iterator[None]:
    """Let the block add MEMORY to this process at most. Raises ValueError that names the file when that does not do.

    For libraries that take what a file's header claims: a kilobyte can ask for gigabytes.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = _data_size() + MEMORY
    finite = [one for one in (soft, hard) if one != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([limit, *finite]), hard))
    try:
        yield
    except MemoryError:
        raise ValueError(
            f"{path} needs more than {MEMORY} bytes of memory for one of its parts; write it again in smaller ones"
        ) from None
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_size() -> int:
    """Bytes of this process that count against the limit."""
    lines = _STATUS.read_text().splitlines() if _STATUS.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:")), 0)


def stepwise(path: Path, items: Iterator[Any]) -> Iterator[Any]:
    """The items, each made within limited memory."""
    end = object()
    while True:
        with limited_memory(path):
            item = next(items, end)
        if item is end:
            return
        yield item


def reject_line(source: str, origin: str, reason: str, record: RawRecord) -> bytes:
    """A line of rejects.jsonl: the raw text up to 64 KB, and the hash of all of it."""
    encoded = record.text.encode(errors="surrogatepass")
    kept = record.text.encode(errors="backslashreplace")[:REJECT_BYTES].decode(errors="ignore")
    line = {"source": source, "origin": origin, "reason": reason, "raw": kept}
    line["sha256"] = record.sha256 or hashlib.sha256(encoded).hexdigest()
    return to_line(line) + b"\n"
