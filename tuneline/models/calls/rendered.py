"""Syntax of a chat template's tool calls, found by rendering calls with sentinels: nothing here goes by a model's name."""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import product
from typing import Any

from tuneline.models.calls.syntax import CallSyntax, arguments_of, call_of
from tuneline.models.template_slots import shared
from tuneline.models.untrusted.templates import apply_template

NAMES, VALUES = ("QxfirstxQ", "QxsecondxQ"), ("QvonevQ", "QvtwovQ")
KEYS = ("QkonekQ", "QktwokQ")
CONTENT = "QxcontentxQ"
PARAMETERS = {"type": "object", "properties": {"x": {"type": "string", "description": "x"}}, "required": ["x"]}
TOOLS = [{"type": "function", "function": {"name": "x", "description": "x", "parameters": PARAMETERS}}]


def template_syntax(renderer: Any) -> tuple[CallSyntax, str] | None:
    """(syntax, text that ends an answer of calls) of a template's renderer; None if it writes none."""
    for as_text, content in product((False, True), ("", None)):
        with suppress(ValueError):
            probe = _Probe(renderer, as_text, content)
            return probe.syntax(), probe.ending
    return None


class _Probe:
    """Answers that call one function and two, as a template writes them.

    Raises ValueError when it refuses them in this form, or leaves out a part.
    """

    def __init__(self, renderer: Any, as_text: bool, content: str | None) -> None:
        self.renderer, self.as_text = renderer, as_text
        prompt = self._rendered([], generation=True)
        text = self._rendered([self._answer(NAMES[:1], content)])
        if not text.startswith(prompt):
            # What stands between a content and a call has neither a role's name nor an empty thought.
            with suppress(ValueError):
                said = self._rendered([self._answer(NAMES[:1], CONTENT)])
                if said.index(CONTENT) < said.index(NAMES[0]):
                    prompt, text = said[: said.index(CONTENT) + len(CONTENT)], said
        same = text[: shared(prompt, text)]
        self.one = text[len(same if text.startswith(prompt) else _whole(same)) :]
        self.places = [_only(self.one, part) for part in (NAMES[0], *_alternating())]
        self.two = ""
        with suppress(ValueError):
            two = self._rendered([self._answer(NAMES, content)])
            _only(two, NAMES[1])
            self.two = two
        self.ending = self._ending(content)

    def syntax(self) -> CallSyntax:
        before, after = self.one[: self.places[0]], self.one[self.places[-1] + len(VALUES[1]) :]
        named = self._between(0)
        found = (
            self._object() or self._json(before, named) or self._quoted(before, named) or self._python(before, named)
        )
        if found:
            syntax, after = found
        else:
            key_opening = _suffix(named.removeprefix(self._after_name(named)), self._between(2))
            if not key_opening.strip():
                raise ValueError("no call that can be told from text")
            syntax = CallSyntax(
                "keyed", opening=before, named=named.removesuffix(key_opening), key_opening=key_opening,
                key_closing=self._between(1), value_closing=self._between(2).removesuffix(key_opening),
            )  # fmt: skip
            after = after[shared(syntax.value_closing, after) :]
        return self._divided(syntax, after)

    def _divided(self, syntax: CallSyntax, after: str) -> CallSyntax:
        """With what is before and after a call divided into what belongs to it, and what to the whole answer."""
        last = after[: after.index(self.ending)] if self.ending and self.ending in after else after
        if not self.two:
            return replace(syntax, closing=last)
        if syntax.kind == "object":
            (_, start), (end, _) = _objects(self.two, NAMES)
        else:
            start = self.two.index(VALUES[1]) + len(self.one) - self.places[-1] - len(after)
            end = self.two.index(NAMES[1], start)
        middle = self.two[start:end]
        opening = _suffix(syntax.opening, middle)
        rest = middle.removesuffix(opening) if opening else middle
        closing = rest[: shared(rest, last)]
        return replace(
            syntax, lead=syntax.opening.removesuffix(opening) if opening else syntax.opening, opening=opening,
            closing=closing, between=rest[len(closing) :], tail=last[len(closing) :],
        )  # fmt: skip

    def _object(self) -> tuple[CallSyntax, str] | None:
        with suppress(ValueError):
            ((start, end),) = _objects(self.one, NAMES[:1])
            if end > self.places[-1]:
                return CallSyntax("object", opening=self.one[:start]), self.one[end:]
        return None

    def _json(self, before: str, named: str) -> tuple[CallSyntax, str] | None:
        for mark in ('"', "{"):
            start = self.one.find(mark, self.places[0], self.places[1])
            if start < 0:
                continue
            with suppress(ValueError):
                found, end = json.JSONDecoder().raw_decode(self.one, start)
                if arguments_of(found) == dict(zip(KEYS, VALUES, strict=True)):
                    opening = self.one[self.places[0] + len(NAMES[0]) : start]
                    return CallSyntax("named", opening=before, named=opening), self.one[end:]
        return None

    def _quoted(self, before: str, named: str) -> tuple[CallSyntax, str] | None:
        quote = self._between(1).removeprefix(":").strip()
        if not named.endswith("{") or not self._between(1).startswith(":") or not quote:
            return None
        after = self.one[self.places[-1] + len(VALUES[1]) :]
        if not after.startswith(quote + "}"):
            return None
        syntax = CallSyntax("quoted", opening=before, named=named.removesuffix("{"), quote=quote)
        return syntax, after[len(quote) + 1 :]

    def _python(self, before: str, named: str) -> tuple[CallSyntax, str] | None:
        after = self.one[self.places[-1] + len(VALUES[1]) :]
        if not named.endswith("(") or self._between(1) not in ("='", '="') or after[1:2] != ")":
            return None
        return CallSyntax("python", opening=before, named=named), after[1:]

    def _between(self, number: int) -> str:
        parts = (NAMES[0], *_alternating())
        return self.one[self.places[number] + len(parts[number]) : self.places[number + 1]]

    def _after_name(self, named: str) -> str:
        """What follows a name, whether it has arguments or none."""
        text = self._rendered([self._answer(NAMES[:1], "", {})])
        return _whole(named[: shared(named, text[_only(text, NAMES[0]) + len(NAMES[0]) :])])

    def _answer(self, names: Sequence[str], content: str | None, values: Any = None) -> dict[str, Any]:
        values = dict(zip(KEYS, VALUES, strict=True)) if values is None else values
        values = json.dumps(values) if self.as_text else values
        return {"role": "assistant", "content": self._content(content), "tool_calls": [
            {"type": "function", "id": f"call{number:05}", "function": {"name": name, "arguments": values}}
            for number, name in enumerate(names)
        ]}  # fmt: skip

    def _ending(self, content: str | None) -> str:
        """The token that ends the answer where it is history: its first control token after the call."""
        answer = {"role": "tool", "content": self._content("x"), "name": NAMES[0], "tool_call_id": "call00000"}
        text = self.one
        with suppress(ValueError):
            text = self._rendered([self._answer(NAMES[:1], content), answer])
        after = text[text.index(VALUES[1]) + len(VALUES[1]) :]
        added = map(str, self.renderer.tokenizer.added_tokens_decoder.values())
        ends = {name: after.find(name) for name in added if name in after and name.strip() and not CALLING.search(name)}
        return min(ends, key=lambda name: ends[name]) if ends else ""

    def _rendered(self, answers: list[dict[str, Any]], generation: bool = False) -> str:
        asked = {"role": "user", "content": self._content("x")}
        return apply_template(
            self.renderer.tokenizer, self.renderer.template, [asked, *answers], tools=TOOLS, generation=generation,
            enable_thinking=False, thinking=False,
        )  # fmt: skip

    def _content(self, text: str | None) -> Any:
        return [{"type": "text", "text": text}] if self.renderer.in_parts and text is not None else text


