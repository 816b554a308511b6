"""What a chat template writes of calls and definitions, each found once and put into places left open for them.

Conversations with tools are hardly ever alike, and to find the parts of one takes dozens of renderings; of those with stand-ins
in place of calls and definitions there are few. Only what comes to the text that the template renders is used.
"""

import json
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from tuneline.formats.records import Message, ToolCall
from tuneline.models.template_slots import Filling, shared
from tuneline.models.template_tool_use.support import ASKED

_CITY = {"type": "object", "properties": {"x": {"type": "string", "description": "x"}}}
_CALLS: tuple[ToolCall, ...] = (
    {"name": "Aqn", "arguments": {"Qk": "Qv"}},
    {"name": "Bqm", "arguments": {"z": 1}},
    {"name": "cqk", "arguments": {}},
)
"""Calls whose names and arguments begin and end differently."""
_TOOLS = (
    [{"type": "function", "function": {"name": "Qtdx", "description": "Qtex", "parameters": _CITY}}],
    [
        {
            "type": "function",
            "function": {"parameters": {"properties": {}, "type": "object"}, "description": "y", "name": "z"},
        }
    ],
    [
        {"type": "function", "function": {"description": "z", "name": "y", "parameters": _CITY}},
        {"type": "function", "function": {"name": "a", "description": "1", "parameters": _CITY}},
    ],
)
STAND_IN_TOOLS = _TOOLS[0]
MOST = 4000
"""Texts that are remembered."""


class CallSlot(NamedTuple):
    """The place of a call, or of the name of its function."""

    message: int
    number: int
    """Of the call in its message."""
    is_name: bool = False

    def filled(self, filling: Filling) -> str:
        if self.is_name:
            return filling.messages[self.message]["tool_calls"][self.number]["name"]
        return filling.calls[self.message, self.number]


class ToolsSlot(NamedTuple):
    """The place of all definitions."""

    def filled(self, filling: Filling) -> str:
        return filling.tools


def with_stand_ins(messages: Sequence[Message]) -> list[Message]:
    """The messages with stand-ins for their calls."""
    return [
        {**message, "tool_calls": [_stand_in(place, number) for number in range(len(message["tool_calls"]))]}
        if "tool_calls" in message
        else message
        for place, message in enumerate(messages)
    ]


class WrittenTools:
    """Finds what a template writes of a call, or of definitions. `render` gives messages with tools as text."""

    def __init__(self, render: Callable[..., str], names: Collection[str]) -> None:
        """`names` are those of the control tokens, none of which lies on the edge of a text."""
        self._render, self._names = render, names
        self._texts: dict[str, str | None] = {}
        self._around: dict[str, tuple[str, str] | None] = {}

    def filling(self, messages: Sequence[Message], tools: Any) -> Filling | None:
        """The messages with what is written of their calls and of the tools; None where that can't be told."""
        calls = {
            (place, number): self._written("call", call)
            for place, message in enumerate(messages)
            for number, call in enumerate(message.get("tool_calls", []))
        }
        listed = self._written("tools", tools) if tools else ""
        if listed is None or None in calls.values():
            return None
        return Filling(messages, {place: text for place, text in calls.items() if text is not None}, listed)

    def opened(self, pieces: Sequence[Any], messages: Sequence[Message], tools: Any) -> tuple[Any, ...] | None:
        """Pieces found with stand-ins, with slots in their places; None where one is not there exactly once."""
        wanted: list[tuple[str | None, Any]] = [(self._written("tools", STAND_IN_TOOLS), ToolsSlot())] if tools else []
        names: list[tuple[str, Any]] = []
        for place, message in enumerate(messages):
            for number in range(len(message.get("tool_calls", []))):
                call = _stand_in(place, number)
                wanted.append((self._written("call", call), CallSlot(place, number)))
                names.append((call["name"], CallSlot(place, number, is_name=True)))
        for text, slot in wanted:
            if not text or sum(piece.count(text) for piece in pieces if isinstance(piece, str)) != 1:
                return None
            pieces = _split(pieces, text, slot)
        for name, slot in names:
            pieces = _split(pieces, name, slot)
        return tuple(pieces)

    def _written(self, kind: str, value: Any) -> str | None:
        key = f"{kind}{json.dumps(value)}"
        if key not in self._texts:
            if len(self._texts) > MOST:
                self._texts.clear()
            self._texts[key] = self._between(kind, value)
        return self._texts[key]

    def _between(self, kind: str, value: Any) -> str | None:
        """What stands between what every such value has before and behind it."""
        if kind not in self._around:
            texts = [self._rendered(kind, probe) for probe in (_CALLS if kind == "call" else _TOOLS)]
            self._around[kind] = self._edges(texts) if all(texts) else None
        around, text = self._around[kind], self._rendered(kind, value)
        if around is None or not (text.startswith(around[0]) and text.endswith(around[1])):
            return None
        return text[len(around[0]) : len(text) - len(around[1])]

    def _edges(self, texts: Sequence[str]) -> tuple[str, str]:
        """What all texts begin and end with, up to where a control token may begin or end."""
        first, *others = texts
        before = first[: min(shared(first, other) for other in others)]
        after = first[len(first) - min(shared(first[::-1], other[::-1]) for other in others) :]
        for name in self._names:
            for size in range(1, len(name)):
                before = before[:-size] if before.endswith(name[:size]) else before
                after = after[size:] if after.startswith(name[-size:]) else after
        return before, after

    def _rendered(self, kind: str, value: Any) -> str:
        """The shortest conversation with a call, or with tools; "" where the template refuses it."""
        called: Message = {"role": "assistant", "content": ""}
        try:
            if kind == "call":
                return self._render([ASKED, {**called, "tool_calls": [value]}])
            return self._render([ASKED], True, False, value)
        except ValueError:
            return ""


def _stand_in(place: int, number: int) -> ToolCall:
    return {"name": f"Aq{place}n{number}n", "arguments": {"Qk": f"Qv{place}v{number}v"}}


def _split(pieces: Sequence[Any], text: str, slot: Any) -> list[Any]:
    """The pieces with the slot wherever the text is."""
    found: list[Any] = []
    for piece in pieces:
        if not isinstance(piece, str) or text not in piece:
            found.append(piece)
            continue
        for number, part in enumerate(piece.split(text)):
            found += ([slot] if number else []) + ([part] if part else [])
    return found
