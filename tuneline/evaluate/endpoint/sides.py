"""Base and tuned model at their servers: how each is reached, what is kept of it, and what the results say of both."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline.endpoint.client import Endpoint
from tuneline.evaluate.config import Evaluate
from tuneline.evaluate.endpoint.kept import Kept, kept_answers
from tuneline.runtime.hashing import SUMS, file_sha256, folder_sha256
from tuneline.runtime.terminal.lines import say

if TYPE_CHECKING:
    from tuneline.evaluate.answering import Questions
    from tuneline.evaluate.predict import Answer


def open_endpoint(params: Evaluate, *, tuned: bool) -> Endpoint:
    """Raises ValueError when the key's variable is not set."""
    url, model = (params.url, params.model) if tuned else params.base_endpoint
    assert url is not None, "the section checks it"
    assert model is not None, "the section checks it"
    return Endpoint(url, model, api_key(params.api_key_env), connections=params.concurrency)


def api_key(variable: str | None, option: str | None = None) -> str | None:
    """The server's key, from the environment variable of this name. Raises ValueError when that is not set.

    `option` is what has named the variable, evaluate.api_key_env by default.
    """
    if variable is None:
        return None
    if not (key := os.environ.get(variable)):
        otherwise = f"leave {option} out" if option else "set evaluate.api_key_env to null in params.yaml"
        raise ValueError(
            f"{option or 'evaluate.api_key_env'} is {variable}, and no such variable is set: "
            f"`export {variable}=…`, or {otherwise}"
        )
    return key


def server_name(endpoint: Endpoint) -> str:
    """`vllm 0.32.1`."""
    kind, version, *_ = endpoint.server()
    return f"{kind} {version}" if version else kind


def kept_of(endpoint: Endpoint, asked: "Questions") -> Kept:
    """Answers of an earlier run of the same model at the same server that had no end; says so when there are some."""
    kept = kept_answers([endpoint.url, server_name(endpoint), identity(asked.base), identity(asked.adapter)])
    if kept.before:
        say(f"{asked.label}: {kept.before} answers are there from a run that did not end ({kept.path})")
    return kept


def identity(folder: Path | None) -> str | None:
    """What tells a base or adapter from another one: its list of hashes, or that of all its files."""
    if folder is None:
        return None
    sums = folder / SUMS
    return file_sha256(sums) if sums.is_file() else folder_sha256(folder)


def check_backend(params: Evaluate, base: "list[Answer]") -> "list[Answer]":
    """The base's answers. Raises ValueError where they are by another backend: scores would not be of the same thing."""
    if any(("server" in one) != (params.backend == "endpoint") for one in base):
        raise ValueError(
            f"evaluate.backend is {params.backend}, and the base's answers are by another one: run `dvc repro predict_base`"
        )
    return base


def backend_record(params: Evaluate, base: "Sequence[Answer]", tuned: "Sequence[Answer]") -> dict[str, Any]:
    """Of section `generation` of eval_details.json: who answered, and by how many prompts of another length than ours."""
    if params.backend != "endpoint":
        return {"backend": params.backend}
    sides = {"base": base, "tuned": tuned}
    return {
        "backend": params.backend,
        "models": {"base": params.base_model, "tuned": params.model},
        "servers": {side: " and ".join(sorted({one["server"] for one in answers})) for side, answers in sides.items()},
        "left_out": {side: left_out(answers) for side, answers in sides.items()},
        "other_prompt_lengths": {side: other_prompt_lengths(answers) for side, answers in sides.items()},
    }


def left_out(answers: "Sequence[Answer]") -> list[str]:
    """Fields of requests that a server refused, and answered without."""
    return sorted({field for one in answers for field in one.get("left_out", ())})


def other_prompt_lengths(answers: "Sequence[Answer]") -> int | None:
    """Answers whose prompt was, by the server's count, longer or shorter than ours; None where it does not count them all."""
    counted = [one["prompt_tokens"] for one in answers if "prompt_tokens" in one]
    return sum(ours != theirs for ours, theirs in counted) if len(counted) == len(answers) else None
