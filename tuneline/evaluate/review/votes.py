"""Votes in reviews/<rater>.jsonl: a line each, appended and never changed, so that the last one on two answers counts.

A vote belongs to two texts by their hashes, and not to a run: it counts wherever these two are compared, and nowhere else.
"""

import fcntl
import json
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from tuneline.formats.stored import Fields, complaint

TIE, BAD = "tie", "bad"
"""Votes for neither answer: both as good, and both bad."""
JUDGE = "judge-"
"""What the name of a judge model's file begins with, and no person's."""
NAME = re.compile(r"\w(?:[\w.-]{0,38}\w)?")
MAX_COMMENT = 2000
"""Characters."""
FIELDS: Fields = {"id": str, "answers": list, "vote": (str, type(None)), "rater": str, "comment": str}
HASH = re.compile(r"[0-9a-f]{16}")


class Vote(NamedTuple):
    id: str
    """Of the item."""
    answers: tuple[str, str]
    """Hashes of the two texts, sorted, so that their order tells nothing."""
    vote: str | None
    """The hash of the better answer, TIE, BAD, or None: the vote was taken back."""
    rater: str
    comment: str = ""
    orders: tuple[str, str] | None = None
    """Of a judge: what it said with `answers` in their order, and the other way round: `first`, `second`, TIE, BAD or ``."""

    @property
    def by_judge(self) -> bool:
        return self.rater.startswith(JUDGE)


def check_name(name: str) -> str:
    """A person's name, as the file will be called. Raises ValueError."""
    name = unicodedata.normalize("NFC", name.strip())
    if not NAME.fullmatch(name) or name.lower().startswith(JUDGE):
        raise ValueError(
            f"the name is {name[:60]!r}, expected 1 to 40 letters, digits, dots or hyphens, and none that begins with {JUDGE!r}"
        )
    return name


def votes_path(folder: Path, rater: str) -> Path:
    return folder / f"{rater}.jsonl"


def append(folder: Path, vote: Vote) -> None:
    """Write a vote to the end of its rater's file; it is on the disk when this returns.

    Several processes may, one after the other. What a process that was killed left of a line is cut off: nobody was told that
    it was kept.
    """
    folder.mkdir(exist_ok=True)
    with votes_path(folder, vote.rater).open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if tail := content[whole:]:
            if _is_json(tail):
                file.write(b"\n")
            else:
                file.truncate(whole)
        file.write(to_line(vote))
        file.flush()
        os.fsync(file.fileno())


def to_line(vote: Vote) -> bytes:
    fields = {name: value for name, value in vote._asdict().items() if name != "orders" or value is not None}
    return json.dumps(fields, ensure_ascii=False).encode() + b"\n"


def read_votes(folder: Path) -> list[Vote]:
    """Every vote of every file, in order. Raises ValueError naming file and line of what is none.

    A last line that has no end and can't be read is what a killed server left, and is passed over.
    """
    return [vote for path in sorted(folder.glob("*.jsonl")) for vote in read_file(path)]


def read_file(path: Path) -> Iterator[Vote]:
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line or (number == len(lines) and not _is_json(line)):
            continue
        try:
            found = orjson.loads(line)
            wrong = complaint(found, FIELDS) or _wrong_with(found, path.stem)
        except orjson.JSONDecodeError as error:
            wrong = f"no JSON ({error})"
        if wrong:
            raise ValueError(f"{path}, line {number}: {wrong}; mend or remove the line (git has its earlier state)")
        orders = tuple(found["orders"]) if "orders" in found else None
        yield Vote(found["id"], tuple(found["answers"]), found["vote"], found["rater"], found["comment"], orders)


def last_votes(votes: Sequence[Vote]) -> dict[tuple[str, str, tuple[str, str]], Vote]:
    """The vote that counts, by rater, item and the two answers; those taken back are left out."""
    last = {(vote.rater, vote.id, vote.answers): vote for vote in votes}
    return {key: vote for key, vote in last.items() if vote.vote is not None}


def _wrong_with(found: dict[str, Any], name: str) -> str | None:
    answers, orders = found["answers"], found.get("orders", ["", ""])
    if len(answers) != 2 or not all(isinstance(one, str) and HASH.fullmatch(one) for one in answers):
        return f"answers are {answers}, expected two hashes of 16 hex digits"
    if found["vote"] not in (*answers, TIE, BAD, None):
        return f"vote is {found['vote']!r}, expected one of the two hashes, {TIE!r}, {BAD!r} or null"
    if found["rater"] != name:
        return f"rater is {found['rater']!r}, expected {name!r}, as the file is called"
    if not isinstance(orders, list) or len(orders) != 2 or not all(isinstance(one, str) for one in orders):
        return f"orders are {orders}, expected two texts"
    return None


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True
