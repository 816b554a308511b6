"""Incremental detokenization of a reply."""

import time
from collections.abc import Callable, Container, Generator
from queue import SimpleQueue
from typing import Any, Literal

from chat.replies.deltas import Delta

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""What a decoder returns for a character whose last bytes are still to come."""


def decode(
    output: "SimpleQueue[Any]",
    text_of: Callable[[list[int]], str],
    stop_ids: Container[int],
    prompt_tokens: int,
    started: float,
) -> Generator[Delta]:
    """Deltas of the tokens that come out of a queue. Raises an error that comes out of it.

    All ids are decoded anew each time: a character may need several, and white space may depend on its neighbours.
    """
    ids: list[int] = []
    emitted, scores = "", ()
    while (item := output.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        if isinstance(item, list):
            scores = tuple(item)
            continue
        ids.append(item.id)
        text = text_of(ids)
        complete = text.startswith(emitted) and not text.endswith(INCOMPLETE)
        new = text[len(emitted) :] if complete else ""
        seconds = time.monotonic() - started
        yield Delta(new, len(ids), prompt_tokens, seconds, None, score=item.score, prompt_scores=scores)
        emitted, scores = text if complete else emitted, ()
    text = text_of(ids)
    reason: Literal["stop", "length"] = "stop" if ids and ids[-1] in stop_ids else "length"
    yield Delta(text[len(emitted) :], len(ids), prompt_tokens, time.monotonic() - started, reason)
