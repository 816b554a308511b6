"""Response objects and stream chunks of OpenAI's chat completions and models."""

import json
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import orjson

from chat.replies.deltas import Delta
from tuneline.formats.records import ToolCall

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
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if last.calls:
            message |= {"content": text or None, "tool_calls": tool_calls(last.calls)}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": last.finish_reason}
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage(last)}

    def role_chunk(self) -> dict[str, Any]:
        """First `chat.completion.chunk` of a stream."""
        return self._chunk({"role": "assistant", "content": ""}, None)

    def chunks(self, delta: Delta) -> Iterator[dict[str, Any]]:
        """Chunks of one delta: none while text is held back, up to three at the end."""
        if delta.text:
            yield self._chunk({"content": delta.text}, None)
        if delta.calls:
            calls = [{"index": index} | call for index, call in enumerate(tool_calls(delta.calls))]
            yield self._chunk({"tool_calls": calls}, None)
        if delta.finish_reason:
            yield self._chunk({}, delta.finish_reason)

    def usage_chunk(self, last: Delta) -> dict[str, Any]:
        """Last chunk of a stream with `stream_options.include_usage`."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage(last)}

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def tool_calls(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    """Calls as the API has them, each with an id of its own; arguments are a string of JSON."""
    return [
        {
            "id": f"call_{uuid.uuid4().hex[:24]}",
            "type": "function",
            "function": {"name": call["name"], "arguments": json.dumps(call["arguments"], ensure_ascii=False)},
        }
        for call in calls
    ]


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
