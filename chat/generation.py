"""Streamer, stopping criterion and seeded sampler for transformers' `generate`."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from transformers import LogitsProcessor, StoppingCriteria, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper
from transformers.generation.streamers import BaseStreamer


class TokenStreamer(BaseStreamer):
    """Streamer that hands over token ids, one by one."""

    def __init__(self, take: Callable[[int], None]) -> None:
        self.take, self.is_prompt = take, True

    def put(self, value: torch.Tensor) -> None:
        # The first ids that `generate` puts are the prompt's.
        if not self.is_prompt:
            for token_id in value.flatten().tolist():
                self.take(token_id)
        self.is_prompt = False

    def end(self) -> None:
        """Nothing: the thread that calls `generate` marks the end when it is over."""


class StopWhen(StoppingCriteria):
    """Stopping criterion: ends the generation when a condition holds."""

    def __init__(self, condition: Callable[[], bool]) -> None:
        self.condition = condition

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self.condition(), device=input_ids.device)


class GumbelSampler(LogitsProcessor):
    """Gumbel-max sampling (Gumbel 1954): argmax(logit + noise) is a sample from the softmax.

    `generate` samples from torch's global generator, which all replies share: the same seed would not give the same reply.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.generator = torch.Generator(device).manual_seed(seed)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores - torch.empty_like(scores).exponential_(generator=self.generator).log()


class Sampled(Protocol):
    """What sampling goes by."""

    @property
    def temperature(self) -> float: ...
    @property
    def top_p(self) -> float: ...
    @property
    def top_k(self) -> int: ...
    @property
    def seed(self) -> int: ...


def gumbel_processors(params: Sampled, device: torch.device) -> list[LogitsProcessor]:
    """Logits processors [1, V] after which the argmax is a seeded sample; none for temperature 0, which is greedy."""
    if not params.temperature:
        return []
    warpers: list[LogitsProcessor] = [TemperatureLogitsWarper(params.temperature)]
    if params.top_k:
        warpers.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        warpers.append(TopPLogitsWarper(params.top_p))
    return [*warpers, GumbelSampler(params.seed, device)]
