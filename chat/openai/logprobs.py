"""Log probabilities as OpenAI's API has them, in its two forms."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from chat.replies.deltas import Delta, TokenScore


def chat_logprobs(deltas: Sequence[Delta], text_of: Callable[[int], str]) -> dict[str, Any]:
    """Of chat completions: a list with an object for each token."""
    content = [
        entry(score.id, score.logprob, text_of)
        | {"top_logprobs": [entry(token, logprob, text_of) for token, logprob in score.top]}
        for score in scores_of(deltas)
    ]
    return {"content": content, "refusal": None}


def text_logprobs(prompt_ids: Sequence[int], deltas: Sequence[Delta], text_of: Callable[[int], str]) -> dict[str, Any]:
    """Of completions: lists side by side; with the prompt's tokens first where they were scored, the first of them unknown."""
    scores: list[TokenScore | None] = [score for delta in deltas for score in delta.prompt_scores]
    tokens = [text_of(token) for token in prompt_ids] if scores else []
    scores += scores_of(deltas)
    tokens += [text_of(score.id) for score in scores_of(deltas)]
    offsets = [0]
    for token in tokens:
        offsets.append(offsets[-1] + len(token))
    return {
        "tokens": tokens,
        "token_logprobs": [score and score.logprob for score in scores],
        "top_logprobs": [score and {text_of(token): logprob for token, logprob in score.top} for score in scores],
        "text_offset": offsets[:-1],
    }


def scores_of(deltas: Sequence[Delta]) -> Iterator[TokenScore]:
    return (delta.score for delta in deltas if delta.score)


def entry(token: int, logprob: float, text_of: Callable[[int], str]) -> dict[str, Any]:
    text = text_of(token)
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}
