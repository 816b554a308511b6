"""The spool: temporary files of all parsed records, written by the first pass of `convert` and read by the others.

Each process has two: one of records as lines of JSON, which are copied to the outputs as they are, one with a line of texts
for each: normalised instruction and question, earlier questions, answers, parted by tabs. What stays in memory of a record
is its key.
"""

import hashlib
import os
import struct
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
import orjson

from tuneline.data.turns.conversation import Conversation
from tuneline.data.turns.scored_turn import asking_exchanges
from tuneline.formats.records import Record, normalise, record_id, to_line, turns_digest
from tuneline.runtime.atomic import remove
from tuneline.runtime.stopping import removed_when_stopped

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEYS = np.dtype(
    [("content", ">u8", 2), ("raw", ">u8"), ("both", ">u8"), ("instruction", ">u8"), ("question", ">u8"),
     ("answer", ">u8"), ("source", "<u2"), ("asking", "u1"), ("texts", "<u4"), ("record", "<u4")]
)  # fmt: skip
"""The key of a record, 67 bytes: beginnings of sha256 hashes, number of its source, lengths of its lines in the spool.

`content` is of the normalised messages without system prompt, `raw` of the raw text; `instruction` and `question` are
of the normalised instruction and of what follows it, 0 where there is no instruction, `both` of the two together, the
last two with earlier questions of the dialogue;
`answer` of the last answer, 0 unless the task is qa. `asking` is the number of exchanges that ask something.
"""
_KEY = struct.Struct("<16s8s8s8s8s8sHBII")
"""The same for one key, its hashes as bytes."""
_NO_HASH = bytes(8)
BOTH, INSTRUCTION, QUESTION = 0, 1, 2
"""Which part of a question is compared with other questions."""
BETWEEN = b"\x1f"
"""Between the earlier questions of a line, and between its answers; normalised text holds no such character, and no tab."""


class ComparedTexts(NamedTuple):
    """Normalised texts of a record that are compared with those of others."""

    question: str
    earlier: list[str]
    """Earlier questions of a dialogue, whose answers it holds as well."""
    answers: list[str]
    """None for labels and for extraction."""


class Spooled(NamedTuple):
    """What the spool holds of a record."""

    key: bytes
    texts: bytes
    record: bytes


def to_spool(
    conversation: Conversation, source: str, source_number: int, origin: str, raw: str, seed: bytes
) -> Spooled:
    """Key and lines of a record. `raw` is its raw text; `seed` is hashed with its question."""
    messages = conversation.messages
    normalised = [normalise(message["content"]) for message in messages]
    content = without_system = turns_digest(messages, normalised, conversation.tools)
    if messages[0]["role"] == "system":
        without_system = turns_digest(messages[1:], normalised[1:], conversation.tools)
    record: Record = {
        "id": record_id(source, content),
        "source": source,
        "origin": origin,
        "task": conversation.task,
        "messages": messages,
    }
    if conversation.references:
        record["references"] = conversation.references
    if conversation.tools:
        record["tools"] = conversation.tools
    encoded = [text.encode() for text in normalised]
    by_role = zip(messages, encoded, strict=True)
    questions = [text for message, text in by_role if message["role"] == "user"]
    instruction = normalise(conversation.instruction).encode() if conversation.instruction else b""
    question = questions[-1] if conversation.question is None else normalise(conversation.question).encode()
    earlier = BETWEEN.join(questions[:-1])
    answers = b""
    # Labels and lists of entities are equal without being copied, and so are calls.
    if conversation.task in ("qa", "tools"):
        by_role = zip(messages, encoded, strict=True)
        answers = BETWEEN.join([text for message, text in by_role if text and message["role"] == "assistant"])
    compared = b"\t".join((instruction, question, earlier, answers)) + b"\n"
    line = to_line(record) + b"\n"
    # Dialogues that end in the same words are about different things.
    salt = seed + earlier + BETWEEN if earlier else seed
    # struct cuts each digest to its beginning.
    key = _KEY.pack(
        without_system,
        _sha256(raw.encode(errors="surrogatepass")),
        _sha256(salt + instruction + b" " + question if instruction else salt + question),
        _sha256(seed + instruction) if instruction else _NO_HASH,
        _sha256(salt + question) if instruction else _NO_HASH,
        _sha256(encoded[-1]) if conversation.task == "qa" else _NO_HASH,
        source_number,
        min(len(asking_exchanges(messages)), 255),
        len(compared),
        len(line),
    )
    return Spooled(key, compared, line)


