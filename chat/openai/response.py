"""Response objects and stream chunks of OpenAI's chat completions, completions and models."""

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import orjson

from chat.openai.logprobs import chat_logprobs, text_logprobs
from chat.replies.deltas import Delta
from tuneline.formats.records import ToolCall

DONE = b"data: [DONE]\n\n"
"""The event that ends a stream."""


class Head(NamedTuple):
    """The fields that a response or all of its chunks share."""

    id: str
    created: int
    """Seconds since 1970."""
    model: str

    def fields(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


class Answer(Protocol):
    """Response of one kind of request, at once or in chunks; of several choices each has its number."""

    def response(self, replies: Sequence[Sequence[Delta]]) -> dict[str, Any]: ...
    def opening(self, count: int) -> Iterator[dict[str, Any]]: ...
    def chunks(self, index: int, delta: Delta) -> Iterator[dict[str, Any]]: ...
    def usage_chunk(self, lasts: Sequence[Delta]) -> dict[str, Any]: ...


class ChatCompletion(NamedTuple):
    """Chat completion."""

    head: Head
    text_of: Callable[[int], str]
    """Text of one token."""
    wants_logprobs: bool = False

    def response(self, replies: Sequence[Sequence[Delta]]) -> dict[str, Any]:
        """`chat.completion` object."""
        choices = [self._choice(index, deltas) for index, deltas in enumerate(replies)]
        return {
            **self.head.fields("chat.completion"),
            "choices": choices,
            "usage": usage([reply[-1] for reply in replies]),
        }

    def opening(self, count: int) -> Iterator[dict[str, Any]]:
        """First `chat.completion.chunk` of each choice."""
        for index in range(count):
            yield self._chunk(index, {"role": "assistant", "content": ""}, None)

    def chunks(self, index: int, delta: Delta) -> Iterator[dict[str, Any]]:
        """Chunks of one delta: none while text is held back, up to three at the end."""
        logprobs = chat_logprobs([delta], self.text_of) if self.wants_logprobs and delta.score else None
        if delta.text or logprobs:
            yield self._chunk(index, {"content": delta.text}, None, logprobs)
        if delta.calls:
            calls = [{"index": number} | call for number, call in enumerate(tool_calls(delta.calls))]
            yield self._chunk(index, {"tool_calls": calls}, None)
        if delta.finish_reason:
            yield self._chunk(index, {}, delta.finish_reason)

    def usage_chunk(self, lasts: Sequence[Delta]) -> dict[str, Any]:
        """Last chunk of a stream with `stream_options.include_usage`."""
        return {**self.head.fields("chat.completion.chunk"), "choices": [], "usage": usage(lasts)}

    def _choice(self, index: int, deltas: Sequence[Delta]) -> dict[str, Any]:
        text, last = "".join(delta.text for delta in deltas), deltas[-1]
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if last.calls:
            message |= {"content": text or None, "tool_calls": tool_calls(last.calls)}
        logprobs = chat_logprobs(deltas, self.text_of) if self.wants_logprobs else None
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": last.finish_reason}

    def _chunk(
        self, index: int, delta: dict[str, Any], finish_reason: str | None, logprobs: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return {**self.head.fields("chat.completion.chunk"), "choices": [choice]}


class TextCompletion(NamedTuple):
    """Completion of the older kind, of one or several prompts with `per_prompt` choices each."""

    head: Head
    text_of: Callable[[int], str]
    prompts: Sequence[str]
    """Their texts, where a completion begins with its prompt; empty ones otherwise."""
    prompt_ids: Sequence[Sequence[int]]
    per_prompt: int
    wants_logprobs: bool = False

    def response(self, replies: Sequence[Sequence[Delta]]) -> dict[str, Any]:
        """`text_completion` object."""
        choices = []
        for index, deltas in enumerate(replies):
            text = self._prompt(index) + "".join(delta.text for delta in deltas)
            choices.append(self._choice(index, text, deltas))
        lasts = [reply[-1] for reply in replies]
        return {
            **self.head.fields("text_completion"),
            "choices": choices,
            "usage": usage(lasts, len(self.prompts)),
        }

    def opening(self, count: int) -> Iterator[dict[str, Any]]:
        for index in range(count):
            if prompt := self._prompt(index):
                yield {**self.head.fields("text_completion"), "choices": [self._choice(index, prompt, ())]}

    def chunks(self, index: int, delta: Delta) -> Iterator[dict[str, Any]]:
        if delta.text or delta.finish_reason or (self.wants_logprobs and delta.score):
            yield {**self.head.fields("text_completion"), "choices": [self._choice(index, delta.text, [delta])]}

    def usage_chunk(self, lasts: Sequence[Delta]) -> dict[str, Any]:
        return {**self.head.fields("text_completion"), "choices": [], "usage": usage(lasts, len(self.prompts))}

    def _prompt(self, index: int) -> str:
        return self.prompts[index // self.per_prompt]

    def _choice(self, index: int, text: str, deltas: Sequence[Delta]) -> dict[str, Any]:
        logprobs = None
        if self.wants_logprobs and deltas:
            logprobs = text_logprobs(self.prompt_ids[index // self.per_prompt], deltas, self.text_of)
        finish_reason = deltas[-1].finish_reason if deltas else None
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


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


def usage(lasts: Sequence[Delta], prompts: int = 1) -> dict[str, int]:
    """Token usage by the last delta of each reply; tokens of a stop string, and the end-of-turn token, count.

    A prompt with several replies counts once.
    """
    per_prompt = max(1, len(lasts) // prompts)
    prompt_tokens = sum(last.prompt_tokens for last in lasts[::per_prompt])
    completion_tokens = sum(last.completion_tokens for last in lasts)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def model_card(name: str, created: int) -> dict[str, Any]:
    """`model` object."""
    return {"id": name, "object": "model", "created": created, "owned_by": "tuneline"}


def event(data: dict[str, Any]) -> bytes:
    """Server-sent event with JSON data."""
    return b"data: " + orjson.dumps(data) + b"\n\n"
