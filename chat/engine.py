"""Streaming generation engine, shared by the terminal, the web page and the API."""

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, Literal, NamedTuple

import torch
from transformers import LogitsProcessorList, StoppingCriteriaList

from chat.generation import QueueStreamer, StopOnEvent, gumbel_processors
from chat.limits import MAX_RUNNING, MAX_WAITING, BusyError, check_size, check_tokens
from chat.models import ActiveModel, Models
from chat.replies.calls import read_calls_at_end
from chat.replies.deltas import Delta
from tuneline.formats.records import Message
from tuneline.models.constrained_decoding import Constraint, check_classes
from tuneline.models.thoughts import OPEN

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""What a decoder returns for a character whose last bytes are still to come."""
QUEUE_POLL = 0.2
"""Seconds between two checks whether a queued request has been cancelled."""


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


class Engine:
    """Streaming engine with at most MAX_RUNNING replies at a time and a bounded queue."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self.in_flight = 0
        """Requests that are queued or running."""
        self._slots = threading.BoundedSemaphore(MAX_RUNNING)
        self._count_lock = threading.Lock()

    def stream(
        self,
        name: str,
        messages: Sequence[Message],
        params: SamplingParams,
        cancelled: threading.Event | None = None,
    ) -> Generator[Delta]:
        """Deltas of a reply, whose texts joined are the whole reply. Closing the generator stops the generation.

        Once `cancelled` is set there are no more deltas, and a place in the queue is given up. Raises UnknownModelError,
        TooLongError, and ValueError for an invalid role or parameter, at once; BusyError with the first delta.
        """
        self.models.require(name)
        check_params(params)
        check_size(messages, params.tools)
        ids = self._prompt(messages, params)
        check_tokens(len(ids), params.max_new_tokens, self.models.context)
        processors = self._processors(params, messages[-1]["content"])
        deltas = self._deltas(name, ids, params, processors, cancelled or threading.Event())
        if not params.tools:
            return deltas
        return read_calls_at_end(deltas, self.models.reader, self.models.prompter.thought_marks, params.tools)

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

    def _deltas(
        self,
        name: str,
        ids: list[int],
        params: SamplingParams,
        processors: LogitsProcessorList,
        cancelled: threading.Event,
    ) -> Generator[Delta]:
        started = time.monotonic()
        with self._slot(cancelled):
            if cancelled.is_set():
                return
            model = self.models.get(name)
            output: SimpleQueue[int | BaseException | None] = SimpleQueue()
            closed = threading.Event()
            stopping = StoppingCriteriaList([StopOnEvent(cancelled), StopOnEvent(closed)])
            arguments = (model, ids, params.max_new_tokens, processors, output, stopping)
            thread = threading.Thread(target=self._generate, args=arguments, daemon=True)
            thread.start()
            try:
                for delta in self._decode(output, len(ids), started, params):
                    if not cancelled.is_set():
                        yield delta
            finally:
                closed.set()
                thread.join()

    def _processors(self, params: SamplingParams, question: str) -> LogitsProcessorList:
        """What is not allowed goes first: sampling is among the rest."""
        processors = gumbel_processors(params.temperature, params.top_p, params.seed, self.models.device)
        if params.constrain is None:
            return LogitsProcessorList(processors)
        task, classes = params.constrain
        constrained = self.models.constrainer.processor([Constraint(task, question, classes)])
        return LogitsProcessorList([constrained, *processors])

    @contextmanager
    def _slot(self, cancelled: threading.Event) -> Iterator[None]:
        """A slot among the running requests. Raises BusyError when the queue for one is full."""
        with self._count_lock:
            if self.in_flight >= MAX_RUNNING + MAX_WAITING:
                raise BusyError(self.in_flight)
            self.in_flight += 1
        acquired = False
        try:
            while not acquired and not cancelled.is_set():
                acquired = self._slots.acquire(timeout=QUEUE_POLL)
            yield
        finally:
            if acquired:
                self._slots.release()
            with self._count_lock:
                self.in_flight -= 1

    def _decode(
        self,
        output: "SimpleQueue[int | BaseException | None]",
        prompt_tokens: int,
        started: float,
        params: SamplingParams,
    ) -> Iterator[Delta]:
        """Incremental detokenization.

        All ids are decoded anew each time: a character may need several, and white space may depend on its neighbours.
        """
        ids: list[int] = []
        emitted = ""
        # A thought that the prompt has begun is shown from its beginning.
        begun = OPEN if self.models.prompter.opens_thoughts(params.thinking) else ""
        while (item := output.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            ids.append(item)
            text = begun + self._text(ids, params)
            complete = text.startswith(emitted) and not text.endswith(INCOMPLETE)
            new = text[len(emitted) :] if complete else ""
            yield Delta(new, len(ids), prompt_tokens, time.monotonic() - started, None)
            emitted = text if complete else emitted
        text = begun + self._text(ids, params)
        reason: Literal["stop", "length"] = "stop" if ids and ids[-1] in self.models.reader.stop_ids else "length"
        yield Delta(text[len(emitted) :], len(ids), prompt_tokens, time.monotonic() - started, reason)

    def _text(self, ids: list[int], params: SamplingParams) -> str:
        """Text of a reply's ids; with tools the control tokens of calls are a part of it, but none that ends it."""
        if not params.tools:
            return str(self.models.tokenizer.decode(ids, skip_special_tokens=True))
        return self.models.reader.decode(ids[:-1] if ids and ids[-1] in self.models.reader.stop_ids else ids)

    def _generate(
        self,
        model: ActiveModel,
        ids: list[int],
        max_new_tokens: int,
        processors: LogitsProcessorList,
        output: "SimpleQueue[Any]",
        stopping: StoppingCriteriaList,
    ) -> None:
        inputs = torch.tensor([ids], device=self.models.device)
        try:
            with torch.inference_mode(), self.models.use(model) as network:
                network.generate(
                    input_ids=inputs,
                    attention_mask=torch.ones_like(inputs),
                    max_new_tokens=max_new_tokens,
                    # GumbelSampler samples, with a seed of its own.
                    do_sample=False,
                    top_k=None,
                    top_p=None,
                    temperature=None,
                    eos_token_id=self.models.reader.stop_ids,
                    pad_token_id=self.models.tokenizer.pad_token_id or 0,
                    logits_processor=processors,
                    stopping_criteria=stopping,
                    streamer=QueueStreamer(output),
                )
            output.put(None)
        except BaseException as error:
            # The consumer at the other end of the queue raises it.
            output.put(error)


def check_params(params: SamplingParams) -> None:
    """Range check. Raises ValueError for a number that is out of range."""
    if not 0 <= params.temperature <= 2:
        raise ValueError(f"temperature is {params.temperature:g}, expected 0 (the likeliest token) to 2")
    if not 0 < params.top_p <= 1:
        raise ValueError(f"top_p is {params.top_p:g}, expected more than 0, up to 1")
    if not -(2**63) <= params.seed < 2**63:
        raise ValueError(f"seed is {params.seed}, expected -2^63 to 2^63 - 1")
    if params.constrain is not None:
        check_classes(*params.constrain, "constrain")
        if params.tools:
            raise ValueError(
                "tools are given beside constrain, expected one of them: a constrained reply calls nothing"
            )
        if params.thinking:
            raise ValueError(
                "thinking is on beside constrain, expected one of them: a constrained reply holds no thoughts"
            )
