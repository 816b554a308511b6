"""Tool calls in a stream of deltas: a reply's text goes on until a call may begin, and calls come whole, with its end."""

import json
import re
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

from chat.replies.deltas import Delta
from chat.replies.stop_strings import partial_match_length
from tuneline.formats.records import ToolCall
from tuneline.models.calls.answers import AnswerReader
from tuneline.models.calls.reading import NAME
from tuneline.models.thoughts import ThoughtMarks
from tuneline.scoring.calls import call_errors

UNMARKED = {
    "object": re.compile(r"\s*(\{.*)?", re.DOTALL),
    "named": re.compile(rf"\s*({NAME}[ \t]*(\n\s*(\{{.*)?)?)?", re.DOTALL),
    "python": re.compile(rf"\s*({NAME}[ \t]*(\n\s*(`.*)?)?)?", re.DOTALL),
}
"""What may become a call that nothing but its form tells from text."""


class CallLimits(NamedTuple):
    most: int | None = None
    """Calls that a reply may hold; further ones are left out."""
    forced: bool = False
    """Whether the reply is one call in JSON, kept to a schema: nothing of it is text."""


def read_forced_call(deltas: Generator[Delta]) -> Generator[Delta]:
    """Deltas of a reply in JSON, {"name", "arguments"}, as a call with its end; text where it was cut off before that."""
    text = ""
    try:
        for delta in deltas:
            text += delta.text
            if not delta.finish_reason:
                yield delta._replace(text="")
                continue
            try:
                call = json.loads(text)
            except ValueError:
                yield delta._replace(text=text)
            else:
                yield delta._replace(text="", calls=(call,), finish_reason="tool_calls")
    finally:
        deltas.close()


def read_calls_at_end(
    deltas: Generator[Delta],
    reader: AnswerReader,
    marks: ThoughtMarks,
    tools: Sequence[dict[str, Any]],
    most: int | None = None,
) -> Generator[Delta]:
    """Deltas whose last one has the calls of the reply; texts of calls are left out. Closing this closes the deltas."""
    text, given = "", 0
    try:
        for delta in deltas:
            text += delta.text
            if not delta.finish_reason:
                start = max(given, _call_start(text, reader, marks))
                yield delta._replace(text=text[given:start])
                given = start
                continue
            begin = answer_start(text, marks)
            found = reader.read(text[begin:], tools) if begin is not None else None
            if not found or not found.calls or breaks_strict(found.calls, tools):
                yield delta._replace(text=reader.plain(text[given:]))
                return
            # Of an answer in words and calls the words before the first call are out already.
            said = text[begin:given].strip()
            rest = found.content.removeprefix(said).lstrip() if found.content.startswith(said) else ""
            reason = "tool_calls" if delta.finish_reason == "stop" else delta.finish_reason
            yield delta._replace(
                text=reader.plain(f"\n{rest}" if rest and said else rest),
                finish_reason=reason,
                calls=tuple(found.calls[:most]),
            )
    finally:
        deltas.close()


def breaks_strict(calls: Sequence[ToolCall], tools: Sequence[dict[str, Any]]) -> bool:
    """Whether a call of a strict function does not keep to its schema: so it is none, and remains text."""
    strict = [tool for tool in tools if tool["function"].get("strict")]
    names = {tool["function"]["name"] for tool in strict}
    return bool(call_errors([call for call in calls if call["name"] in names], strict))


def answer_start(text: str, marks: ThoughtMarks) -> int | None:
    """Where the answer begins, after thoughts; None within them."""
    if not text.lstrip().startswith(marks.open):
        return 0
    end = text.find(marks.close)
    return end + len(marks.close) if end >= 0 else None


def _call_start(text: str, reader: AnswerReader, marks: ThoughtMarks) -> int:
    """Up to where no text can be a part of a call."""
    start = answer_start(text, marks)
    if start is None:
        return len(text)
    answer = text[start:]
    safe = len(answer) - partial_match_length(answer, [syntax.marker for syntax in reader.syntaxes if syntax.marker])
    for syntax in reader.syntaxes:
        if syntax.marker:
            # White space within a marker may be another: its first word is enough to wait for.
            place = answer.find(syntax.marker.split()[0])
            safe = min(safe, place) if place >= 0 else safe
        elif syntax.kind in UNMARKED:
            # A call in Python may follow words, in a line of its own.
            starts = [0, *(found.end() for found in re.finditer("\n", answer) if syntax.kind == "python")]
            whole = UNMARKED[syntax.kind].fullmatch
            safe = min(safe, next((start for start in starts if whole(answer, start)), safe))
    # White space before a call is none of the words before it.
    return start + len(answer[:safe].rstrip())
