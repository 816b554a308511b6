"""The spool: a temporary file of all parsed records, written by the first pass of `convert` and read by the second.

A line of the spool, parted by tabs: normalised instruction and question, earlier questions, answers, the record as JSON.
What stays in memory of a record is its key.
"""

import hashlib
import os
import struct
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
import orjson

from tuneline.data.turns.conversation import Conversation
from tuneline.data.turns.scored_turn import asking_exchanges
from tuneline.formats.records import Record, normalise, record_id, to_line, turns_digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEYS = np.dtype(
    [("content", ">u8", 2), ("raw", ">u8"), ("both", ">u8"), ("instruction", ">u8"), ("question", ">u8"),
     ("answer", ">u8"), ("source", "<u2"), ("asking", "u1"), ("bytes", "<u4")]
)  # fmt: skip
"""The key of a record, 63 bytes: beginnings of sha256 hashes, number of its source, length of its line in the spool.

`content` is of the normalised messages without system prompt, `raw` of the raw text; `instruction` and `question` are
of the normalised instruction and of what follows it, 0 where there is no instruction, `both` of the two together, the
last two with earlier questions of the dialogue;
`answer` of the last answer, 0 unless the task is qa. `asking` is the number of exchanges that ask something.
"""
_KEY = struct.Struct("<16s8s8s8s8s8sHBI")
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


def to_spool_line(
    conversation: Conversation, source: str, source_number: int, origin: str, raw: str, seed: bytes
) -> tuple[bytes, bytes]:
    """Key and spool line of a record. `raw` is its raw text; `seed` is hashed with its question."""
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
    texts = [(message["role"], text.encode()) for message, text in zip(messages, normalised, strict=True)]
    questions = [text for role, text in texts if role == "user"]
    instruction = normalise(conversation.instruction).encode() if conversation.instruction else b""
    question = questions[-1] if conversation.question is None else normalise(conversation.question).encode()
    earlier = BETWEEN.join(questions[:-1])
    # Labels and lists of entities are equal without being copied, and so are calls.
    is_free = conversation.task in ("qa", "tools")
    answers = BETWEEN.join([text for role, text in texts if role == "assistant" and text]) if is_free else b""
    line = b"\t".join((instruction, question, earlier, answers, to_line(record))) + b"\n"
    # Dialogues that end in the same words are about different things.
    salt = seed + earlier + BETWEEN if earlier else seed
    # struct cuts each digest to its beginning.
    key = _KEY.pack(
        without_system,
        _sha256(raw.encode(errors="surrogatepass")),
        _sha256(salt + instruction + b" " + question if instruction else salt + question),
        _sha256(seed + instruction) if instruction else _NO_HASH,
        _sha256(salt + question) if instruction else _NO_HASH,
        _sha256(texts[-1][1]) if conversation.task == "qa" else _NO_HASH,
        source_number,
        min(len(asking_exchanges(messages)), 255),
        len(line),
    )
    return key, line


def _sha256(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()


def record_line(line: bytes) -> bytes:
    """The record of a line of the spool, as a line of JSON."""
    return line[line.rindex(b"\t") + 1 :]


def record_of(line: bytes) -> dict[str, Any]:
    """The record of a line of the spool."""
    record: dict[str, Any] = orjson.loads(record_line(line))
    return record


class LineReader:
    """Lines of a spool that is written: each by its number, while another reads them in order."""

    def __init__(self, spool: IO[bytes], keys: "NDArray[Any]") -> None:
        spool.flush()
        spool.seek(0)
        self.spool = spool
        self.sizes = keys["bytes"]
        self.ends = np.cumsum(keys["bytes"], dtype=np.int64)

    def line(self, number: int) -> bytes:
        size = int(self.sizes[number])
        return os.pread(self.spool.fileno(), size, int(self.ends[number]) - size)


def compared_texts(line: bytes, part: int) -> ComparedTexts:
    """What of a row is compared with the held-out items."""
    instruction, question, earlier, answers, _ = line.split(b"\t", 4)
    if part == INSTRUCTION:
        question = instruction
    elif part == BOTH and instruction:
        question = instruction + b" " + question
    return ComparedTexts(question.decode(), _parted(earlier), _parted(answers))


def _parted(texts: bytes) -> list[str]:
    return texts.decode().split(BETWEEN.decode()) if texts else []
