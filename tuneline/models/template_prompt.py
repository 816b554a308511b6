"""Prompts by a checkpoint's own chat template: the ids that `apply_chat_template` gives, but no text forges a turn.

The template's parts are placed around the contents, and the whole is encoded at once by a tokenizer that knows control tokens
by random spellings alone. Each conversation is rendered by the template as well, and must come to the same text: what it
does to a content that is not followed here is an error that says so, never another prompt.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from tuneline.formats.example import IGNORE_INDEX, Encoded
from tuneline.formats.records import Message
from tuneline.models.chat_format import Mask, Prompter, Reasoning, Tools, as_list, check_asks, check_roles
from tuneline.models.control_tokens import SpelledTokenizer, control_names, without_control_tokens
from tuneline.models.template_parts import Mark, OpenPlace, Piece, TemplateParts
from tuneline.models.template_render import TemplateRenderer
from tuneline.models.template_slots import Filling, Slot, shared
from tuneline.models.thoughts import ThoughtMarks


class MarkedText(NamedTuple):
    """The spelled text of a conversation, and where its marks are."""

    text: str
    marks: list[tuple[Mark, int]]
    unlearnt: frozenset[int] = frozenset()
    """Numbers of messages that carry no loss."""


class TemplatePrompter(Prompter):
    """Encodes messages as the tokenizer's own chat template has them.

    Raises ValueError saying what the template does, where that is not followed.
    """

    name = "own"
    renderer: TemplateRenderer
    parts: TemplateParts

    def __init__(self, tokenizer: Any) -> None:
        self.renderer = TemplateRenderer(tokenizer)
        names = control_names(tokenizer, self.renderer)
        self.plain = without_control_tokens(tokenizer, names)
        self.spelled = SpelledTokenizer(tokenizer, names)
        self.parts = TemplateParts(self.renderer, self.spelled)
        self.control = self.spelled.control
        ending = self._ending(tokenizer)
        self.parts.find_calls_ending()
        endings = {ending, self.parts.calls_ending or ending}
        self.stop_ids = sorted({*as_list(tokenizer.eos_token_id), *map(tokenizer.convert_tokens_to_ids, endings)})
        self.thought_marks = self._thought_marks()

    def opens_thoughts(self, thinking: bool) -> bool:
        asked = self.renderer.render([{"role": "user", "content": "x"}], True, thinking)
        return asked.rstrip().endswith(self.thought_marks.open)

    def _thought_marks(self) -> ThoughtMarks:
        asked: Message = {"role": "user", "content": "x"}
        plain = self.parts.of([asked, {"role": "assistant", "content": "x"}], False, False).pieces
        thinking = self.parts.of([asked, {"role": "assistant", "content": "x", "reasoning": "x"}], False, True).pieces
        begin, thought, content = (_place(thinking, kind) for kind in ("begin", "reasoning", "content"))
        opening = _text(thinking[begin:thought]).strip()
        if not opening:
            # The generation prompt has it.
            words = self.spelled.after_controls(_text(thinking[:thought])).split()
            opening = words[-1] if words else ThoughtMarks().open
        closing = _text(thinking[thought:content]).strip()
        lead = _text(plain[_place(plain, "begin") : _place(plain, "content")])
        self.lead, head = self.spelled.encode_after(self.spelled.cut, self.spelled.spell(lead)), lead.strip()
        return ThoughtMarks(opening, closing, head, tuple(dict.fromkeys(self.spelled.names(opening + closing + head))))

    def _ending(self, tokenizer: Any) -> str:
        """The control token that ends an answer; where the template writes none after the last one, it is written there."""
        messages: list[Message] = [
            {"role": "user" if number % 2 == 0 else "assistant", "content": f"x{number}"} for number in range(4)
        ]
        pieces = self.parts.of(messages, False, False).pieces
        answer = pieces.index(next(p for p in pieces if isinstance(p, Slot) and p.message == 3))
        between = pieces.index(next(p for p in pieces if isinstance(p, Slot) and p.message == 1))
        for start in (answer, between):
            for piece in pieces[start + 1 :]:
                if isinstance(piece, Slot):
                    break
                if isinstance(piece, str) and (found := self.spelled.names(piece)):
                    self.parts.set_ending(found[0], written=start == answer)
                    return found[0]
        if tokenizer.eos_token is None:
            raise ValueError(
                "the base's chat template ends an answer with no token, and its tokenizer has no eos_token"
            )
        self.parts.set_ending(tokenizer.eos_token, written=False)
        return str(tokenizer.eos_token)

    def generation_prompt(
        self, messages: Sequence[Message], thinking: bool = False, tools: Tools | None = None
    ) -> list[int]:
        check_asks(messages)
        marked = self._marked(messages, True, thinking, tools)
        (ids,) = self.spelled.encode([marked.text])
        return self._located(marked, ids)[0]

    def uncut(
        self, messages: Sequence[Message], generation: bool, thinking: bool, tools: Tools | None = None
    ) -> list[int]:
        """Ids as they are when the text of answers is not encoded apart from the prompt before it."""
        return self.spelled.encode([self._marked(messages, generation, thinking, tools).text])[0]

    def encode(self, conversations: Sequence[Sequence[Message]], tools: Sequence[Tools | None] | None = None) -> Any:
        for messages in conversations:
            if not messages or messages[-1]["role"] != "assistant":
                raise ValueError("a training row ends with an assistant's message")
        each = tools or [None] * len(conversations)
        marked = [self._marked(messages, False, tools=own) for messages, own in zip(conversations, each, strict=True)]
        return marked, self.spelled.encode([one.text for one in marked])

    def rows(self, encoded: Any, mask: Mask, reasoning: Reasoning = "learn") -> list[Encoded]:
        rows = [self._row(one, ids, mask, reasoning) for one, ids in zip(*encoded, strict=True)]
        if any(row.labels.count(IGNORE_INDEX) == len(row.labels) for row in rows):
            raise ValueError("no token of the row carries loss")
        return rows

    def _row(self, marked: MarkedText, ids: list[int], mask: Mask, reasoning: Reasoning) -> Encoded:
        ids, places = self._located(marked, ids)
        labels = [IGNORE_INDEX] * len(ids)
        last = max(mark.message for mark, _ in marked.marks)
        for number in {mark.message for mark, _ in marked.marks}:
            if number not in marked.unlearnt and (mask == "all_answers" or number == last):
                begin = places[number, "begin" if reasoning == "learn" else "content"]
                labels[begin : places[number, "end"]] = ids[begin : places[number, "end"]]
        return Encoded(ids, labels)

    def _marked(
        self, messages: Sequence[Message], generation: bool, thinking: bool = False, tools: Tools | None = None
    ) -> MarkedText:
        """Raises ValueError when the template renders another text than its parts with these contents are."""
        check_roles(messages)
        self.renderer.tools.check(messages, tools)
        arranged = self._guarded(self.renderer.arranged(messages))
        tools = self.spelled.guarded(list(tools)) if tools else None
        thinking = thinking if generation else "reasoning" in arranged[-1]
        rendered = self.renderer.render(arranged, generation, thinking, tools)
        opened = self.parts.open(arranged, generation, thinking, tools)
        if opened and opened[0].text(opened[1]) == rendered:
            parts, filling = opened
        else:
            parts, filling = self.parts.of(arranged, generation, thinking, tools), Filling(arranged, {}, "")
        if parts.text(filling) != rendered:
            # A content of white space alone may be none, for the template.
            arranged = [m if m["content"].strip() else {**m, "content": ""} for m in arranged]
            parts = self.parts.of(arranged, generation, thinking, tools)
            filling = Filling(arranged, {}, "")
            _check(parts.text(filling), rendered)
        text, marks, size = [], [], 0
        for piece in parts.pieces:
            if isinstance(piece, Mark):
                marks.append((piece, size))
            else:
                text.append(self._spelled(piece, filling))
                size += len(text[-1])
        unlearnt = frozenset(number for number, message in enumerate(arranged) if not message.get("learn", True))
        return MarkedText("".join(text), marks, unlearnt)

    def _spelled(self, piece: str | OpenPlace, filling: Filling) -> str:
        """A piece's text with the control tokens that are the template's."""
        if isinstance(piece, str):
            return self.spelled.spell(piece)
        text = piece.filled(filling)
        return text if isinstance(piece, Slot) else self.spelled.spell(text, remember=False)

    def _guarded(self, messages: list[Message]) -> list[Message]:
        """The messages with calls in which no control token is written, which else the template would write."""
        return [
            {**message, "tool_calls": self.spelled.guarded(message["tool_calls"])}
            if "tool_calls" in message
            else message
            for message in messages
        ]

    def _located(self, marked: MarkedText, ids: list[int]) -> tuple[list[int], dict[tuple[int, str], int]]:
        """(ids, place of each mark in them). Where a token would reach into an answer, the text is encoded in two there."""
        controls = self.spelled.controls(marked.text)
        at = [place for place, token in enumerate(ids) if token in self.control]
        assert len(at) == len(controls), "a text has become a control token"
        places: dict[tuple[int, str], int] = {}
        cuts = []
        number = 0
        for mark, offset in marked.marks:
            while number < len(controls) and controls[number][1] <= offset:
                number += 1
            begin = controls[number - 1][1] if number else 0
            token = marked.text[slice(*controls[number - 1])] if number else ""
            place = at[number - 1] + 1 if number else 0
            lead = self._lead(token, marked.text[begin:offset]) if offset > begin else []
            same = shared(lead, ids[place : place + len(lead)])
            if same < len(lead) and mark.kind == "begin":
                cuts.append(offset)
            places[mark.message, mark.kind] = place + same
        return self._in_pieces(marked, cuts) if cuts else (ids, places)

    def _lead(self, token: str, text: str) -> list[int]:
        return self.spelled.encode_after(token, text) if token else self.spelled.encode([text])[0]

    def _in_pieces(self, marked: MarkedText, cuts: list[int]) -> tuple[list[int], dict[tuple[int, str], int]]:
        """The same with the text encoded apart at some of its marks."""
        ids: list[int] = []
        places: dict[tuple[int, str], int] = {}
        bounds = [0, *sorted(set(cuts)), len(marked.text)]
        for start, end in pairwise(bounds):
            inside = [(mark, offset - start) for mark, offset in marked.marks if start <= offset < end]
            text = marked.text[start:end]
            piece = self.spelled.encode_after(self.spelled.cut, text) if start else self.spelled.encode([text])[0]
            piece, found = self._located(MarkedText(text, inside), piece)
            places |= {key: len(ids) + place for key, place in found.items()}
            ids += piece
        places |= {(m.message, m.kind): len(ids) for m, offset in marked.marks if offset == len(marked.text)}
        return ids, places


def _check(ours: str, theirs: str) -> None:
    """Raises ValueError when the template renders another text than its parts with the contents are."""
    if ours != theirs:
        place = shared(ours, theirs)
        raise ValueError(
            f"the base's chat template does something of its own to this content: it writes {theirs[place:][:40]!r} "
            f"where {ours[place:][:40]!r} was expected"
        )


def _text(pieces: Sequence[Piece]) -> str:
    """What the template writes itself."""
    return "".join(piece for piece in pieces if isinstance(piece, str))


def _place(pieces: Sequence[Piece], kind: str) -> int:
    """Of the mark where the answer begins, or of its thoughts or content."""
    return next(
        number
        for number, piece in enumerate(pieces)
        if isinstance(piece, Slot | Mark)
        and piece.message == 1
        and kind == (piece.field if isinstance(piece, Slot) else piece.kind if piece.kind == "begin" else "")
    )
