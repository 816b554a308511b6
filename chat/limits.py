"""Request limits of a shared server, and the errors of requests beyond them."""

import json
from collections.abc import Sequence
from typing import Any

from chat.batching.scheduling import Limits
from chat.i18n.texts import Text
from tuneline.formats.calls import message_text
from tuneline.formats.records import Message

MAX_MESSAGES = 64
"""Of one conversation, the system prompt included."""
MAX_CHARACTERS = 32_000
"""Of all messages together."""
MAX_PROMPT_TOKENS = 4096
MAX_NEW_TOKENS = 1024
MAX_RUNNING = 32
"""Replies that are generated at the same time."""
MAX_WAITING = 64
"""Queued requests; the next one is refused."""
MAX_WAIT = 120.0
"""Seconds that a request is queued; then it is refused."""
LIMITS = Limits(rows=MAX_RUNNING, tokens=32_768, alone=4, widest=MAX_PROMPT_TOKENS + MAX_NEW_TOKENS)
"""Of what runs: 32 replies of up to 1,024 tokens, or six of the longest."""


class UnknownModelError(ValueError):
    """Model name that is not in the list of models."""


class TooLongError(ValueError):
    """Conversation with more messages, characters or tokens than this server or the model takes."""

    def __init__(self, text: Text) -> None:
        super().__init__(text.en)
        self.text = text


class BusyError(RuntimeError):
    """Queue overflow."""

    def __init__(self, in_flight: int) -> None:
        self.text = Text(
            f"已有 {in_flight} 个问题在回答或等待：请稍后再问",
            f"{in_flight} questions are being answered or wait: ask again later",
        )
        super().__init__(self.text.en)


class NoLogprobsError(ValueError):
    """Log probabilities asked of a model that gives none."""

    def __init__(self, name: str) -> None:
        super().__init__(f"logprobs are asked for, expected none: {name}, whose rows can't share a batch, gives none")


class WaitedError(BusyError):
    """Request that was queued for too long."""

    def __init__(self, seconds: float) -> None:
        self.text = Text(
            f"等了 {seconds:.0f} 秒还没有轮到：请稍后再问",
            f"no place came free within {seconds:.0f} seconds: ask again later",
        )
        RuntimeError.__init__(self, self.text.en)


def check_size(messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> None:
    """Size check before tokenization. Raises TooLongError."""
    if len(messages) > MAX_MESSAGES:
        raise TooLongError(
            Text(
                f"对话有 {len(messages)} 条消息，最多 {MAX_MESSAGES} 条：请清空后重新开始",
                f"the conversation has {len(messages)} messages, expected at most {MAX_MESSAGES}: start a new one",
            )
        )
    size = sum(len(message_text(message)) + len(message.get("reasoning", "")) for message in messages)
    size += len(json.dumps(tools)) * bool(tools)
    if size > MAX_CHARACTERS:
        raise TooLongError(
            Text(
                f"对话有 {size} 个字符，最多 {MAX_CHARACTERS} 个：请缩短",
                f"the conversation has {size} characters, expected at most {MAX_CHARACTERS}: shorten it",
            )
        )


def check_tokens(prompt_tokens: int, new_tokens: int, context: int) -> None:
    """Context length check. Raises TooLongError when prompt and reply don't fit, or ValueError for a wrong `new_tokens`."""
    if not 1 <= new_tokens <= MAX_NEW_TOKENS:
        raise ValueError(f"max_tokens is {new_tokens}, expected 1 to {MAX_NEW_TOKENS}")
    available = min(MAX_PROMPT_TOKENS, context - new_tokens)
    if prompt_tokens > available:
        raise TooLongError(
            Text(
                f"对话有 {prompt_tokens} 个词元，除 {new_tokens} 个新词元外最多 {available} 个：请缩短",
                f"the conversation has {prompt_tokens} tokens, expected at most {available} beside {new_tokens} new "
                "ones: shorten it",
            )
        )
