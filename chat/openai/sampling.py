"""What requests of chat completions and of completions share: model, sampling, limits, streaming.

Temperature is 0 where none is given: greedy, the same reply every time (OpenAI's own default is 1). Without a seed, each
sample is new.
"""

from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from chat.engine import MAX_TOP_LOGPROBS, SamplingParams
from chat.openai.errors import ApiError
from chat.openai.parsing import MAX_STOP_CHARACTERS
from chat.openai.strict_model import StrictModel

DEFAULT_MAX_TOKENS = SamplingParams().max_new_tokens
MAX_STOPS = 16
MAX_CHOICES = 8
"""Replies to one prompt."""
Count = Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)]


def stop_list(stop: object) -> object:
    """Stop strings as a list, where one may come alone. Raises ValueError when there are more than MAX_STOPS."""
    if isinstance(stop, list) and len(stop) > MAX_STOPS:
        raise ValueError(f"at most {MAX_STOPS}")
    return [stop] if isinstance(stop, str) else stop


class StreamOptions(StrictModel):
    include_usage: bool = False
    include_obfuscation: bool = False
    """Changes nothing here: OpenAI pads its chunks with it."""
    continuous_usage_stats: bool = False


class SampledRequest(StrictModel):
    model: str
    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: Annotated[int, Field(ge=-1)] = 0
    """As vLLM has it: 0 and -1 are all."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] = 1
    stop: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]],
        BeforeValidator(stop_list),
    ] = Field(default=[])
    stream: bool = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _streams_with_options(self) -> "SampledRequest":
        if self.stream_options and not self.stream:
            raise ApiError(400, "stream_options is given, expected only with stream true", "stream_options")
        return self

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def sampled(self, fresh_seed: int, limit: int) -> SamplingParams:
        """Sampling parameters of the first choice. Without a seed in the request the fresh one is taken."""
        seed = fresh_seed if self.seed is None else self.seed
        return SamplingParams(limit, self.temperature, self.top_p, seed, top_k=max(self.top_k, 0))


def choices_of(params: SamplingParams, count: int) -> list[SamplingParams]:
    """Parameters of each choice: with seeds that follow each other, so that the first is as if it were alone."""
    return [params._replace(seed=following(params.seed, number)) for number in range(count)]


def following(seed: int, number: int) -> int:
    """The seed so many behind, within 64 bits."""
    return (seed + number + 2**63) % 2**64 - 2**63
