"""Raw pieces to records: what a worker does with a batch of them. The same batch gives the same bytes in any process."""

import csv
import hashlib
import html
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tuneline.data.config import Data, Source
from tuneline.data.readers import Opened, Piece, extraction, has_history, pairs, parse, turns
from tuneline.data.readers.conversation import Conversation, UnfitError
from tuneline.data.readers.shapes import TURNS, first, is_turn, unwrapped
from tuneline.data.readers.text import RAW_KEPT
from tuneline.formats.records import Record, normalise, record_id, to_line, turns_digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEYS = np.dtype(
    [("content", ">u8", 2), ("raw", ">u8"), ("whole", ">u8"), ("head", ">u8"), ("tail", ">u8"), ("source", "<u2"),
     ("bytes", "<u4")]
)  # fmt: skip
"""What is kept in memory of a record, 54 bytes: beginnings of sha256 hashes, and how long its line in the spill is.

`content` is of the normalised messages without system prompt, `raw` of the raw text; `whole`, `head` and `tail` are
of the normalised question, of its instruction and of what follows it, 0 where there is no instruction.
"""
EARLIER = "\x1f"
"""Between the earlier questions of a line; normalised text holds no such character, and no tab."""
PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}|<(NAME|AUTHOR)>")
_TAG = re.compile(r"</?(?:br|p|div|span|a|b|i|strong|em|li|ul|ol|table|tr|td|img|font)\b[^<>]*>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#\d+|#[xX][0-9a-fA-F]+|[A-Za-z][A-Za-z0-9]*);")
_END = re.compile(r"<eoa>\s*$")
REPAIRS: dict[str, Callable[[str], str]] = {
    # Only what ends in a semicolon: html.unescape also turns the &copy of a link into a sign.
    "html_entities": lambda text: (
        _ENTITY.sub(lambda match: html.unescape(match.group()), text) if "&" in text else text
    ),
    "html_tags": lambda text: _TAG.sub("", text) if "<" in text else text,
    "end_marker": lambda text: _END.sub("", text) if "<eoa>" in text else text,
    "trim": str.strip,
}
"""In the order in which they are made."""


class Task(NamedTuple):
    """A batch for a worker."""

    params: Data
    source: Source
    number: int
    """Of the source."""
    file: Opened
    pieces: list[Piece]


@dataclass
class Batch:
    """What became of a batch."""

    source: int
    """Its source's number."""
    keys: "NDArray[Any]"
    """KEYS, one for each record."""
    spill: bytes
    """A line for each record, parted by tabs: normalised head, tail and earlier questions, the record as JSON."""
    rejects: bytes
    """Lines of rejects.jsonl."""
    items: int
    reasons: Counter[str] = field(default_factory=Counter)
    repairs: Counter[str] = field(default_factory=Counter)
    placeholders: Counter[str] = field(default_factory=Counter)
    """Those that nothing was given for."""


def read_batch(task: Task) -> Batch:
    """Understand every piece of a batch, or reject it with a reason."""
    repairs, placeholders, reasons = Counter[str](), Counter[str](), Counter[str]()
    rows: list[tuple[Any, ...]] = []
    spill: list[bytes] = []
    rejects: list[bytes] = []
    seed, name = f"{task.params.seed}\n", task.source.name
    for piece in task.pieces:
        origin = printable(f"{task.file.path}:{piece.place}")
        try:
            if piece.reason is not None:
                raise UnfitError(piece.reason)
            conversation = understood(task.source, task.file, piece.raw)
            tidy(conversation, task.params, placeholders)
        except UnfitError as error:
            reasons[str(error)] += 1
            rejects.append(reject_line(name, origin, str(error), piece))
            continue
        if conversation.repairs:
            repairs.update(set(conversation.repairs))
        key, line = _filed(conversation, name, task.number, origin, piece.raw, seed)
        rows.append(key)
        spill.append(line)
    keys = np.array(rows, dtype=KEYS)
    return Batch(
        task.number, keys, b"".join(spill), b"".join(rejects), len(task.pieces), reasons, repairs, placeholders
    )


