"""A repository of a model hub that a release is pushed to, and the push: looked at before, one commit, compared after."""

import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from tuneline.cli.push.contents import ReleaseFile, total

ATTEMPTS = 6
"""At each request; what was uploaded before is not sent again."""
WAIT = 2.0
"""Seconds before the second attempt; twice as many before each later one."""
INITIAL = frozenset({".gitattributes", ".gitignore", "README.md", "configuration.json"})
"""What a hub, or its page for a new repository, puts into one that is empty."""

Found = TypeVar("Found")


@dataclass(frozen=True)
class Stored:
    """A file as the hub lists it."""

    size: int
    sha256: str | None = None
    git_blob: str | None = None
    """Of small files, where the hub lists no sha256."""


@dataclass(frozen=True)
class Repository:
    files: Mapping[str, Stored]
    public: bool
    head: str | None
    """The last commit, where the hub says it."""


class Remote(Protocol):
    """Methods raise ValueError for what the user must mend, and ConnectionError for what may pass."""

    repo: str
    """owner/name."""
    place: str
    """The hub's name."""
    kept: frozenset[str]
    """Files of the hub's own, which stay beside a release."""

    @property
    def address(self) -> str:
        """Of the page."""

    def create(self, *, public: bool) -> None:
        """Make the repository where there is none."""

    def state(self) -> Repository:
        """What is there now."""

    def upload(self, files: Sequence[ReleaseFile]) -> None:
        """Send what takes long and can be sent before the commit; tries each request again by itself."""

    def commit(self, files: Sequence[ReleaseFile], removed: Collection[str], head: str | None) -> None:
        """Send what is not there yet, and make all of it visible in one commit on top of `head`."""

    def publish(self) -> None:
        """Let everybody see the repository."""


def push(files: Sequence[ReleaseFile], remote: Remote, *, public: bool, replace: bool) -> str:
    """Make the repository hold exactly these files, and say what was done.

    Raises ValueError when it holds something else and `replace` is not set, or when the hub lists other files afterwards.
    """
    retried(partial(remote.create, public=public))
    before = retried(remote.state)
    if before.public and not public:
        raise ValueError(f"{remote.repo} is public on {remote.place}: say --public, or name another repository")
    removed = beside(files, before, remote)
    if not (differences(files, before) or removed):
        done = f"{remote.address} holds this release already"
    else:
        _refuse_other_content(files, before, remote, removed, replace=replace)
        remote.upload(files)
        _commit(files, removed, remote, before.head)
        done = f"{total(files)} are at {remote.address}, compared one by one"
    if public and not before.public:
        retried(remote.publish)
    return f"{done}; {'public' if public else 'private'}"


def differences(files: Sequence[ReleaseFile], there: Repository) -> list[str]:
    """Files that the hub lacks or lists otherwise, a sentence each."""
    return [said for file in files if (said := _difference(file, there.files.get(file.name)))]


def beside(files: Sequence[ReleaseFile], there: Repository, remote: Remote) -> list[str]:
    """Files of the repository that are neither the release's nor the hub's own."""
    return sorted(there.files.keys() - {file.name for file in files} - remote.kept)


def _difference(file: ReleaseFile, stored: Stored | None) -> str:
    if stored is None:
        return f"{file.name} is missing"
    if stored.size != file.size:
        return f"{file.name} has {stored.size} bytes, expected {file.size}"
    if stored.sha256:
        return "" if stored.sha256 == file.sha256 else f"{file.name} has other content"
    if stored.git_blob:
        return "" if stored.git_blob == file.git_blob() else f"{file.name} has other content"
    return f"{file.name} is listed without a hash"


def _refuse_other_content(
    files: Sequence[ReleaseFile], before: Repository, remote: Remote, removed: list[str], *, replace: bool
) -> None:
    """An empty repository, and one whose files are of this very release, may be filled."""
    changed = [file.name for file in files if file.name in before.files and _difference(file, before.files[file.name])]
    other = sorted({*changed, *removed} - INITIAL)
    if replace or not other:
        return
    raise ValueError(
        f"{remote.repo} on {remote.place} holds something else (first {other[0]}): name another repository, or say "
        "--replace, which commits this release over it; the earlier commits stay"
    )


def _commit(files: Sequence[ReleaseFile], removed: Collection[str], remote: Remote, head: str | None) -> None:
    """Commit, and compare."""
    tried = False

    def commit() -> None:
        nonlocal tried
        # The commit may have been made, and only its answer lost.
        if not (tried and not _wrong(files, remote)):
            tried = True
            remote.commit(files, removed, head)

    retried(commit)
    if wrong := retried(partial(_wrong, files, remote)):
        raise ValueError(f"{remote.place} lists other files than were pushed: {'; '.join(wrong[:5])}; push again")


def _wrong(files: Sequence[ReleaseFile], remote: Remote) -> list[str]:
    there = remote.state()
    return [*differences(files, there), *(f"{name} is there, too" for name in beside(files, there, remote))]


def retried(request: Callable[[], Found]) -> Found:
    """What a request gives, asked again where the hub fails for a moment. Raises the last attempt's ConnectionError."""
    for number in range(1, ATTEMPTS):
        try:
            return request()
        except ConnectionError as error:
            wait = WAIT * 2 ** (number - 1)
            print(f"release: attempt {number} of {ATTEMPTS}: {error}; again in {wait:.0f} s", file=sys.stderr)
            time.sleep(wait)
    return request()
