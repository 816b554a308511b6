"""Tools in a checkpoint's own chat template: messages as it takes them, with calls and a tool's answers.

What a template can do is found by rendering: whether it writes definitions, calls and a tool's answers, and whether it takes
the arguments of a call as an object, as most do, or as a text of JSON.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import count
from typing import Any

from tuneline.formats.records import Message, ToolCall

DEFINED, NAME, KEY, VALUE, OBSERVED = "Qtdx", "Qtnx", "Qtkx", "Qtvx", "Qtox"
"""Texts that stand for a function's name in its definition and in a call, an argument, its value, and what it gives."""
PROBE = [
    {
        "type": "function",
        "function": {
            "name": DEFINED,
            "description": "x",
            "parameters": {"type": "object", "properties": {"x": {"type": "string", "description": "x"}}},
        },
    }
]
"""A definition."""
OTHER = {"Qtzx": "Qtzx"}
"""Arguments by which it is found where those of a call end."""
ASKED: Message = {"role": "user", "content": "x"}
CALLED: Message = {"role": "assistant", "content": "", "tool_calls": [{"name": NAME, "arguments": {KEY: VALUE}}]}
GIVEN: Message = {"role": "tool", "content": OBSERVED}
ANSWERED: Message = {"role": "assistant", "content": "x"}


def given_calls(calls: Iterable[ToolCall], names: Iterable[str], as_text: bool) -> list[dict[str, Any]]:
    """Calls as OpenAI's API has them."""
    return [
        {
            "type": "function",
            "id": name,
            "function": {
                "name": call["name"],
                "arguments": json.dumps(call["arguments"], ensure_ascii=False) if as_text else call["arguments"],
            },
        }
        for call, name in zip(calls, names, strict=False)
    ]


def with_calls(messages: Sequence[Message], given: list[dict[str, Any]], as_text: bool) -> list[dict[str, Any]]:
    """`given` messages with their calls, and each tool's answer with the name of what was called."""
    # Nine letters and digits, as Mistral's templates ask for.
    identifiers = (f"call{number:05}" for number in count())
    waiting: list[dict[str, Any]] = []
    for message, one in zip(messages, given, strict=True):
        if message.get("tool_calls"):
            waiting = given_calls(message["tool_calls"], identifiers, as_text)
            one["tool_calls"] = list(waiting)
        elif message["role"] == "tool" and waiting:
            # Where one answer is given to several calls, it goes by the first.
            call = waiting.pop(0)
            one |= {"name": call["function"]["name"], "tool_call_id": call["id"]}
    return given


class ToolSupport:
    """What a template does with tools. `render` gives messages, tools, and whether arguments are texts, as text."""

    def __init__(self, render: Callable[[Sequence[Message], Any, bool], str]) -> None:
        self._render = render

    @cached_property
    def shows_tools(self) -> bool:
        """Whether definitions are written."""
        return any(DEFINED in self._rendered(messages, PROBE) for messages in ([ASKED], [ASKED, ANSWERED]))

    @cached_property
    def arguments_as_text(self) -> bool:
        """Whether the arguments of a call must be a text of JSON: an object is refused, or written as Python does."""
        text = self._rendered([ASKED, CALLED, GIVEN, ANSWERED], PROBE if self.shows_tools else None, as_text=False)
        return VALUE not in text or f"{{'{KEY}'" in text

    @cached_property
    def shows_calls(self) -> bool:
        """Whether calls and a tool's answers are written."""
        tools = PROBE if self.shows_tools else None
        text = self._rendered([ASKED, CALLED, GIVEN, ANSWERED], tools, self.arguments_as_text)
        return all(part in text for part in (NAME, KEY, VALUE, OBSERVED))

    def check(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None) -> None:
        """Raises ValueError for tools, calls or a tool's answers that the template leaves out."""
        if tools and not self.shows_tools:
            raise ValueError(
                "the base's chat template takes no tools, and this conversation has some: take such a base whose template "
                "does, or leave these rows out (data.exclude in params.yaml)"
            )
        if not self.shows_calls and any("tool_calls" in m or m["role"] == "tool" for m in messages):
            raise ValueError(
                "the base's chat template writes no tool calls, and this conversation has some: take such a base whose "
                "template does, or leave these rows out (data.exclude in params.yaml)"
            )

    def _rendered(self, messages: Sequence[Message], tools: Any, as_text: bool = False) -> str:
        try:
            return self._render(messages, tools, as_text)
        except ValueError:
            return ""
