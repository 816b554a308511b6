"""Stop strings in a stream of deltas."""

from collections.abc import Generator, Sequence

from chat.replies.deltas import Delta


def cut_at_stop(deltas: Generator[Delta], stops: Sequence[str]) -> Generator[Delta]:
    """Deltas up to the stop string that is complete first, which is left out. Closing this closes the deltas.

    Text that may be the beginning of a stop string is held back, so the joined text does not depend on where deltas end. Of
    stop strings that are complete with the same character the longest counts.
    """
    held = ""
    try:
        for delta in deltas:
            text = held + delta.text
            matches = [(start + len(stop), start) for stop in stops if (start := text.find(stop)) >= 0]
            if matches:
                yield delta._replace(text=text[: min(matches)[1]], finish_reason="stop", calls=())
                return
            safe = len(text) - (0 if delta.finish_reason else partial_match_length(text, stops))
            held = text[safe:]
            yield delta._replace(text=text[:safe])
    finally:
        deltas.close()


def partial_match_length(text: str, stops: Sequence[str]) -> int:
    """Length of the longest suffix of the text that is a proper prefix of a stop string."""
    return max((size for stop in stops for size in range(len(stop)) if text.endswith(stop[:size])), default=0)
