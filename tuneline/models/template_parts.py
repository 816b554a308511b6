"""Parts of a chat template: what it writes before, between and after the contents of a conversation of a given shape.

A conversation of the same roles is rendered with sentinels for contents; what stands between them is the template's. So each
position (first, middle, last turn), a default system prompt, and what becomes of earlier thoughts are as the template has them.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal, NamedTuple

from tuneline.formats.records import Message
from tuneline.models.control_tokens import SpelledTokenizer
from tuneline.models.template_render import TemplateRenderer, sentinel
from tuneline.models.template_slots import (
    LEFT,
    RIGHT,
    SENTINEL,
    Filling,
    MessageShape,
    Place,
    Slot,
    check_apart,
    check_slots,
    check_thoughts_first,
    shape_of,
    shared,
    slots_of,
    stand_ins,
)
from tuneline.models.template_tool_use.calls import Calls, Render, calls_end, find_calls, spoken_place
from tuneline.models.template_tool_use.support import ANSWERED, ASKED, CALLED, GIVEN, OBSERVED
from tuneline.models.template_tool_use.written import STAND_IN_TOOLS, CallSlot, ToolsSlot, WrittenTools, with_stand_ins
from tuneline.models.thoughts import CLOSE, OPEN


class Mark(NamedTuple):
    """A place in an answer: where it begins (thoughts included), where its content begins, where it has ended."""

    message: int
    kind: Literal["begin", "content", "end"]


OpenPlace = Slot | CallSlot | ToolsSlot
Piece = str | OpenPlace | Mark


class Parts(NamedTuple):
    """A conversation's text with its contents left open."""

    pieces: tuple[Piece, ...]
    rendered: tuple[Piece, ...]
    """What the template itself gives: `pieces`, but where it drops the thoughts of the last answer, or ends no answer."""

    def text(self, filling: Filling) -> str:
        """What the template gives for these contents."""
        return "".join(
            piece if isinstance(piece, str) else piece.filled(filling)
            for piece in self.rendered
            if not isinstance(piece, Mark)
        )


