"""Streaming generation engine, shared by the terminal, the web page and the API."""

import threading
import time
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, NamedTuple

from transformers import LogitsProcessorList

from chat.batching.loop import StepLoop
from chat.batching.rows import Row
from chat.generation import gumbel_processors
from chat.limits import NoLogprobsError, check_size, check_tokens
from chat.models import Models
from chat.replies.calls import CallLimits, read_calls_at_end, read_forced_call
from chat.replies.decoding import decode
from chat.replies.deltas import Delta
from tuneline.formats.records import Message
from tuneline.models.constrained_decoding import Constraint, check_classes
from tuneline.models.thoughts import OPEN

MAX_TOP_LOGPROBS = 20


class Constrain(NamedTuple):
    """What a reply may hold: spans of the last question, and these classes."""

    task: str
    """triples | entities | label."""
    classes: tuple[str, ...]
    """Relations, types or labels."""


class SamplingParams(NamedTuple):
    """Sampling parameters of one request."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    """0 is greedy: the same answer every time."""
    top_p: float = 1.0
    seed: int = 0
    constrain: Constrain | None = None
    thinking: bool = False
    """Whether a base whose chat template has that choice may think first; a constrained reply holds no thoughts."""
    tools: tuple[dict[str, Any], ...] = ()
    """Functions that the reply may call, as OpenAI's API defines them."""
    calls: CallLimits = CallLimits()
    json_schema: str | None = None
    """JSON Schema, as JSON, that the reply is to keep to."""
    top_logprobs: int | None = None
    """Of how many of the likeliest tokens each delta has the log probability, beside its own token's; None of none."""
    top_k: int = 0
    """Of how many of the likeliest tokens one is drawn; 0 is all."""
    scores_prompt: bool = False
    """Whether the first delta has the log probabilities of the prompt's tokens."""


