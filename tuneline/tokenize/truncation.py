"""Truncation of over-long conversations: left out, shortened before the last answer, or split between exchanges.

No policy cuts an answer, and a call stays with what its function gave. An over-long conversation loses whole exchanges, or
the end of its last question, and each loss is counted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tuneline.formats.records import Message, exchanges, is_learnt

MIN_QUESTION = 8
"""Characters that are left of a question at least."""
Fits = Callable[[Sequence[Message]], bool]


@dataclass
class Shortened:
    """The parts of an over-long conversation that fit."""

    parts: list[list[Message]]
    """Empty when the conversation was left out."""
    answers_lost: int = 0
    """Answers of the conversation that no part holds."""


def shorten(messages: list[Message], policy: str, fits: Fits) -> Shortened:
    """Apply tokenize.overlong to a conversation that does not fit."""
    answers = sum(map(is_learnt, messages))
    if policy == "split_turns":
        parts = [part for part in split_turns(messages, fits) if any(map(is_learnt, part))]
    elif policy == "truncate_prompt":
        parts = truncate_prompt(messages, fits)
    else:
        parts = []
    kept = sum(is_learnt(message) for part in parts for message in part)
    return Shortened(parts, answers - kept)


def split_turns(messages: list[Message], fits: Fits) -> list[list[Message]]:
    """Parts of consecutive exchanges, each as long as fits, after the system prompt; each answer is in one at most."""
    system = messages[: int(messages[0]["role"] == "system")]
    parts: list[list[Message]] = []
    current: list[Message] = []
    for exchange in exchanges(messages):
        if current and fits([*system, *current, *exchange]):
            current += exchange
            continue
        if current:
            parts.append([*system, *current])
        current = list(exchange) if fits([*system, *exchange]) else []
    return [*parts, [*system, *current]] if current else parts


def truncate_prompt(messages: list[Message], fits: Fits) -> list[list[Message]]:
    """The conversation without its oldest exchanges, and then with the end of its last question cut off."""
    system, remaining = messages[: int(messages[0]["role"] == "system")], exchanges(messages)
    while len(remaining) > 1:
        remaining = remaining[1:]
        shorter = [*system, *(message for exchange in remaining for message in exchange)]
        if fits(shorter):
            return [shorter]
    question, *answers = remaining[0]

    def cut(size: int) -> list[Message]:
        return [*system, {"role": "user", "content": question["content"][:size]}, *answers]

    low, high = MIN_QUESTION, len(question["content"])
    if high < low or not fits(cut(low)):
        return []
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(cut(middle)) else (low, middle)
    return [cut(low)]
