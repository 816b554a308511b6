"""Tool calls in what a model has written: the inverse of what its chat template writes for them. No call is ever run.

White space around the pieces of a call may be missing or more than the template's. A call that can't be read stays in the text,
and is named among the faults.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import orjson

from tuneline.formats.records import ToolCall
from tuneline.models.calls.python_calls import literal_value, parse_call
from tuneline.models.calls.syntax import CallSyntax, arguments_of, call_of

NAME = r"(?P<name>[^\s\"'<>{}()\[\]|,]+)"
TEXTS = {"True": True, "False": False, "None": None}
"""Values as Jinja's `string` filter writes them."""
Tools = Sequence[dict[str, Any]]
"""Definitions as OpenAI's API has them."""


@dataclass(frozen=True)
class Calling:
    """What an answer says and calls."""

    content: str
    calls: list[ToolCall] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What is wrong with each call that can't be read."""


def read_calls(text: str, syntaxes: Sequence[CallSyntax], tools: Tools = ()) -> Calling:
    """Calls of an answer in the first syntax that finds any; without one the answer is all text.

    `tools` say which arguments are text where a syntax writes numbers and text alike.
    """
    faulty: Calling | None = None
    for syntax in syntaxes:
        if (found := _Reader(text, syntax, tools).read()).calls:
            return found
        faulty = faulty or (found if found.faults else None)
    return faulty or Calling(text.strip())


class _Reader:
    def __init__(self, text: str, syntax: CallSyntax, tools: Tools) -> None:
        self.text, self.syntax = text, syntax
        self.schemas = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}

    def read(self) -> Calling:
        calls: list[ToolCall] = []
        faults: list[str] = []
        rest: list[str] = []
        place = 0
        while (begun := self._begin(place, first=not calls)) is not None:
            start, inside = begun
            rest.append(self.text[place:start])
            try:
                call, place = self._call(inside)
                _check(call["arguments"])
                calls.append(call)
            except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
                if not self.syntax.marker:
                    # Nothing but its form says that it is a call.
                    rest.append(self.text[start:])
                    place = len(self.text)
                    break
                faults.append(str(error).partition("\n")[0][:200])
                # Without an opening of its own the next call can't be found behind a broken one.
                following = self._begin(inside + 1, first=False) if self.syntax.opening.strip() else None
                place = following[0] if following else len(self.text)
                rest.append(self.text[start:place])
            else:
                place = _after(self.text, place, self.syntax.closing)
        rest.append(self.text[_after(self.text, place, self.syntax.tail) if calls else place :])
        return Calling("\n".join(filter(None, map(str.strip, rest))), calls, faults)

    def _begin(self, place: int, first: bool) -> tuple[int, int] | None:
        """(where the next call begins, where its name or object does)."""
        syntax = self.syntax
        if not syntax.marker and syntax.kind == "python" and first:
            # Words may come before it: what follows a name in its line is no word.
            found = re.compile(NAME + _named(syntax)).search(self.text, place)
            return (found.start(), found.start()) if found else None
        if not syntax.marker:
            pattern = _loose("" if first else syntax.between) + r"\s*[;,]?\s*"
            found = re.compile(pattern).match(self.text, place)
            if not found:
                return None
            ahead = r"\{" if syntax.kind == "object" else NAME + _named(syntax)
            return (place, found.end()) if re.compile(ahead).match(self.text, found.end()) else None
        if not syntax.opening.strip():
            # Calls are told from each other by nothing but what is between them.
            pattern = _loose(syntax.lead) if first else r"\s*[,;]?\s*(?=[\w{])"
            found = (
                re.compile(pattern).search(self.text, place) if first else re.compile(pattern).match(self.text, place)
            )
            return (found.start(), _after(self.text, found.end(), syntax.opening)) if found else None
        lead = f"(?:{_loose(syntax.lead)})?" if syntax.lead else ""
        between = f"(?:{_loose(syntax.between)})?" if syntax.between.strip() and not first else ""
        found = re.compile(between + lead + _loose(syntax.opening)).search(self.text, place)
        return (found.start(), found.end()) if found else None

    def _call(self, place: int) -> tuple[ToolCall, int]:
        """(call, where its arguments or its object end). Raises ValueError saying what can't be read."""
        if self.syntax.kind == "object":
            found, end = _json(self.text, place)
            named = call_of(found) if isinstance(found, dict) else None
            if named is None:
                raise ValueError("a call has no name or no arguments")
            return {"name": named[0], "arguments": arguments_of(named[1])}, end
        match = re.compile(NAME + _named(self.syntax)).match(self.text, place)
        if not match:
            raise ValueError("a call has no name")
        read = {"named": self._named_json, "keyed": self._keyed, "python": self._python, "quoted": self._quoted}
        arguments, end = read[self.syntax.kind](match.end(), match["name"])
        return {"name": match["name"], "arguments": arguments}, end

    def _named_json(self, place: int, _: str) -> tuple[dict[str, Any], int]:
        found, end = _json(self.text, place)
        return arguments_of(found), end

    def _keyed(self, place: int, name: str) -> tuple[dict[str, Any], int]:
        syntax = self.syntax
        schema = self.schemas.get(name, {}).get("properties") or {}
        arguments: dict[str, Any] = {}
        pattern = re.compile(
            rf"\s*{_loose(syntax.key_opening)}(?P<key>.*?){_edged(syntax.key_closing)}(?P<value>.*?)"
            rf"{_edged(syntax.value_closing)}",
            re.DOTALL,
        )
        while found := pattern.match(self.text, place):
            arguments[found["key"].strip()] = _typed(found["value"], schema.get(found["key"].strip()))
            place = found.end()
        closing = re.compile(r"\s*" + _loose(syntax.closing)).match(self.text, place)
        if not closing:
            raise ValueError("a call's arguments have no end")
        return arguments, closing.start()

    def _python(self, place: int, _: str) -> tuple[dict[str, Any], int]:
        for end in re.compile(r"\)").finditer(self.text, place):
            call = parse_call(f"f({self.text[place : end.start()]})")
            if call is None:
                # The bracket was one of a string, or of a value.
                continue
            if call.args:
                break
            arguments: dict[str, Any] = {}
            for keyword in call.keywords:
                value = literal_value(keyword.value)
                arguments |= value if keyword.arg is None else {keyword.arg: value}
            return arguments, end.start() + (not self.syntax.closing.strip().startswith(")"))
        raise ValueError("a call's arguments are no keywords with literal values")

    def _quoted(self, place: int, _: str) -> tuple[dict[str, Any], int]:
        from transformers.utils.chat_parsing.content_parsers import parse_content

        quote = re.escape(self.syntax.quote)
        pattern = re.compile(rf"(?:{quote}.*?{quote}|(?!{_loose(self.syntax.closing)}).)*", re.DOTALL)
        found = pattern.match(self.text, place)
        assert found
        options = {"unquoted_keys": True, "string_delims": [[self.syntax.quote, self.syntax.quote]]}
        return arguments_of(parse_content(found[0], "json", options)), found.end()


