"""Fields of requests that this server does not act on: those that change nothing are ignored and named, others are refused.

By what the packages of tests/test_real_clients.py and Open WebUI 0.12 send (tests/test_clients.py), and by vLLM's extensions.
"""

import json
from collections.abc import Container, Sequence
from typing import Any

from chat.openai.errors import ApiError

IGNORED = frozenset(
    {
        "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
        "prediction", "request_id", "priority", "cache_salt",
    }
)  # fmt: skip
"""Of a request; they change no reply."""
IGNORED_IN_MESSAGE = frozenset(
    {"annotations", "parsed", "provider_specific_fields", "reasoning_details", "thinking_blocks"}
)
"""Of an assistant's message that comes back."""
REASONING = ("reasoning_content", "reasoning")
"""Names of its thoughts; the first that is given counts, and only after the user's last message: templates show no others."""
IGNORED_IN_CALL = frozenset({"index", "parsed_arguments"})
UNSUPPORTED = {
    "logit_bias": ("{}",),
    "presence_penalty": ("0", "0.0"),
    "frequency_penalty": ("0", "0.0"),
    "repetition_penalty": ("1", "1.0"),
    "length_penalty": ("1", "1.0"),
    "min_p": ("0", "0.0"),
    "min_tokens": ("0",),
    "best_of": ("1",),
    "use_beam_search": ("false",),
    "ignore_eos": ("false",),
    "skip_special_tokens": ("true",),
    "add_generation_prompt": ("true",),
    "continue_final_message": ("false",),
    "reasoning_effort": ('"none"',),
    "verbosity": ('"medium"',),
    "modalities": ('["text"]',),
    "suffix": ('""',),
    "functions": ("[]",),
    "function_call": ('"auto"', '"none"'),
}
"""Unsupported fields with the values (as JSON) that ask for nothing and are accepted."""
HINTS = {"reasoning_effort": '; chat_template_kwargs {"enable_thinking": true} lets a model think'}
MAX_SHOWN = 80
"""Characters of a wrong value that its error message repeats."""
MAX_NAMED = 20
"""Ignored fields that the header names."""


def known_fields(values: dict[str, Any], known: Container[str]) -> dict[str, Any]:
    """The fields that are acted on. Raises ApiError 400 for one that is unknown, or asks for what this server does not do."""
    for name, value in values.items():
        expected = UNSUPPORTED.get(name)
        if expected and value is not None and json.dumps(value) not in expected:
            message = (
                f"{name} is {shorten_json(value)}, expected {expected[0]} or nothing: this server does not do more"
                + HINTS.get(name, "")
            )
            raise ApiError(400, message, name, "unsupported_value")
        if not expected and name not in IGNORED and name not in known and value is not None:
            message = f"{shorten_json(name)} is no field of this server's: expected one of docs/api.md"
            raise ApiError(400, message, name[:MAX_SHOWN], "unknown_parameter")
    return {name: value for name, value in values.items() if name in known}


def ignored_fields(values: dict[str, Any]) -> tuple[str, ...]:
    """Names of the fields of a request that are ignored, each once, in order."""
    names = [name for name, value in values.items() if name in IGNORED and value is not None]
    messages = values.get("messages")
    given = [message for message in messages if isinstance(message, dict)] if isinstance(messages, list) else []
    asked = last_question([message.get("role") for message in given])
    for place, message in enumerate(given):
        thoughts = [name for name in REASONING if message.get(name)]
        # A tool's goes by its call.
        names += ["messages.name"] * bool(message.get("name") and message.get("role") != "tool")
        ignored = {*IGNORED_IN_MESSAGE, *(thoughts[1:] if place > asked else thoughts)}
        names += [f"messages.{name}" for name in message if name in ignored and message[name]]
    return tuple(dict.fromkeys(names))[:MAX_NAMED]


def last_question(roles: Sequence[object]) -> int:
    """Place of the user's last message; -1 without one."""
    return max((place for place, role in enumerate(roles) if role == "user"), default=-1)


def ignored_header(names: tuple[str, ...]) -> dict[str, str]:
    """Response header that names what was ignored; none where nothing was."""
    return {"X-Ignored-Fields": ", ".join(names)} if names else {}


def shorten_json(value: object) -> str:
    """JSON of a value, truncated to MAX_SHOWN characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"
