"""Calls in what a chat template renders: where those of an answer begin and end, found by rendering others in their place."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tuneline.formats.records import Message
from tuneline.models.control_tokens import SpelledTokenizer
from tuneline.models.template_render import sentinel
from tuneline.models.template_slots import shared
from tuneline.models.template_tool_use.support import OTHER

Render = Callable[..., str]
"""Messages and whether a generation prompt follows, as text."""


class Calls(NamedTuple):
    """Where the calls of an answer stand in a rendered text."""

    start: int
    """Where they begin that follow thoughts, or words that follow both; 0 without thoughts."""
    done: int
    """Behind the last argument."""
    own: int
    """Behind what the template writes after that before its last control token, as a part of the answer."""


def find_calls(
    render: Render, spelled: SpelledTokenizer, text: str, messages: Sequence[Message], number: int, generation: bool
) -> Calls:
    """The calls of message `number` in the text of all messages."""
    message = messages[number]
    calls = message["tool_calls"]
    changed = {**calls[-1], "arguments": {} if calls[-1]["arguments"] == OTHER else OTHER}
    other: Message = {**message, "tool_calls": [*calls[:-1], changed]}  # type: ignore[list-item]

    def tail(after: Sequence[Message], generation: bool) -> str:
        """What is written after the last argument."""
        one, two = (render([*messages[:number], own, *after], generation) for own in (message, other))
        return one[len(one) - shared(one[::-1], two[::-1]) :]

    done = len(text) - len(tail(messages[number + 1 :], generation))
    own = tail([], False)
    return Calls(
        _after_thoughts(render, text, messages[: number + 1]),
        done,
        done + len(own) - len(spelled.from_last_control(own)),
    )


def calls_end(spelled: SpelledTokenizer, text: str, calls: Calls, following: int, ending: str) -> int:
    """Where an answer with calls has ended: after `ending`, unless it is "", or else a control token."""
    place = text.find(ending, calls.done, following) if ending else -1
    after = place if place >= 0 else calls.own
    return spelled.first_control(text, after, following) or after


def spoken_place(render: Render, text: str, messages: Sequence[Message], number: int, generation: bool) -> int:
    """Where an answer begins that consists of calls: where words would begin. Raises ValueError where there can be none."""
    words: Message = {"role": "assistant", "content": sentinel(number, "content")}
    return shared(text, render([*messages[:number], words, *messages[number + 1 :]], generation))


def _after_thoughts(render: Render, text: str, messages: Sequence[Message]) -> int:
    """Where calls begin that follow thoughts: what an answer in words has before it, they have, too."""
    *before, message = messages
    thoughts = sentinel(len(before), "reasoning")
    if thoughts not in text:
        return 0
    words: Message = {"role": "assistant", "content": sentinel(len(before), "content")}
    one, two = (render([*before, own], False) for own in (message, words | {"reasoning": message["reasoning"]}))
    after = shared(one, two) - one.find(thoughts) if thoughts in one else 0
    return text.index(thoughts) + max(after, len(thoughts))
