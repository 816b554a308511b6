"""Strings at which an answer ends."""

from collections.abc import Generator, Sequence

from chat.answers import Piece


def until(pieces: Generator[Piece], stops: Sequence[str]) -> Generator[Piece]:
    """The pieces up to the stop string that is complete first, which is left out.

    Text that may be the beginning of one is held back, so the joined text does not depend on where pieces end. Of stops that
    are complete with the same character the longest counts. Closing this closes the pieces.
    """
    held = ""
    try:
        for piece in pieces:
            text = held + piece.text
            found = [(at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0]
            if found:
                yield piece._replace(text=text[: min(found)[1]], finish="stop")
                return
            kept = len(text) - (0 if piece.finish else begun(text, stops))
            held = text[kept:]
            yield piece._replace(text=text[:kept])
    finally:
        pieces.close()


def begun(text: str, stops: Sequence[str]) -> int:
    """Characters at the end of the text that begin a stop string."""
    return max((size for stop in stops for size in range(len(stop)) if text.endswith(stop[:size])), default=0)
