"""Rows of a batch: one request each, with its prompt, its logits processors, and the queue that its tokens go to."""

import threading
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple

import torch
from transformers import LogitsProcessorList

from chat.replies.deltas import TokenScore


class Token(NamedTuple):
    """One token of a reply."""

    id: int
    score: TokenScore | None = None
    """Where log probabilities were asked for."""


class Row:
    """One request while it waits and runs. What is said of it goes to `output`: tokens, then None or an error.

    Before the first token come the scores of the prompt's tokens, a list, where they were asked for.
    """

    def __init__(
        self,
        name: str,
        prompt: list[int],
        max_new_tokens: int,
        processors: LogitsProcessorList,
        cancelled: threading.Event,
        client: str = "",
        top_logprobs: int | None = None,
        scores_prompt: bool = False,
    ) -> None:
        self.name, self.prompt, self.max_new_tokens = name, prompt, max_new_tokens
        self.processors, self.cancelled, self.client = processors, cancelled, client
        self.top_logprobs, self.scores_prompt = top_logprobs, scores_prompt
        self.closed = threading.Event()
        """Set when nobody reads the output any more."""
        self.output: SimpleQueue[Token | list[TokenScore | None] | BaseException | None] = SimpleQueue()
        self.tokens: list[int] = []
        self.arrived = 0.0
        """When it was queued, by time.monotonic: while its model is loaded it waits for no place."""
        self.batched = True
        """Whether its model's rows can share a batch; known, as is what follows, once that is loaded."""
        self.stop_ids: Sequence[int] = ()
        """What ends it."""
        self.over = False
        """Whether its last word has been said."""

    @property
    def size(self) -> int:
        """Tokens at its end."""
        return len(self.prompt) + self.max_new_tokens

    @property
    def gone(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.closed.is_set() or self.cancelled.is_set()

    @property
    def ended(self) -> bool:
        return self.over or self.gone or len(self.tokens) >= self.max_new_tokens or self.tokens[-1] in self.stop_ids

    def end(self, error: BaseException | None = None) -> None:
        """Say that it is over, once."""
        if not self.over:
            self.over = True
            self.output.put(error)

    def take(self, logits: torch.Tensor, greedy: int) -> None:
        """Next token by the logits, float32 [V], whose argmax is `greedy`. An error of a processor is this row's alone."""
        if self.processors:
            last = torch.tensor([[(self.tokens or self.prompt)[-1]]], device=logits.device)
            greedy = int(self.processors(last, logits[None].clone())[0].argmax())
        score = None if self.top_logprobs is None else score_tokens(logits[None], [greedy], self.top_logprobs)[0]
        self.tokens.append(greedy)
        self.output.put(Token(greedy, score))


def score_tokens(logits: torch.Tensor, ids: Sequence[int], count: int) -> list[TokenScore]:
    """Log probabilities, in nats, of one token by each row of logits [n, V], and of the `count` likeliest ones there."""
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    own = logprobs.gather(1, torch.tensor(ids, device=logits.device)[:, None])[:, 0].tolist()
    values, places = logprobs.topk(count)
    tops: list[Any] = [tuple(zip(*pair, strict=True)) for pair in zip(places.tolist(), values.tolist(), strict=True)]
    return [TokenScore(*row) for row in zip(ids, own, tops, strict=True)]