CALLING = re.compile(r"^(?!.*(response|output|result)).*(tool|call|func|arg|param|python|escape|\|\"\|)", re.IGNORECASE)
"""Added tokens that are a part of calls, and end no answer."""


def _alternating() -> tuple[str, ...]:
    return tuple(part for pair in zip(KEYS, VALUES, strict=True) for part in pair)


def _only(text: str, part: str) -> int:
    """Where a sentinel stands. Raises ValueError where it does not stand once."""
    if text.count(part) != 1:
        raise ValueError(f"{part} stands there {text.count(part)} times")
    return text.index(part)


def _objects(text: str, names: Sequence[str]) -> list[tuple[int, int]]:
    """Begin and end of each call's JSON object. Raises ValueError where a call is none."""
    found = []
    for name in names:
        start = text.find("{")
        while start >= 0:
            with suppress(ValueError):
                value, end = json.JSONDecoder().raw_decode(text, start)
                if isinstance(value, dict) and (call := call_of(value)) and call[0] == name:
                    found.append((start, end))
                    break
            start = text.find("{", start + 1)
        else:
            raise ValueError("no object")
    return found


def _whole(text: str) -> str:
    """Without a tag that has only begun."""
    start = text.rfind("<")
    return text[:start] if start >= 0 and ">" not in text[start:] else text


def _suffix(one: str, other: str) -> str:
    """What both end with."""
    size = shared(one[::-1], other[::-1])
    return one[len(one) - size :]
