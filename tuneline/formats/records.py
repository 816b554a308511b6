"""The record: one line of data/processed/*.jsonl, which `convert` writes and every later stage reads.

{"id": "<source>:<12 hex>", "source": "...", "origin": "<file>:<line or index>",
 "task": "qa|triples|entities|label|labels|tools",
 "messages": [{"role": "system|user|assistant|tool", "content": "..."}], "references": [...], "tools": [...]}

`references` is there only when an item has several right answers. The last message is the assistant's. A message with
`"learn": false` is in the prompt of those after it, and carries no loss; one may have `reasoning`, thoughts before an answer.
An assistant's message may have `tool_calls`, each answered by a message of role `tool`; `tools` are the functions that may be
called.
"""

import hashlib
import html
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast, get_args

import orjson

from tuneline.formats.stored import Fields, read_rows

Role = Literal["system", "user", "assistant", "tool"]
Task = Literal["qa", "triples", "entities", "label", "labels", "tools"]

ROLES, TASKS = get_args(Role), get_args(Task)
FIELDS: Fields = {"id": str, "source": str, "origin": str, "task": str, "messages": list}
"""Of every record."""
WIDE = tuple(zip("，？！：；（）～　", ",?!:;()~ ", strict=True))


class ToolCall(TypedDict):
    name: str
    arguments: dict[str, Any]


class Message(TypedDict):
    role: Role
    content: str
    learn: NotRequired[bool]
    """False: in the prompt, and out of the loss."""
    reasoning: NotRequired[str]
    """Thoughts before an answer."""
    tool_calls: NotRequired[list[ToolCall]]
    """Functions that an answer calls, in order; never run."""


TERMS = ("train", "heldout", "duplicates", "leaks", "rejected")
"""What a raw item can become."""


class Record(TypedDict):
    id: str
    source: str
    origin: str
    task: Task
    messages: list[Message]
    references: NotRequired[list[str]]
    tools: NotRequired[list[dict[str, Any]]]
    """Definitions as OpenAI's API has them: {"type": "function", "function": {"name", "description", "parameters"}}."""


def normalise(text: str) -> str:
    """Text for comparing, never for training: HTML entities, NFKC (widths), case and white space made one."""
    plain = html.unescape(text) if "&" in text else text
    if not plain.isascii():
        # NFKC of these is what it says here; without them most Chinese text is normal already, and telling is quick.
        for wide, narrow in WIDE:
            plain = plain.replace(wide, narrow)
        if not unicodedata.is_normalized("NFKC", plain):
            plain = unicodedata.normalize("NFKC", plain)
    return " ".join(plain.casefold().split())


def turns_digest(messages: list[Message], plain: list[str], tools: list[dict[str, Any]] | None = None) -> bytes:
    """sha256 of messages, by their normalised contents: equal for exact duplicates, whatever their order or source.

    The same answer learnt and not learnt makes two, and so do other calls, or other tools to choose from.
    """
    roles = [message["role"] if message.get("learn", True) else "unlearnt" for message in messages]
    parts: list[Any] = list(zip(roles, plain, strict=True))
    parts += [[number, message["tool_calls"]] for number, message in enumerate(messages) if "tool_calls" in message]
    parts += [tools] if tools else []
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).digest()


def record_id(source: str, content: bytes) -> str:
    """`content` is the digest of the messages."""
    return f"{source}:{content.hex()[:12]}"


def is_learnt(message: Message) -> bool:
    """Whether a message is an answer that carries loss."""
    return message["role"] == "assistant" and message.get("learn", True)


def exchanges(messages: Sequence[Message]) -> list[list[Message]]:
    """A user's message and what follows it up to the next, calls and a tool's answers included; no system prompt."""
    parts: list[list[Message]] = []
    for message in messages:
        if message["role"] == "system":
            continue
        if message["role"] == "user" or not parts:
            parts.append([])
        parts[-1].append(message)
    return parts


def without_reasoning(messages: list[Message]) -> list[Message]:
    """The messages without thoughts."""
    if not any("reasoning" in message for message in messages):
        return messages
    kept = [{key: value for key, value in message.items() if key != "reasoning"} for message in messages]
    return cast("list[Message]", kept)


def calls_of(message: Message) -> list[ToolCall]:
    """What an answer calls, in order."""
    return message.get("tool_calls", [])


def answer(record: Record) -> str:
    return record["messages"][-1]["content"]


def references(record: Record) -> list[str]:
    """All right answers of an item, the trained one first."""
    return record.get("references") or [answer(record)]


def last_question(record: Record) -> str:
    """The last user turn as the model gets it, template included."""
    return next(m["content"] for m in reversed(record["messages"]) if m["role"] == "user")


def read_records(path: Path) -> Iterator[Record]:
    """Raises ValueError naming the stage to run when the file is missing, and file and line of what is no record."""
    yield from read_rows(path, FIELDS, "convert", _wrong_with)


def _wrong_with(record: Any) -> str | None:
    """What else is wrong with a record whose fields are there; None when nothing is."""
    messages = record["messages"]
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            return f"message {number} has no role, expected one of {', '.join(ROLES)}"
        if not isinstance(message.get("content"), str):
            return f"message {number} has no content, expected text"
    if not messages or messages[-1]["role"] != "assistant":
        return "messages end without an answer, expected the assistant's"
    if record["task"] not in TASKS:
        return f"task is {record['task']!r}, expected one of {', '.join(TASKS)}"
    given = record.get("references", [])
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        return "references are no list of texts"
    return None


def read_heldout(path: Path) -> list[Record]:
    """The held-out items. Raises ValueError when there are none."""
    records = list(read_records(path))
    if not records:
        raise ValueError(f"{path} holds no item: run `dvc repro convert` with data.heldout above 0")
    return records


def write_jsonl(path: Path, rows: Iterable[Any]) -> int:
    """Write rows in order, one compact line each; returns how many."""
    import jsonlines

    count = 0
    with jsonlines.open(path, "w", sort_keys=True, compact=True, dumps=_dumps) as lines:
        for row in rows:
            lines.write(row)
            count += 1
    return count


def to_line(row: Any) -> bytes:
    """One compact line of JSON, keys sorted, without its line end."""
    return orjson.dumps(row, option=orjson.OPT_SORT_KEYS)


def _dumps(row: Any) -> str:
    return to_line(row).decode()
