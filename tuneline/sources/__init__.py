"""Readers of raw files: one file per format, each a generator of items and rejects.

A reader never skips: what it cannot read it yields as a Reject with file, line or index and reason.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from tuneline.records import Message, Task
from tuneline.sections.data import Source, template_fields
from tuneline.sources import objects, table
from tuneline.sources.text import decode

RAW_KEPT = 64 * 1024
"""Bytes of a rejected record that are kept beside its hash."""


@dataclass(frozen=True)
class Item:
    """One raw question and answer, read."""

    source: str
    origin: str
    task: Task
    question: str
    """As it stands in the file, without template: what is compared for leaks."""
    messages: list[Message]
    raw_hash: str
    """sha256 of the raw text: decides which of several duplicates stays."""


@dataclass(frozen=True)
class Reject:
    source: str
    origin: str
    reason: str
    raw: str

    def line(self) -> dict[str, Any]:
        """The reject as a line of rejects.jsonl."""
        kept = self.raw.encode(errors="backslashreplace")[:RAW_KEPT].decode(errors="ignore")
        digest = hashlib.sha256(self.raw.encode(errors="surrogatepass")).hexdigest()
        return {"source": self.source, "origin": self.origin, "reason": self.reason, "raw": kept, "sha256": digest}


class Reader(Protocol):
    """`claims` says from the content whether the text is of this format; `read` yields (place, fields or reason, raw)."""

    def claims(self, text: str) -> bool: ...

    def read(self, text: str) -> Iterator[tuple[str, dict[str, Any] | str, str]]: ...


READERS: dict[str, Reader] = {"objects": objects, "table": table}

QUESTION = ("question", "query", "instruction", "ask")
ANSWER = ("answer", "response", "output")
CONTEXT = ("input", "history")
"""Fields that belong to the question; a source must say where they go."""


def read_source(source: Source, raw: Path) -> Iterator[Item | Reject]:
    """Read one file of data/raw by the section's mapping.

    Raises ValueError when the file is missing, empty, undecodable, or of no known format.
    """
    path = raw / source.path
    if not path.is_file():
        raise ValueError(
            f"data.sources: path {source.path!r} is no file in {raw}, expected one of your raw files there"
        )
    text = decode(path.read_bytes(), path)
    count = 0
    for place, fields, original in islice(_reader(source, text, path).read(text), source.limit):
        yield _item(source, f"{source.path}:{place}", fields, original)
        count += 1
    if not count:
        raise ValueError(f"{path} holds no row, expected questions and answers")


def _reader(source: Source, text: str, path: Path) -> Reader:
    if source.format != "auto":
        return READERS[source.format]
    for reader in READERS.values():
        if reader.claims(text):
            return reader
    raise ValueError(
        f"{path}: no reader knows this format (it begins {text[:60]!r}); expected JSON objects or a table with a "
        f"header; set data.sources[].format to one of {', '.join(READERS)}"
    )


def _item(source: Source, origin: str, fields: dict[str, Any] | str, original: str) -> Item | Reject:
    read = fields if isinstance(fields, str) else _conversation(source, fields)
    if isinstance(read, str):
        return Reject(source.name, origin, read, original)
    question, messages = read
    raw_hash = hashlib.sha256(original.encode(errors="surrogatepass")).hexdigest()
    return Item(source.name, origin, source.task, question, messages, raw_hash)


def _conversation(source: Source, fields: dict[str, Any]) -> tuple[str, list[Message]] | str:
    """(bare question, messages) of a row, or the reason why it has none."""
    question_key = source.question or source.columns.get("question") or _first(QUESTION, fields)
    answer_key = source.columns.get("answer") or _first(ANSWER, fields)
    if question_key not in fields:
        return "no_question_field"
    if answer_key not in fields:
        return "no_answer_field"
    # Part of the question: reading the row without it would change what is asked.
    mapped = {question_key, *template_fields(source.template or "")}
    for key in CONTEXT:
        if fields.get(key) and key not in mapped:
            return f"unmapped_{key}"
    question = table.joined_question(fields) if question_key == "ask" else fields[question_key]
    answer = fields[answer_key]
    if reason := _wrong("question", question) or _wrong("answer", answer):
        return reason
    try:
        messages = _messages(source, fields, question, answer)
    except KeyError as error:
        return f"template_field_{error.args[0]}_missing"
    broken = [message["role"] for message in messages if _broken(message["content"])]
    return f"broken_characters_in_{broken[0]}" if broken else (question, messages)


def _wrong(what: str, value: object) -> str | None:
    if not isinstance(value, str):
        return f"{what}_not_text"
    return None if value.strip() else f"empty_{what}"


def _messages(source: Source, fields: dict[str, Any], question: str, answer: str) -> list[Message]:
    system = source.system
    if system is None:
        own = fields.get(source.columns.get("system", "system"))
        system = own if isinstance(own, str) else ""
    asked = question
    if source.template is not None:
        asked = source.template.format_map({**fields, "question": question})
    messages: list[Message] = [{"role": "system", "content": system}] if system.strip() else []
    return [*messages, {"role": "user", "content": asked}, {"role": "assistant", "content": answer}]


def _first(names: tuple[str, ...], fields: dict[str, Any]) -> str:
    return next((name for name in names if name in fields), "")


def _broken(text: str) -> bool:
    """Whether characters are lost (U+FFFD), null, or half of a surrogate pair."""
    return any(character in "\ufffd\x00" or "\ud800" <= character <= "\udfff" for character in text)
