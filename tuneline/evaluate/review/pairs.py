"""Pairs of answers to choose from: two models' answers to one held-out question, and the order in which a rater sees them."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tuneline.formats.calls import message_text
from tuneline.formats.records import Message

SIDES = ("base", "tuned")


class Pair(NamedTuple):
    id: str
    """Of the item."""
    question: str
    earlier: tuple[tuple[str, str], ...]
    """(role, text) of the messages before the question."""
    answers: tuple[str, str]
    """Of the first model (the base, or the first revision) and of the second."""

    @property
    def hashes(self) -> tuple[str, str]:
        """Of the two answers: what a vote is about."""
        first, second = self.answers
        return answer_hash(first), answer_hash(second)

    @property
    def differs(self) -> bool:
        """Whether there is anything to choose."""
        return self.answers[0] != self.answers[1]


def answer_hash(text: str) -> str:
    """16 hex digits of the text's sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def pairs_of(rows: Sequence[Mapping[str, Any]], dialogues: Mapping[str, Sequence[Message]] | None = None) -> list[Pair]:
    """Pairs of lines of predictions.jsonl, in an order of their own that tells nothing and is the same for every rater.

    So several raters who stop early have voted on the same items. `dialogues` are the held-out items' messages by id.
    """
    known = dialogues or {}
    found = [
        Pair(
            row["id"],
            row["question"],
            _earlier(known.get(row["id"], ()), row["question"]),
            (row[SIDES[0]], row[SIDES[1]]),
        )
        for row in rows
    ]
    return sorted(found, key=lambda pair: _draw(pair.id))


def rows_between(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows for pairs_of of two revisions' tuned answers to the questions that both have. Raises ValueError without any."""
    known = {(row["id"], row["question"]): row["tuned"] for row in second}
    rows = [
        {"id": row["id"], "question": row["question"], "base": row["tuned"], "tuned": known[row["id"], row["question"]]}
        for row in first
        if (row["id"], row["question"]) in known
    ]
    if not rows:
        raise ValueError(
            "the two revisions have no held-out question in common, expected those of one draw (data.seed, data.heldout)"
        )
    return rows


def shown(pair: Pair, rater: str) -> tuple[str, str]:
    """The two answers as this rater sees them, left and right.

    Drawn by a hash of texts and rater: the same every time, whosever they are.
    """
    hashes = sorted(pair.hashes)
    turned = _draw(rater, *hashes, pair.id) % 2 == 1
    first, second = sorted(pair.answers, key=answer_hash)
    return (second, first) if turned else (first, second)


def _draw(*words: str) -> int:
    return int.from_bytes(hashlib.sha256("\0".join(words).encode()).digest()[:8])


def _earlier(messages: Sequence[Message], question: str) -> tuple[tuple[str, str], ...]:
    """Messages before the last question, and what came after it unless the question has it, as that of calls does."""
    asked = max((place for place, message in enumerate(messages[:-1]) if message["role"] == "user"), default=0)
    since = messages[asked + 1 : -1] if messages and question == messages[asked]["content"] else ()
    return tuple((message["role"], message_text(message)) for message in (*messages[:asked], *since))
