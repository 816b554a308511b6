"""Rendering of chat templates as transformers does: those of strangers in a child process with limits, ours here."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

from tuneline.models.chat_templates import is_ours
from tuneline.models.untrusted.limited_process import LimitedProcess, LimitError, Limits
from tuneline.models.untrusted.template_environment import rendered

LIMITS = Limits(cpu_seconds=5, memory_mb=1024, wall_seconds=300)
LONGEST = 2**20
"""Characters of a template; the longest that is published has some 30,000."""
THOUGHTS = ("reasoning_content", "thinking", "reasoning")
"""Names of a message's thoughts, in transformers' order."""


def apply_template(
    tokenizer: Any, template: str, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Any] | None = None,
    generation: bool = False, **variables: Any,
) -> str:  # fmt: skip
    """The text that `tokenizer.apply_chat_template` gives, whose arguments these are.

    Raises ValueError saying why there is none, LimitError among them.
    """
    given = {
        **tokenizer.special_tokens_map,
        **variables,
        "messages": [_message(message) for message in messages],
        "tools": list(tools) if tools else None,
        "documents": None,
        "add_generation_prompt": generation,
    }
    if _trusted(template):
        return rendered(template, given)
    return _in_child(template, given)


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """As transformers hands it to the template: nothing that is null, and thoughts under the names that templates read."""
    kept = {key: value for key, value in message.items() if value is not None}
    thoughts = next((kept[name] for name in THOUGHTS if name in kept), None)
    return kept if thoughts is None else {"thinking": thoughts, **kept, "reasoning_content": thoughts}


def computed_seconds() -> float:
    """Of computing that all templates have taken in this process."""
    return _child().seconds


@lru_cache(maxsize=64)
def _trusted(template: str) -> bool:
    return is_ours(template)


@cache
def _child() -> LimitedProcess:
    """One of this process for all templates."""
    return LimitedProcess(LIMITS)


def _in_child(template: str, variables: dict[str, Any]) -> str:
    if len(template) > LONGEST:
        raise LimitError(f"the base's chat template has {len(template)} characters, expected at most {LONGEST}")
    question = {"kind": "template", "key": _key(template), "variables": variables}
    try:
        answer = _child().ask(question)
        if answer.get("unknown"):
            answer = _child().ask(question | {"template": template})
    except LimitError as error:
        raise LimitError(f"the base's chat template {error}") from None
    except RecursionError:
        raise ValueError("a message holds values nested too deeply for a chat template") from None
    if "long" in answer:
        raise LimitError(f"the base's chat template makes {answer['long']} characters of a conversation")
    if "refused" in answer:
        raise ValueError(f"the base's chat template refuses it: {answer['refused']}")
    return str(answer["text"])


@lru_cache(maxsize=64)
def _key(template: str) -> str:
    return hashlib.sha256(template.encode("utf-8", "surrogatepass")).hexdigest()