def _json(text: str, place: int) -> tuple[Any, int]:
    decoder = json.JSONDecoder(strict=False, parse_constant=_refuse)
    found = re.compile(r"\s*").match(text, place)
    try:
        return decoder.raw_decode(text, found.end() if found else place)
    except json.JSONDecodeError as error:
        raise ValueError(f"a call is no JSON: {error.msg}") from None


def _check(arguments: dict[str, Any]) -> None:
    """Raises ValueError for what no line of JSON can hold: numbers beyond 64 bits, infinity, half a surrogate pair."""
    try:
        written = orjson.dumps(arguments)
    except TypeError as error:
        raise ValueError(f"a call has a value that can't be written: {error}") from None
    if orjson.loads(written) != arguments:
        raise ValueError("a call has a number that can't be written")


def _refuse(constant: str) -> None:
    raise ValueError(f"a call is no JSON: {constant}")


def _typed(text: str, schema: Any) -> Any:
    """An argument written as text: text by its JSON Schema as it is, all else as JSON, where it is some."""
    if "string" in types(schema):
        return text
    if text.strip() in TEXTS:
        return TEXTS[text.strip()]
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text


def types(schema: Any) -> list[str]:
    """Types that a JSON Schema allows."""
    if not isinstance(schema, dict):
        return []
    declared = schema.get("type") or []
    found = [declared] if isinstance(declared, str) else [*declared]
    choices = [*(schema.get("anyOf") or []), *(schema.get("oneOf") or [])]
    if not found and all(isinstance(value, str) for value in schema.get("enum") or [0]):
        found = ["string"]
    return found + [kind for choice in choices for kind in types(choice)]


def _named(syntax: CallSyntax) -> str:
    """What follows a name; a line end where nothing else tells a name from a word."""
    return r"[ \t]*\n\s*(?=\{)" if not syntax.marker and not syntax.named.strip() else _loose(syntax.named)


def _after(text: str, place: int, piece: str) -> int:
    """Past a piece, where it stands there."""
    found = re.compile(r"\s*" + _loose(piece)).match(text, place) if piece.strip() else None
    return found.end() if found else place


@lru_cache(1000)
def _loose(piece: str) -> str:
    """A pattern for a piece with any white space where it has some."""
    return r"\s*".join(map(re.escape, re.split(r"\s+", piece)))


@lru_cache(1000)
def _edged(piece: str) -> str:
    """The same, which takes no more white space at the piece's edges than it has itself: the rest is a value's."""
    core = piece.strip()
    left, right = piece[: piece.index(core)], piece[piece.index(core) + len(core) :]
    # At the right edge of all stands the next key or the end, before which white space says nothing.
    return f"(?:{re.escape(left)})?{_loose(core)}(?:{re.escape(right)})?"
