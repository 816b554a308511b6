"""Questions to streamed answers: what the terminal, the web page and the API have in common."""

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, Literal, NamedTuple

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)
from transformers.generation.streamers import BaseStreamer

from chat.limits import RUNNING, WAITING, BusyError, check_size, check_tokens
from chat.models import Models, Switched
from tuneline.formats.records import Message

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What a decoder gives for a character whose last bytes are still to come."""

PATIENCE = 0.2
"""Seconds between two looks whether a question in the queue is still wanted."""


class Settings(NamedTuple):
    max_new_tokens: int = 256
    temperature: float = 0.0
    """0 is greedy: the same answer every time."""
    top_p: float = 1.0
    seed: int = 0


class Piece(NamedTuple):
    """One more token of an answer, or its end."""

    text: str
    """What it adds; nothing while a character is incomplete."""
    tokens: int
    """Of the answer so far."""
    prompt_tokens: int
    seconds: float
    """Since the question was asked."""
    finish: Literal["stop", "length"] | None
    """Why the answer ends here; None while it goes on."""


class Answerer:
    """Answers questions, at most RUNNING at a time and with a bounded queue."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self._running = threading.BoundedSemaphore(RUNNING)
        self._counting = threading.Lock()
        self._present = 0

    def ask(
        self, name: str, messages: Sequence[Message], settings: Settings, gone: threading.Event | None = None
    ) -> Generator[Piece]:
        """Pieces of the answer, whose texts joined are all of it. Closing the iterator stops the answer.

        Once the asker is `gone` there are no more pieces, and a place in the queue is given up. Raises UnknownModelError,
        TooLongError, and ValueError for a role or setting that is none, at once; BusyError with the first piece.
        """
        self.models.known(name)
        check_settings(settings)
        check_size(messages)
        ids = self.models.prompter.generation_prompt(messages)
        check_tokens(len(ids), settings.max_new_tokens, self.models.context)
        return self._pieces(name, ids, settings, gone or threading.Event())

    def _pieces(self, name: str, ids: list[int], settings: Settings, gone: threading.Event) -> Generator[Piece]:
        started = time.monotonic()
        with self._place(gone):
            if gone.is_set():
                return
            model = self.models.get(name)
            said: SimpleQueue[int | BaseException | None] = SimpleQueue()
            closed = threading.Event()
            stops = StoppingCriteriaList([Stopped(gone), Stopped(closed)])
            thread = threading.Thread(target=self._generate, args=(model, ids, settings, said, stops), daemon=True)
            thread.start()
            try:
                for piece in self._decoded(said, len(ids), started):
                    if not gone.is_set():
                        yield piece
            finally:
                closed.set()
                thread.join()

    @contextmanager
    def _place(self, gone: threading.Event) -> Iterator[None]:
        """A place among those that are answered. Raises BusyError when the queue for one is full."""
        with self._counting:
            if self._present >= RUNNING + WAITING:
                raise BusyError(f"{self._present} questions are being answered or wait: ask again later")
            self._present += 1
        placed = False
        try:
            while not placed and not gone.is_set():
                placed = self._running.acquire(timeout=PATIENCE)
            yield
        finally:
            if placed:
                self._running.release()
            with self._counting:
                self._present -= 1

    def _decoded(self, said: "SimpleQueue[int | BaseException | None]", prompt: int, started: float) -> Iterator[Piece]:
        """Ids to text: all of them anew each time, since a character may need several and white space may depend on both."""
        ids: list[int] = []
        shown = ""
        while (one := said.get()) is not None:
            if isinstance(one, BaseException):
                raise one
            ids.append(one)
            text = str(self.models.tokenizer.decode(ids, skip_special_tokens=True))
            whole = text.startswith(shown) and not text.endswith(UNFINISHED)
            yield Piece(text[len(shown) :] if whole else "", len(ids), prompt, time.monotonic() - started, None)
            shown = text if whole else shown
        text = str(self.models.tokenizer.decode(ids, skip_special_tokens=True))
        ended: Literal["stop", "length"] = "stop" if ids and ids[-1] in self.models.prompter.stop_ids else "length"
        yield Piece(text[len(shown) :], len(ids), prompt, time.monotonic() - started, ended)

    def _generate(
        self, model: Switched, ids: list[int], settings: Settings, said: "SimpleQueue[Any]", stops: StoppingCriteriaList
    ) -> None:
        inputs = torch.tensor([ids], device=self.models.device)
        try:
            with torch.inference_mode(), self.models.asking(model) as network:
                network.generate(
                    input_ids=inputs,
                    attention_mask=torch.ones_like(inputs),
                    max_new_tokens=settings.max_new_tokens,
                    # Drawing is done by Draw, with a seed of its own.
                    do_sample=False,
                    top_k=None,
                    top_p=None,
                    temperature=None,
                    eos_token_id=self.models.prompter.stop_ids,
                    pad_token_id=self.models.tokenizer.pad_token_id or 0,
                    logits_processor=drawing(settings, self.models.device),
                    stopping_criteria=stops,
                    streamer=Ids(said),
                )
            said.put(None)
        except BaseException as error:
            # It belongs to whoever waits at the other end.
            said.put(error)


def check_settings(settings: Settings) -> None:
    """Raises ValueError for a number that is out of range."""
    if not 0 <= settings.temperature <= 2:
        raise ValueError(f"temperature is {settings.temperature:g}, expected 0 (the likeliest token) to 2")
    if not 0 < settings.top_p <= 1:
        raise ValueError(f"top_p is {settings.top_p:g}, expected more than 0, up to 1")
    if not -(2**63) <= settings.seed < 2**63:
        raise ValueError(f"seed is {settings.seed}, expected -2^63 to 2^63 - 1")


class Ids(BaseStreamer):
    """Hands ids over one by one; the first that `generate` puts are the prompt's."""

    def __init__(self, said: "SimpleQueue[Any]") -> None:
        self.said, self.prompt = said, True

    def put(self, value: torch.Tensor) -> None:
        if not self.prompt:
            for one in value.flatten().tolist():
                self.said.put(one)
        self.prompt = False

    def end(self) -> None:
        """The end is told by the thread, when it is over."""


class Stopped(StoppingCriteria):
    """Ends an answer when whoever asked has gone."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self.stop.is_set(), device=input_ids.device)


class Draw(LogitsProcessor):
    """Draw the next token, by the Gumbel-max trick (Gumbel 1954): the highest of logit + noise is a draw from the softmax.

    `generate` draws from torch's one generator, which all answers share: the same seed would not give the same answer.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.generator = torch.Generator(device).manual_seed(seed)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores - torch.empty_like(scores).exponential_(generator=self.generator).log()


def drawing(settings: Settings, device: torch.device) -> LogitsProcessorList:
    """What is done to logits [1, V] before the highest is taken."""
    if not settings.temperature:
        return LogitsProcessorList()
    warpers = [TemperatureLogitsWarper(settings.temperature)]
    if settings.top_p < 1:
        warpers.append(TopPLogitsWarper(settings.top_p))
    return LogitsProcessorList([*warpers, Draw(settings.seed, device)])