def _sha256(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()


def record_of(line: bytes) -> dict[str, Any]:
    """The record of its line."""
    record: dict[str, Any] = orjson.loads(line)
    return record


class Part(NamedTuple):
    """Where the lines of a batch lie: in the two files of a process, from these bytes on."""

    process: int
    texts: int
    record: int


def write_part(folder: Path, texts: bytes, records: bytes) -> Part:
    """Add the lines of a batch to the files of this process."""
    process = os.getpid()
    return Part(process, _append(folder / f"{process}.texts", texts), _append(folder / f"{process}.record", records))


def _append(path: Path, lines: bytes) -> int:
    with path.open("ab") as file:
        place = file.tell()
        file.write(lines)
    return place


class Spool:
    """The parts of a spool in a folder of their own, read by the numbers of the rows."""

    def __init__(self, folder: Path) -> None:
        """The folder's name is fixed, so what a killed run left in it is cleared by the next one."""
        self.folder = folder
        self._removed = ExitStack()
        self._parts: list[Part] = []
        self._begins = [0]
        """First row of each part, and the number of all rows."""
        self._ends: dict[str, NDArray[np.int64]] = {}
        self._files: dict[str, IO[bytes]] = {}

    def __enter__(self) -> "Spool":
        remove(self.folder)
        self._removed.enter_context(removed_when_stopped(self.folder))
        self.folder.mkdir()
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files.values():
            file.close()
        remove(self.folder)
        self._removed.close()

    def add(self, part: Part, rows: int) -> None:
        """The part that follows, which has so many rows."""
        self._parts.append(part)
        self._begins.append(self._begins[-1] + rows)

    def finish(self, keys: "NDArray[Any]") -> None:
        """All parts are there; `keys` are those of all records."""
        for name in ("texts", "record"):
            ends = np.zeros(len(keys) + 1, dtype=np.int64)
            np.cumsum(keys[name], out=ends[1:])
            self._ends[name] = ends

    def record(self, row: int) -> bytes:
        """The record of a row as a line."""
        return self.records(row, row + 1)

    def records(self, begin: int, end: int) -> bytes:
        """The lines of neighbouring rows."""
        return self._lines("record", begin, end)

    def texts(self, row: int, part: int) -> ComparedTexts:
        """What of a row is compared with the held-out items."""
        return next(compared_texts(self.text_lines(row, row + 1), [part]))

    def text_lines(self, begin: int, end: int) -> bytes:
        """What compared_texts reads of neighbouring rows."""
        return self._lines("texts", begin, end)

    def _lines(self, name: str, begin: int, end: int) -> bytes:
        found = []
        ends = self._ends[name]
        number = bisect_right(self._begins, begin) - 1
        while begin < end:
            part, first = self._parts[number], self._begins[number]
            stop = min(end, self._begins[number + 1])
            place = getattr(part, name) + int(ends[begin] - ends[first])
            found.append(os.pread(self._file(part, name), int(ends[stop] - ends[begin]), place))
            number, begin = number + 1, stop
        return b"".join(found)

    def _file(self, part: Part, name: str) -> int:
        path = f"{part.process}.{name}"
        if path not in self._files:
            self._files[path] = (self.folder / path).open("rb")
        return self._files[path].fileno()


def compared_texts(lines: bytes, parts: list[int]) -> Iterator[ComparedTexts]:
    """What of each row is compared with the held-out items; `parts` says which part of its question."""
    for line, part in zip(lines.decode().split("\n"), parts, strict=False):
        instruction, question, earlier, answers = line.split("\t")
        if instruction:
            question = (f"{instruction} {question}", instruction, question)[part]
        yield ComparedTexts(question, _parted(earlier), _parted(answers))


def _parted(texts: str) -> list[str]:
    return texts.split(BETWEEN.decode()) if texts else []
