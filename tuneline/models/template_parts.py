"""Parts of a chat template: what it writes before, between and after the contents of a conversation of a given shape.

A conversation of the same roles is rendered with sentinels for contents; what stands between them is the template's. So each
position (first, middle, last turn), a default system prompt, and what becomes of earlier thoughts are as the template has them.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple

from tuneline.formats.records import Message
from tuneline.models.control_tokens import SpelledTokenizer
from tuneline.models.template_render import TemplateRenderer, sentinel
from tuneline.models.thoughts import CLOSE, OPEN

Field = Literal["content", "reasoning"]
SENTINEL = re.compile(r"Qx(\d{3})([cr])xQ")
FIELDS: dict[str, Field] = {"c": "content", "r": "reasoning"}
LEFT, RIGHT = "\n\v\n", "\n\f\n"
"""White space by which it is found what a template strips."""
STRIPPED: tuple[tuple[str | None, str, str], ...] = (("", LEFT, RIGHT), ("\n", "\v\n", "\n\f"), (None, "", ""))
"""Characters that are stripped (None is white space), and what is left of LEFT and RIGHT then."""


class MessageShape(NamedTuple):
    role: str
    reasons: bool
    """Whether it has thoughts."""
    empty: bool
    """Whether its content is empty, which templates treat apart."""


class Slot(NamedTuple):
    """The place of a content."""

    message: int
    field: Field
    left: str | None
    """Characters that the template strips, as str.lstrip takes them; empty is none."""
    right: str | None

    def filled(self, messages: Sequence[Message]) -> str:
        message = messages[self.message]
        text = message["content"] if self.field == "content" else message["reasoning"]
        text = text if self.left == "" else text.lstrip(self.left)
        return text if self.right == "" else text.rstrip(self.right)


class Mark(NamedTuple):
    """A place in an answer: where it begins (thoughts included), where its content begins, where it has ended."""

    message: int
    kind: Literal["begin", "content", "end"]


Piece = str | Slot | Mark


class Parts(NamedTuple):
    """A conversation's text with its contents left open."""

    pieces: tuple[Piece, ...]
    rendered: tuple[Piece, ...]
    """What the template itself gives: `pieces`, but where it drops the thoughts of the last answer, or ends no answer."""

    def text(self, messages: Sequence[Message]) -> str:
        """What the template gives for these contents."""
        return "".join(
            piece if isinstance(piece, str) else piece.filled(messages)
            for piece in self.rendered
            if not isinstance(piece, Mark)
        )


class TemplateParts:
    """Finds the parts of a template by rendering it."""

    def __init__(self, renderer: TemplateRenderer, spelled: SpelledTokenizer) -> None:
        self.renderer, self.spelled = renderer, spelled
        self.ending, self.appended = "", ""
        """The control token that ends a last answer; the same where the template does not write it."""
        self._found: dict[Any, Parts] = {}

    def of(self, messages: Sequence[Message], generation: bool, thinking: bool) -> Parts:
        """Parts for conversations of this shape. Raises ValueError saying what the template does that is not followed."""
        shapes = tuple(MessageShape(m["role"], bool(m.get("reasoning")), not m["content"]) for m in messages)
        key = (shapes, generation, thinking)
        if key not in self._found:
            if len(self._found) > 2000:
                self._found.clear()
            self._found[key] = self._find(shapes, generation, thinking)
        return self._found[key]

    def set_ending(self, token: str, *, written: bool) -> None:
        """Say which token ends a last answer, and whether the template writes it."""
        self.ending, self.appended = token, "" if written else token
        self._found.clear()

    def _find(self, shapes: Sequence[MessageShape], generation: bool, thinking: bool) -> Parts:
        messages = _stand_ins(shapes)
        text = self.renderer.render(messages, generation, thinking)
        padded = self.renderer.render(_stand_ins(shapes, LEFT, RIGHT), generation, thinking)
        slots = _slots(text, padded)
        _check(slots, shapes)
        marks = [
            mark
            for number, shape in enumerate(shapes)
            if shape.role == "assistant" and (generation or number + 1 < len(shapes))
            for mark in self._marks(text, slots, number, self._begin(text, slots, messages, number))
        ]
        rendered = _cut(text, slots, marks)
        if generation:
            return Parts(rendered, rendered)
        last = len(shapes) - 1
        prompt = self.renderer.render(messages[:-1], True, thinking)
        place = self._answer_place(text, slots, last, prompt)
        opened = prompt[place:] if prompt.startswith(text[:place]) else ""
        if not text.startswith(prompt) and OPEN.strip() not in opened:
            raise ValueError(
                f"the base's chat template writes {text[:place][-40:]!r} before an answer and asks for one with "
                f"{prompt[-40:]!r}: training and generation would not see the same prompt"
            )
        return Parts(self._last(text, slots, marks, messages, prompt, place), rendered)

    def _last(self, text: str, slots: "list[Place]", marks: "list[tuple[int, Mark]]", messages: list[Message],
              prompt: str, place: int) -> tuple[Piece, ...]:  # fmt: skip
        """Pieces with the last answer after the generation prompt, its thoughts written out, and ended by a control token."""
        last = len(messages) - 1
        reasons = "reasoning" in messages[-1]
        dropped = reasons and not any(slot.message == last and slot.field == "reasoning" for _, _, slot in slots)
        begin = len(prompt)
        if dropped or not text.startswith(prompt):
            # The template forgets thoughts that its generation prompt asks for: they are closed by hand.
            before = (prompt[place:] or OPEN) if reasons else prompt[place:]
            thoughts = sentinel(last, "reasoning") if reasons else ""
            moved = len(before) + len(thoughts) + len(CLOSE)
            slots = [(at + moved, end + moved, slot) if at >= place else (at, end, slot) for at, end, slot in slots]
            if reasons:
                start = place + len(before)
                slots = sorted([*slots, (start, start + len(thoughts), Slot(last, "reasoning", "", ""))])
            text = text[:place] + before + thoughts + CLOSE + text[place:]
        return _cut(text + self.appended, slots, [*marks, *self._marks(text + self.appended, slots, last, begin)])

    def _answer_place(self, text: str, slots: "list[Place]", number: int, prompt: str) -> int:
        """Where the content of an answer stands, or would stand if it were not empty."""
        for start, _, slot in slots:
            if slot.message == number and slot.field == "content":
                return start
        longest = shared(prompt, text)
        inside = self.spelled.inside_control(text, longest)
        return longest if inside is None else inside

    def _begin(self, text: str, slots: "list[Place]", messages: list[Message], number: int) -> int:
        """Where an answer of history begins: after what asks for one, or where its first text stands."""
        asked = max((end for _, end, slot in slots if slot.message < number), default=0)
        prompts = []
        for thinking in (True, False):
            with suppress(ValueError):
                prompts.append(SENTINEL.split(self.renderer.render(messages[:number], True, thinking))[-1])
        # An empty thought that is written down was not thought.
        if begins := [len(prompt) for prompt in prompts if text.startswith(prompt, asked)]:
            return asked + max(begins)
        first = min((start for start, _, slot in slots if slot.message == number), default=None)
        if first is not None:
            return first
        place = asked + max((shared(prompt, text[asked:]) for prompt in prompts), default=0)
        inside = self.spelled.inside_control(text, place)
        return place if inside is None else inside

    def _marks(self, text: str, slots: "list[Place]", number: int, begin: int) -> Iterator[tuple[int, Mark]]:
        """Marks of an answer with their places."""
        content = next((one for one in slots if one[2].message == number and one[2].field == "content"), None)
        after = max([begin, *(end for _, end, slot in slots if slot.message == number)])
        following = min((start for start, _, slot in slots if start > after), default=len(text))
        if not content and (place := text.find(self.ending, after, following)) >= 0:
            after = place
        yield begin, Mark(number, "begin")
        yield max(begin, content[0] if content else after), Mark(number, "content")
        yield self.spelled.first_control(text, after, following) or after, Mark(number, "end")


