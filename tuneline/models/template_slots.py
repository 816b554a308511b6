"""Slots of a chat template: where it puts the contents of a conversation of a given shape, and what it does to them.

Found by rendering sentinels for contents, bare and with white space around them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from tuneline.formats.records import Message
from tuneline.models.template_render import sentinel

Field = Literal["content", "reasoning"]
SENTINEL = re.compile(r"Qx(\d{3})([cr])xQ")
FIELDS: dict[str, Field] = {"c": "content", "r": "reasoning"}
LEFT, RIGHT = "\n\v\n", "\n\f\n"
"""White space by which it is found what a template strips."""
STRIPPED: tuple[tuple[str | None, str, str], ...] = (("", LEFT, RIGHT), ("\n", "\v\n", "\n\f"), (None, "", ""))
"""Characters that are stripped (None is white space), and what is left of LEFT and RIGHT then."""
QUOTED = "quoted"
"""In place of characters: the text is written as JSON."""


class MessageShape(NamedTuple):
    role: str
    reasons: bool
    """Whether it has thoughts."""
    empty: bool
    """Whether its content is empty, which templates treat apart."""
    calls: str = ""
    """The calls in it, in JSON."""


class Filling(NamedTuple):
    """What the places left open in a conversation are filled with."""

    messages: Sequence[Message]
    calls: Mapping[tuple[int, int], str]
    """By message and number, what the template writes of a call."""
    tools: str
    """What it writes of all definitions."""


class Slot(NamedTuple):
    """The place of a content."""

    message: int
    field: Field
    left: str | None
    """Characters that the template strips, as str.lstrip takes them; empty is none."""
    right: str | None
    quoted: bool = False
    """Whether it is written as JSON, in quotes."""

    def filled(self, filling: Filling) -> str:
        message = filling.messages[self.message]
        text = message["content"] if self.field == "content" else message["reasoning"]
        if self.quoted:
            return _quoted(text)
        text = text if self.left == "" else text.lstrip(self.left)
        return text if self.right == "" else text.rstrip(self.right)


Place = tuple[int, int, Slot]
"""Begin and end of a sentinel in a rendered text, and its slot."""


def shape_of(message: Message) -> MessageShape:
    calls = message.get("tool_calls")
    return MessageShape(
        message["role"], bool(message.get("reasoning")), not message["content"], json.dumps(calls) if calls else ""
    )


def stand_ins(shapes: Sequence[MessageShape], left: str = "", right: str = "") -> list[Message]:
    """Messages with sentinels for contents."""
    messages: list[Message] = []
    for number, shape in enumerate(shapes):
        content = "" if shape.empty else f"{left}{sentinel(number, 'content')}{right}"
        message: Message = {"role": shape.role, "content": content}  # type: ignore[typeddict-item]
        if shape.reasons:
            message["reasoning"] = f"{left}{sentinel(number, 'reasoning')}{right}"
        if shape.calls:
            message["tool_calls"] = json.loads(shape.calls)
        messages.append(message)
    return messages


def slots_of(text: str, padded: str) -> list[Place]:
    """Every sentinel of the text, with what the template strips of a content there."""
    found = list(SENTINEL.finditer(text))
    between = SENTINEL.split(text)[::3]
    around = SENTINEL.split(padded)[::3]
    left: list[str | None] = [""] * len(found)
    right: list[str | None] = [""] * len(found)
    ways = (*STRIPPED, (QUOTED, _quoted(LEFT), _quoted(RIGHT)))
    if len(around) == len(between):
        for number, (plain, wide) in enumerate(zip(between, around, strict=True)):
            rights = ways if number else STRIPPED[-1:]
            lefts = ways if number < len(found) else STRIPPED[-1:]
            for characters, _, before in rights:
                for stripped, after, _ in lefts:
                    if wide == before + plain + after:
                        if number:
                            right[number - 1] = characters
                        if number < len(found):
                            left[number] = stripped
    return [
        (match.start(), match.end(), _slot(match, left[number], right[number])) for number, match in enumerate(found)
    ]


def _slot(match: re.Match[str], left: str | None, right: str | None) -> Slot:
    if left == right == QUOTED:
        return Slot(int(match[1]), FIELDS[match[2]], "", "", quoted=True)
    return Slot(int(match[1]), FIELDS[match[2]], left, right)


def check_slots(slots: list[Place], shapes: Sequence[MessageShape]) -> None:
    """Raises ValueError when a content is left out, or an answer is written twice."""
    counts = [sum(slot.message == n and slot.field == "content" for _, _, slot in slots) for n in range(len(shapes))]
    for number, (count, shape) in enumerate(zip(counts, shapes, strict=True)):
        if not count and not shape.empty:
            beside = ", which says something beside its calls: leave the words out of the data" if shape.calls else ""
            raise ValueError(f"the base's chat template leaves out message {number}, of role {shape.role!r}{beside}")
        if count > 1 and shape.role == "assistant":
            raise ValueError(f"the base's chat template writes message {number}, an answer, {count} times")


def check_apart(slots: Sequence[Place], edges: Mapping[tuple[int, str], int]) -> None:
    """Raises ValueError where another message lies within an answer, and would be learnt with it.

    `edges` are the places where answers begin and end.
    """
    begins = [number for number, kind in edges if kind == "begin"]
    for start, _, slot in slots:
        for number in begins:
            if slot.message != number and edges[number, "begin"] <= start < edges[number, "end"]:
                raise ValueError(
                    f"the base's chat template writes message {slot.message} within message {number}, an answer that says or "
                    "thinks something beside its calls: leave that out of the data"
                )


def check_thoughts_first(slots: Sequence[Place], number: int, done: int) -> None:
    """Raises ValueError where the thoughts of message `number` stand behind its calls, which are `done` before them."""
    if any(slot.message == number and slot.field == "reasoning" and start > done for start, _, slot in slots):
        raise ValueError(
            f"the base's chat template writes the thoughts of message {number} behind its calls: leave them out "
            "(tokenize.reasoning: drop in params.yaml)"
        )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def shared(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Length of what two sequences begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
