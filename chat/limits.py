"""What one asker may take of a machine that others use, too; and the three ways in which a question is refused."""

from collections.abc import Sequence

from tuneline.formats.records import Message

TURNS = 64
"""Messages of one conversation, the system prompt included."""
CHARACTERS = 32_000
"""Of all messages together."""
PROMPT_TOKENS = 4096
NEW_TOKENS = 1024
RUNNING = 4
"""Answers that are made at the same time, token by token in turns."""
WAITING = 16
"""Questions that wait for one of them to end; the next one is refused."""


class UnknownModelError(ValueError):
    """A name that is not in the list of models."""


class TooLongError(ValueError):
    """More turns, characters or tokens than this server or the model takes."""


class BusyError(RuntimeError):
    """Too many questions wait already."""


def check_size(messages: Sequence[Message]) -> None:
    """Raises TooLongError before anything is spent on the text."""
    if len(messages) > TURNS:
        raise TooLongError(f"the conversation has {len(messages)} messages, expected at most {TURNS}: start a new one")
    size = sum(len(message["content"]) for message in messages)
    if size > CHARACTERS:
        raise TooLongError(f"the conversation has {size} characters, expected at most {CHARACTERS}: shorten it")


def check_tokens(prompt: int, new: int, context: int) -> None:
    """Raises TooLongError when prompt and answer don't fit into the model's context, or ValueError for a wrong limit."""
    if not 1 <= new <= NEW_TOKENS:
        raise ValueError(f"max_tokens is {new}, expected 1 to {NEW_TOKENS}")
    room = min(PROMPT_TOKENS, context - new)
    if prompt > room:
        raise TooLongError(
            f"the conversation has {prompt} tokens, expected at most {room} beside {new} new ones: shorten it"
        )