Place = tuple[int, int, Slot]
"""Begin and end of a sentinel in a rendered text, and its slot."""


def _stand_ins(shapes: Sequence[MessageShape], left: str = "", right: str = "") -> list[Message]:
    """Messages with sentinels for contents."""
    messages: list[Message] = []
    for number, shape in enumerate(shapes):
        content = "" if shape.empty else f"{left}{sentinel(number, 'content')}{right}"
        message: Message = {"role": shape.role, "content": content}  # type: ignore[typeddict-item]
        if shape.reasons:
            message["reasoning"] = f"{left}{sentinel(number, 'reasoning')}{right}"
        messages.append(message)
    return messages


def _slots(text: str, padded: str) -> list[Place]:
    """Every sentinel of the text, with what the template strips of a content there."""
    found = list(SENTINEL.finditer(text))
    between = SENTINEL.split(text)[::3]
    around = SENTINEL.split(padded)[::3]
    left: list[str | None] = [""] * len(found)
    right: list[str | None] = [""] * len(found)
    if len(around) == len(between):
        for number, (plain, wide) in enumerate(zip(between, around, strict=True)):
            rights = STRIPPED if number else STRIPPED[-1:]
            lefts = STRIPPED if number < len(found) else STRIPPED[-1:]
            for characters, _, before in rights:
                for stripped, after, _ in lefts:
                    if wide == before + plain + after:
                        if number:
                            right[number - 1] = characters
                        if number < len(found):
                            left[number] = stripped
    return [
        (match.start(), match.end(), Slot(int(match[1]), FIELDS[match[2]], left[number], right[number]))
        for number, match in enumerate(found)
    ]


def _check(slots: list[Place], shapes: Sequence[MessageShape]) -> None:
    """Raises ValueError when a content is left out, or an answer is written twice."""
    counts = [sum(slot.message == n and slot.field == "content" for _, _, slot in slots) for n in range(len(shapes))]
    for number, (count, shape) in enumerate(zip(counts, shapes, strict=True)):
        if not count and not shape.empty:
            raise ValueError(f"the base's chat template leaves out message {number}, of role {shape.role!r}")
        if count > 1 and shape.role == "assistant":
            raise ValueError(f"the base's chat template writes message {number}, an answer, {count} times")


def _cut(text: str, slots: list[Place], marks: Sequence[tuple[int, Mark]]) -> tuple[Piece, ...]:
    """The text in pieces: what the template writes, slots and marks."""
    places: list[tuple[int, int, int, Piece]] = [(start, 1, end, slot) for start, end, slot in slots]
    places += [(place, 0, place, mark) for place, mark in marks]
    pieces: list[Piece] = []
    done = 0
    for start, _, end, piece in sorted(places, key=lambda one: one[:2]):
        pieces += [text[done:start]] if start > done else []
        pieces.append(piece)
        done = max(done, end)
    return tuple(pieces + ([text[done:]] if text[done:] else []))


def shared(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Length of what two sequences begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
