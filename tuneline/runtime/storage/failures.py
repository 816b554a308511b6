"""What a disk refuses (room, size of a file, quota, permission) as one sentence, whichever library met it.

safetensors and tokenizers (Rust) raise errors of their own with `(os error 28)` in the text, torch a RuntimeError, numpy an
OSError without a number, sqlite3 an OperationalError.
"""

import errno
import os
import re
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tuneline.runtime.cache import scratch_root
from tuneline.runtime.storage.room import amount, free_bytes, size_of

ROOM = {errno.ENOSPC: "no space was left", errno.EDQUOT: "the quota was used up"}
REFUSED = {
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EIO: "the disk gives an input/output error",
    errno.ESTALE: "the network file system has lost it",
}
TOO_MANY = {errno.EMFILE, errno.ENFILE}
NUMBER = re.compile(r"\(os error (\d+)\)|\[errno (\d+)\]|error code (\d+) \(", re.IGNORECASE)
"""Of an error's text."""
UNNAMED = re.compile(
    r"unexpected pos \d+ vs|PytorchStreamWriter failed|iostream error|\d+ requested and \d+ written|"
    r"database or disk is full|disk I/O error",
)
"""A write that came to nothing, of which the library does not say why."""
NO_MEMORY = re.compile(r"can't allocate memory|std::bad_alloc")
UNFINISHED = re.compile(r"^\.(.+)\.partial$")
"""What atomic_output calls a file."""
KNOWN = {*ROOM, *REFUSED, *TOO_MANY, errno.EFBIG, errno.ENOMEM}
LITTLE = 1 << 20
"""Bytes: a disk with less is full."""


class UnwritableError(OSError):
    """What could not be written, why, and what is free; the message is the whole sentence."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what a library raises when it can't write `path`, a file or folder in the making, into UnwritableError.

    Errors about another file stay as they are, and so does all that has nothing to do with a disk.
    """
    try:
        yield
    except UnwritableError:
        raise
    except Exception as error:
        found = _find(error)
        if found is None or not _is_about(*found, path):
            raise
        number, file = found
        raise UnwritableError(f"{_finished(file or path)} could not be written: {_why(number, path)}") from error


def explain(error: BaseException) -> str | None:
    """The sentence for an error that a disk or the memory is at the root of; None for any other."""
    if isinstance(error, UnwritableError):
        return str(error)
    found = None if isinstance(error, ValueError) else _find(error)
    if found is None:
        return None
    number, file = found
    if number == errno.ENOMEM:
        return f"there is not enough memory: {' '.join(str(error).split()) or 'none is left'}"
    if number in TOO_MANY:
        return _why(number, Path())
    if file is None:
        return None if number in REFUSED and isinstance(error, OSError) else f"writing failed: {_why(number, None)}"
    return f"{_finished(file)}: {_why(number, file)}"


def _find(error: BaseException) -> tuple[int, Path | None] | None:
    """(errno, the file that it names) of the first error in the chain that tells; None where none does."""
    current: BaseException | None = error
    while current is not None:
        if (number := _number(current)) is not None:
            # Of a copy, the second name is what was written.
            names = [getattr(current, "filename2", None), getattr(current, "filename", None)]
            name = next((name for name in names if isinstance(name, str | bytes | os.PathLike)), None)
            return number, None if name is None else Path(os.fsdecode(name))
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return None


def _number(error: BaseException) -> int | None:
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in KNOWN else None
    text = str(error)
    if isinstance(error, ValueError | KeyError | TypeError):
        # Ours, or about content.
        return None
    if match := NUMBER.search(text):
        number = int(next(filter(None, match.groups())))
        return number if number in KNOWN else None
    if UNNAMED.search(text):
        return _likely()
    if NO_MEMORY.search(text):
        return errno.ENOMEM
    return next((number for number in KNOWN - {errno.EPERM} if f"failed with {os.strerror(number)}" in text), None)


def _likely() -> int:
    """Why a write came to nothing, where nothing else is said."""
    limited = resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY
    return errno.EFBIG if limited and not _full() else errno.ENOSPC


def _is_about(number: int, file: Path | None, path: Path) -> bool:
    if file is None:
        # What has no name and is refused may have been read.
        return number not in {*REFUSED, errno.ENOMEM} and os.path.lexists(path)
    return number != errno.ENOMEM and file.absolute().is_relative_to(path.absolute())


def _finished(path: Path) -> Path:
    """The name that a file in the making, or one in such a folder, has in the end."""
    return Path(*(UNFINISHED.sub(r"\1", part) for part in path.parts))


def _why(number: int, path: Path | None) -> str:
    if number in TOO_MANY:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"too many files are open at once, the limit is {limit}: raise it with `ulimit -n`"
    if number == errno.EFBIG:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        most = "the file system's" if limit == resource.RLIM_INFINITY else f"{amount(limit)} (`ulimit -f`)"
        return f"it is larger than the limit on files, {most}{_so_far(path)}"
    if number in REFUSED:
        return f"{REFUSED[number]}; expected a place that this user can read and write"
    folders = _full() if path is None else [path.parent]
    free = ", ".join(f"now {amount(free_bytes(folder))} free in {folder}" for folder in folders)
    return f"{ROOM[number]}{_so_far(path)}{f', {free}' if free else ''}; make room there and run again"


def _so_far(path: Path | None) -> str:
    # Of a folder that holds more, its size says nothing.
    size = size_of(path) if path is not None and path.name.endswith(".partial") else 0
    return f", {amount(size)} of it were written" if size else ""


def _full() -> list[Path]:
    """Folders that are written to besides outputs, or the project, whose disk is full."""
    return [folder for folder in (Path(), scratch_root(), Path(tempfile.gettempdir())) if free_bytes(folder) < LITTLE]