class Engine:
    """Streaming engine: requests of each model share a batch, and the rest wait in a bounded queue."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self._loop = StepLoop(models)

    @property
    def in_flight(self) -> int:
        """Requests that are queued or running."""
        return self._loop.in_flight

    def stream(
        self,
        name: str,
        messages: Sequence[Message],
        params: SamplingParams,
        cancelled: threading.Event | None = None,
        client: str = "",
    ) -> Generator[Delta]:
        """Deltas of a reply, whose texts joined are the whole reply. Closing the generator stops the generation.

        Once `cancelled` is set there are no more deltas, and a place in the queue is given up. Of several clients none waits
        for all requests of another. Raises UnknownModelError, TooLongError, and ValueError for an invalid role or parameter,
        at once; BusyError with the first delta.
        """
        self.models.require(name)
        check_params(params)
        check_size(messages, params.tools)
        ids = self._prompt(messages, params)
        processors = self._processors(params, messages[-1]["content"])
        # A thought that the prompt has begun is shown from its beginning.
        begun = OPEN if self.models.prompter.opens_thoughts(params.thinking) else ""
        reads_calls = bool(params.tools) and not params.calls.forced
        row = self._row(name, ids, params, processors, cancelled, client)
        text_of = partial(self._text_with_calls if reads_calls else self._text, row)
        deltas = self._deltas(row, lambda ids: begun + text_of(ids))
        if params.calls.forced:
            return read_forced_call(deltas)
        if not params.tools:
            return deltas
        marks = self.models.prompter.thought_marks
        return read_calls_at_end(deltas, self.models.reader, marks, params.tools, params.calls.most)

    def complete(
        self,
        name: str,
        ids: list[int],
        params: SamplingParams,
        cancelled: threading.Event | None = None,
        client: str = "",
    ) -> Generator[Delta]:
        """Deltas of what follows a prompt's token ids, which are taken as they are; otherwise as `stream`."""
        self.models.require(name)
        check_params(params)
        processors = self._processors(params, "")
        row = self._row(name, ids, params, processors, cancelled, client)
        return self._deltas(row, partial(self._text, row))

    def _row(
        self,
        name: str,
        ids: list[int],
        params: SamplingParams,
        processors: LogitsProcessorList,
        cancelled: threading.Event | None,
        client: str,
    ) -> Row:
        check_tokens(len(ids), params.max_new_tokens, self.models.context)
        return Row(
            name, ids, params.max_new_tokens, processors, cancelled or threading.Event(), client, params.top_logprobs,
            params.scores_prompt,
        )  # fmt: skip

    def _prompt(self, messages: Sequence[Message], params: SamplingParams) -> list[int]:
        prompter, tools = self.models.prompter, list(params.tools) or None
        self.models.reader.check(tools)
        try:
            return prompter.generation_prompt(messages, params.thinking, tools)
        except ValueError:
            if tools:
                try:
                    prompter.generation_prompt([Message(role="user", content="x")], params.thinking, tools)
                except ValueError as error:
                    raise ValueError(f"tools can't be given to this model: {error}") from None
            raise

    def _deltas(self, row: Row, text_of: Callable[[list[int]], str]) -> Generator[Delta]:
        started = time.monotonic()
        if row.cancelled.is_set():
            return
        self._loop.reserve(row)
        try:
            model = self.models.get(row.name)
            row.batched, row.stop_ids = model.batched, self.models.reader.stops_of(model.network)
            if not row.batched and row.top_logprobs is not None:
                raise NoLogprobsError(row.name)
            self._loop.submit(row)
            for delta in decode(row.output, text_of, row.stop_ids, len(row.prompt), started):
                if not row.cancelled.is_set():
                    yield delta
        finally:
            self._loop.release(row)

    def _processors(self, params: SamplingParams, question: str) -> LogitsProcessorList:
        """What is not allowed goes first: sampling is among the rest."""
        processors = gumbel_processors(params, self.models.device)
        if params.json_schema is not None:
            return LogitsProcessorList([self.models.constrainer.json_processor(params.json_schema), *processors])
        if params.constrain is None:
            return LogitsProcessorList(processors)
        task, classes = params.constrain
        constrained = self.models.constrainer.processor([Constraint(task, question, classes)])
        return LogitsProcessorList([constrained, *processors])

    def _text(self, row: Row, ids: list[int]) -> str:
        return str(self.models.tokenizer.decode(without_stop(ids, row.stop_ids), skip_special_tokens=True))

    def _text_with_calls(self, row: Row, ids: list[int]) -> str:
        """With tools the control tokens of calls are a part of the text."""
        return self.models.reader.decode(without_stop(ids, row.stop_ids))


def without_stop(ids: list[int], stop_ids: Sequence[int]) -> list[int]:
    """Ids of a reply but for the one that ends it, which need be no control token."""
    return ids[:-1] if ids and ids[-1] in stop_ids else ids


def check_params(params: SamplingParams) -> None:
    """Range check. Raises ValueError for a number that is out of range."""
    if not 0 <= params.temperature <= 2:
        raise ValueError(f"temperature is {params.temperature:g}, expected 0 (the likeliest token) to 2")
    if not 0 < params.top_p <= 1:
        raise ValueError(f"top_p is {params.top_p:g}, expected more than 0, up to 1")
    if not -(2**63) <= params.seed < 2**63:
        raise ValueError(f"seed is {params.seed}, expected -2^63 to 2^63 - 1")
    if params.json_schema is not None and params.constrain is not None:
        raise ValueError("response_format is given beside constrain, expected one of them")
    if params.json_schema is not None and params.tools and not params.calls.forced:
        raise ValueError("response_format is given beside tools, expected one of them, or tool_choice none")
    if params.constrain is not None:
        check_classes(*params.constrain, "constrain")
        if params.tools:
            raise ValueError(
                "tools are given beside constrain, expected one of them: a constrained reply calls nothing"
            )
    if params.thinking and (params.constrain is not None or params.json_schema is not None):
        beside = "constrain" if params.constrain is not None else "response_format, or a call that is forced"
        raise ValueError(f"thinking is on beside {beside}, expected one of them: a constrained reply holds no thoughts")
