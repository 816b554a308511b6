"""Response objects and stream chunks of OpenAI's chat completions and models."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from chat.engine import Delta

DONE = b"data: [DONE]\n\n"
"""The event that ends a stream."""


class Completion(NamedTuple):
    """Chat completion: the fields that its response or all of its chunks share."""

    id: str
    created: int
    """Seconds since 1970."""
    model: str

    def response(self, text: str, last: Delta) -> dict[str, Any]:
        """`chat.completion` object."""
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": last.finish_reason}
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage(last)}

    def role_chunk(self) -> dict[str, Any]:
        """First `chat.completion.chunk` of a stream."""
        return self._chunk({"role": "assistant", "content": ""}, None)

    def chunks(self, delta: Delta) -> Iterator[dict[str, Any]]:
        """Chunks of one delta: none while text is held back, two at the end."""
        if delta.text:
            yield self._chunk({"content": delta.text}, None)
        if delta.finish_reason:
            yield self._chunk({}, delta.finish_reason)

    def usage_chunk(self, last: Delta) -> dict[str, Any]:
        """Last chunk of a stream with `stream_options.include_usage`."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage(last)}

    def _chunk(self, delta: dict[str, str], finish_reason: str | None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def usage(last: Delta) -> dict[str, int]:
    """Token usage by the last delta; tokens of a stop string, and the end-of-turn token, count."""
    total = last.prompt_tokens + last.completion_tokens
    return {
        "prompt_tokens": last.prompt_tokens,
        "completion_tokens": last.completion_tokens,
        "total_tokens": total,
    }


def model_card(name: str, created: int) -> dict[str, Any]:
    """`model` object."""
    return {"id": name, "object": "model", "created": created, "owned_by": "tuneline"}


def event(data: dict[str, Any]) -> bytes:
    """Server-sent event with JSON data."""
    return b"data: " + orjson.dumps(data) + b"\n\n"
