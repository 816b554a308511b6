"""Streaming deltas: what each token adds to a reply."""

from typing import Literal, NamedTuple

from tuneline.formats.records import ToolCall


class Delta(NamedTuple):
    """Streaming delta: one more token of a reply, or its end."""

    text: str
    """What the token adds; empty while a character is incomplete."""
    completion_tokens: int
    """Of the reply so far."""
    prompt_tokens: int
    seconds: float
    """Since the request."""
    finish_reason: Literal["stop", "length", "tool_calls"] | None
    """None while the reply goes on."""
    calls: tuple[ToolCall, ...] = ()
    """What the reply calls, with its end."""
