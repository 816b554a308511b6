"""Streaming deltas: what each token adds to a reply."""

from typing import Literal, NamedTuple

from tuneline.formats.records import ToolCall


class TokenScore(NamedTuple):
    """Log probability of a token, in nats, before temperature, top_p and constraints."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """(id, log probability) of the likeliest tokens there."""


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
    score: TokenScore | None = None
    """Of the token, where log probabilities were asked for."""
    prompt_scores: tuple[TokenScore | None, ...] = ()
    """Of the prompt's tokens, with the first delta, where they were asked for; the first token has none."""
