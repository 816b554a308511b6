"""Request of OpenAI's older completions: a text or token ids that go on, without roles, as evaluation harnesses ask for."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StrictInt, StrictStr

from chat.engine import SamplingParams
from chat.limits import MAX_CHARACTERS
from chat.openai.errors import ApiError
from chat.openai.parsing import parse_body
from chat.openai.sampling import MAX_CHOICES, Count, SampledRequest

MAX_PROMPTS = 32
DEFAULT_MAX_TOKENS = 16
"""As OpenAI has it."""
Ids = Annotated[list[StrictInt], Field(min_length=1)]
Text = Annotated[StrictStr, Field(min_length=1, max_length=MAX_CHARACTERS)]


def prompt_list(prompt: object) -> object:
    """Prompts as a list, where one may come alone, as text or as ids."""
    alone = isinstance(prompt, str) or (isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], int))
    return [prompt] if alone else prompt


class CompletionRequest(SampledRequest):
    """Request body of POST /v1/completions."""

    prompt: Annotated[list[Text | Ids], Field(min_length=1, max_length=MAX_PROMPTS), BeforeValidator(prompt_list)]
    echo: bool = False
    """Whether texts and log probabilities begin with the prompt's own."""
    logprobs: Count | None = None

    def sampling_params(self, fresh_seed: int) -> SamplingParams:
        """Sampling parameters. Raises ApiError 400 for too many choices."""
        if len(self.prompt) * self.n > max(MAX_PROMPTS, MAX_CHOICES):
            message = f"n is {self.n} for {len(self.prompt)} prompts, expected at most {MAX_PROMPTS} choices together"
            raise ApiError(400, message, "n", "invalid_value")
        limit = DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens
        scores_prompt = self.echo and self.logprobs is not None
        return self.sampled(fresh_seed, limit)._replace(top_logprobs=self.logprobs, scores_prompt=scores_prompt)

    def prompt_ids(self, tokenizer: Any, encode: Callable[[str], list[int]]) -> list[list[int]]:
        """Token ids of each prompt. Raises ApiError 400 for ids that the tokenizer does not have."""
        size, found = len(tokenizer), []
        for number, prompt in enumerate(self.prompt):
            ids = encode(prompt) if isinstance(prompt, str) else prompt
            if wrong := [one for one in ids if not 0 <= one < size]:
                field = f"prompt.{number}"
                raise ApiError(
                    400, f"{field} holds the id {wrong[0]}, expected 0 to {size - 1}", field, "invalid_value"
                )
            found.append(ids)
        return found


def parse_completion(body: bytes) -> tuple[CompletionRequest, tuple[str, ...]]:
    """(request, names of what was ignored). Raises ApiError 400, naming the field that is wrong and what was expected."""
    return parse_body(body, CompletionRequest)