def understood(source: Source, file: Opened, raw: str) -> Conversation:
    """Raises UnfitError with the reason."""
    try:
        value = unwrapped(parse(file, raw))
    except UnfitError:
        raise
    except (ValueError, RecursionError, csv.Error):
        raise UnfitError(f"broken_{file.format.split('_')[0]}") from None
    if isinstance(value, list) and value and is_turn(value[0]):
        value = {"conversation": value}
    if not isinstance(value, dict):
        raise UnfitError("not_an_object")
    if file.history_astray and has_history(value):
        raise UnfitError("history_after_the_question")
    if not source.question and not source.columns:
        key = first(TURNS, value)
        if key and (value[key] or not pairs.names_of(tuple(value)).questions):
            return turns.read(source, value, key)
        if extraction.fits(value):
            return extraction.read(source, value)
    return pairs.read(source, value, file.triple_lines)


def tidy(conversation: Conversation, params: Data, placeholders: Counter[str]) -> None:
    """Fill placeholders and make the repairs that params ask for, in place. Raises UnfitError for broken characters."""
    for message in conversation.messages:
        role = message["role"]
        message["content"] = _mended(message["content"], role, conversation.repairs, params, placeholders)
        if not message["content"].strip() and (role != "assistant" or conversation.task != "triples"):
            raise UnfitError(f"empty_{'answer' if role == 'assistant' else role}")
    if conversation.references:
        # The first is the trained one, which is mended and counted already.
        others = [
            _mended(text, "reference", conversation.repairs, params, placeholders)
            for text in conversation.references[1:]
        ]
        conversation.references = [conversation.messages[-1]["content"], *others]


def _mended(text: str, role: str, repairs: list[str], params: Data, placeholders: Counter[str]) -> str:
    if broken(text):
        raise UnfitError(f"broken_characters_in_{role}")
    given = text
    for name, repair in REPAIRS.items():
        if name in params.repairs and (after := repair(text)) != text:
            repairs.append(name)
            text = after
    if "{{" in text or "<NAME>" in text or "<AUTHOR>" in text:
        text = _filled(text, params.placeholders, placeholders)
    # &#0; is text before it is mended.
    if text is not given and broken(text):
        raise UnfitError(f"broken_characters_in_{role}")
    return text


def printable(text: str) -> str:
    """Names of files and keys may hold bytes that are no text."""
    return text.encode(errors="backslashreplace").decode()


def broken(text: str) -> bool:
    """Whether characters are lost (U+FFFD), null, or half of a surrogate pair."""
    if "\ufffd" in text or "\x00" in text:
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _filled(text: str, given: dict[str, str], missing: Counter[str]) -> str:
    lower = {name.lower(): value for name, value in given.items()}

    def fill(match: re.Match[str]) -> str:
        name = (match.group(1) or match.group(2)).lower()
        if name not in lower:
            missing[match.group()] += 1
        return lower.get(name, match.group())

    return PLACEHOLDER.sub(fill, text)


def _filed(
    conversation: Conversation, source: str, number: int, origin: str, raw: str, seed: str
) -> tuple[tuple[Any, ...], bytes]:
    messages = conversation.messages
    plain = [normalise(message["content"]) for message in messages]
    content = turns = turns_digest(messages, plain)
    if messages[0]["role"] == "system":
        turns = turns_digest(messages[1:], plain[1:])
    head = normalise(conversation.head)
    tail = plain[-2] if conversation.tail is None else normalise(conversation.tail)
    record: Record = {
        "id": record_id(source, content),
        "source": source,
        "origin": origin,
        "task": conversation.task,
        "messages": messages,
    }
    if conversation.references:
        record["references"] = conversation.references
    asked = [text for message, text in zip(messages, plain, strict=True) if message["role"] == "user"]
    earlier = EARLIER.join(asked[:-1])
    line = b"%s\t%s\t%s\t%s\n" % (head.encode(), tail.encode(), earlier.encode(), to_line(record))
    key = (
        (_number(turns), int.from_bytes(turns[8:16])),
        _number(_digest(raw)),
        _number(_digest(f"{seed}{head} {tail}" if head else seed + tail)),
        _number(_digest(seed + head)) if head else 0,
        _number(_digest(seed + tail)) if head else 0,
        number,
        len(line),
    )
    return key, line


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def _number(digest: bytes) -> int:
    return int.from_bytes(digest[:8])


def reject_line(source: str, origin: str, reason: str, piece: Piece) -> bytes:
    """A line of rejects.jsonl: the raw text up to 64 KB, and the hash of all of it."""
    whole = piece.raw.encode(errors="surrogatepass")
    kept = piece.raw.encode(errors="backslashreplace")[:RAW_KEPT].decode(errors="ignore")
    line = {"source": source, "origin": origin, "reason": reason, "raw": kept}
    line["sha256"] = piece.sha256 or hashlib.sha256(whole).hexdigest()
    return to_line(line) + b"\n"