class TemplateParts:
    """Finds the parts of a template by rendering it."""

    def __init__(self, renderer: TemplateRenderer, spelled: SpelledTokenizer) -> None:
        self.renderer, self.spelled = renderer, spelled
        self.ending, self.appended = "", ""
        """The control token that ends a last answer; the same where the template does not write it."""
        self.calls_ending = ""
        """The control token that ends an answer with calls; "" where there can be none."""
        self._found: dict[Any, Parts] = {}
        self._opened: dict[int, tuple[Parts, Parts | None]] = {}
        self.written = WrittenTools(renderer.render, spelled.known_names)

    def open(
        self, messages: Sequence[Message], generation: bool, thinking: bool, tools: Any
    ) -> tuple[Parts, Filling] | None:
        """Parts with calls and definitions left open, and what fills them; None where there are none, or that can't be told."""
        if not tools and not any("tool_calls" in message for message in messages):
            return None
        filling = self.written.filling(messages, tools)
        if filling is None:
            return None
        found = self.of(with_stand_ins(messages), generation, thinking, STAND_IN_TOOLS if tools else None)
        # Those that were found are remembered as long as they are.
        if id(found) not in self._opened or self._opened[id(found)][0] is not found:
            pieces, rendered = (self.written.opened(own, messages, tools) for own in found)
            self._opened[id(found)] = (found, None if pieces is None or rendered is None else Parts(pieces, rendered))
        opened = self._opened[id(found)][1]
        return None if opened is None else (opened, filling)

    def of(self, messages: Sequence[Message], generation: bool, thinking: bool, tools: Any = None) -> Parts:
        """Parts for conversations of this shape. Raises ValueError saying what the template does that is not followed."""
        shapes = tuple(map(shape_of, messages))
        key = (shapes, generation, thinking, json.dumps(tools) if tools else "")
        if key not in self._found:
            if len(self._found) > 2000:
                self._found.clear()
                self._opened.clear()
            self._found[key] = self._find(shapes, generation, thinking, tools)
        return self._found[key]

    def set_ending(self, token: str, *, written: bool) -> None:
        """Say which token ends a last answer, and whether the template writes it."""
        self.ending, self.appended = token, "" if written else token
        self._found.clear()

    def find_calls_ending(self) -> None:
        """See which token ends an answer with calls, where the template has such."""
        if self.renderer.tools.shows_calls:
            messages = [ASKED, CALLED, GIVEN, ANSWERED]
            text = self.renderer.render(messages)
            calls = find_calls(self.renderer.render, self.spelled, text, messages, 1, False)
            ending = "" if self.appended else self.ending
            end = calls_end(self.spelled, text, calls, text.index(OBSERVED), ending)
            self.calls_ending = (self.spelled.names(text[:end]) or [self.ending])[-1]
        self._found.clear()

    def _find(self, shapes: Sequence[MessageShape], generation: bool, thinking: bool, tools: Any) -> Parts:
        messages = stand_ins(shapes)
        text = self.renderer.render(messages, generation, thinking, tools)
        padded = self.renderer.render(stand_ins(shapes, LEFT, RIGHT), generation, thinking, tools)
        slots = slots_of(text, padded)
        check_slots(slots, shapes)
        render: Render = partial(self.renderer.render, thinking=thinking, tools=tools)
        calls = {
            number: find_calls(render, self.spelled, text, messages, number, generation)
            for number, shape in enumerate(shapes)
            if shape.calls
        }
        marks = [
            mark
            for number, shape in enumerate(shapes)
            if shape.role == "assistant" and (generation or number + 1 < len(shapes))
            for mark in self._marks(
                text, slots, number, self._begin(text, slots, messages, number, render, generation), calls.get(number)
            )
        ]
        rendered = _cut(text, slots, marks)
        if generation:
            return Parts(rendered, rendered)
        last = len(shapes) - 1
        prompt = self.renderer.render(messages[:-1], True, thinking, tools)
        place = self._answer_place(text, slots, last, prompt)
        opened = prompt[place:] if prompt.startswith(text[:place]) else ""
        if not text.startswith(prompt) and OPEN.strip() not in opened:
            raise ValueError(
                f"the base's chat template writes {text[:place][-40:]!r} before an answer and asks for one with "
                f"{prompt[-40:]!r}: training and generation would not see the same prompt"
            )
        return Parts(self._last(text, slots, marks, messages, prompt, place, calls.get(last)), rendered)

    def _last(self, text: str, slots: list[Place], marks: list[tuple[int, Mark]], messages: list[Message],
              prompt: str, place: int, calls: Calls | None) -> tuple[Piece, ...]:  # fmt: skip
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
            if calls:
                calls = Calls(place + moved, calls.done + moved, calls.own + moved)
        text += (self.calls_ending or self.appended) if self.appended and calls else self.appended
        return _cut(text, slots, [*marks, *self._marks(text, slots, last, begin, calls)])

    def _answer_place(self, text: str, slots: list[Place], number: int, prompt: str) -> int:
        """Where the content of an answer stands, or would stand if it were not empty."""
        for start, _, slot in slots:
            if slot.message == number and slot.field == "content":
                return start
        longest = shared(prompt, text)
        inside = self.spelled.inside_control(text, longest)
        return longest if inside is None else inside

    def _begin(
        self, text: str, slots: list[Place], messages: list[Message], number: int, render: Render, generation: bool
    ) -> int:
        """Where an answer of history begins: after what asks for one, or where its first text stands."""
        asked = max((end for _, end, slot in slots if slot.message < number), default=0)
        prompts = []
        for thinking in (True, False):
            with suppress(ValueError):
                prompts.append(SENTINEL.split(render(messages[:number], True, thinking=thinking))[-1])
        # An empty thought that is written down was not thought.
        if begins := [len(prompt) for prompt in prompts if text.startswith(prompt, asked)]:
            return asked + max(begins)
        first = min((start for start, _, slot in slots if slot.message == number), default=None)
        if first is not None:
            return first
        if messages[number].get("tool_calls"):
            with suppress(ValueError):
                return max(asked, spoken_place(render, text, messages, number, generation))
        place = asked + max((shared(prompt, text[asked:]) for prompt in prompts), default=0)
        inside = self.spelled.inside_control(text, place)
        return place if inside is None else inside

    def _marks(
        self, text: str, slots: list[Place], number: int, begin: int, calls: Calls | None
    ) -> Iterator[tuple[int, Mark]]:
        """Marks of an answer with their places."""
        content = next((one for one in slots if one[2].message == number and one[2].field == "content"), None)
        after = max([begin, calls.done if calls else 0, *(end for _, end, slot in slots if slot.message == number)])
        following = min((start for start, _, slot in slots if start > after), default=len(text))
        if calls:
            check_thoughts_first(slots, number, calls.done)
            yield begin, Mark(number, "begin")
            # Some templates write words behind the calls that they stand before.
            first = content[0] if content and content[0] < calls.done else calls.start
            yield max(begin, first), Mark(number, "content")
            yield (
                calls_end(self.spelled, text, calls, following, "" if self.appended else self.ending),
                Mark(number, "end"),
            )
            return
        if not content and (place := text.find(self.ending, after, following)) >= 0:
            after = place
        yield begin, Mark(number, "begin")
        yield max(begin, content[0] if content else after), Mark(number, "content")
        yield self.spelled.first_control(text, after, following) or after, Mark(number, "end")


def _cut(text: str, slots: list[Place], marks: Sequence[tuple[int, Mark]]) -> tuple[Piece, ...]:
    """The text in pieces: what the template writes, slots and marks. Raises ValueError as `check_apart` does."""
    check_apart(slots, {(mark.message, mark.kind): place for place, mark in marks})
    places: list[tuple[int, int, int, Piece]] = [(start, 1, end, slot) for start, end, slot in slots]
    places += [(place, 0, place, mark) for place, mark in marks]
    pieces: list[Piece] = []
    done = 0
    for start, _, end, piece in sorted(places, key=lambda one: one[:2]):
        pieces += [text[done:start]] if start > done else []
        pieces.append(piece)
        done = max(done, end)
    return tuple(pieces + ([text[done:]] if text[done:] else []))
