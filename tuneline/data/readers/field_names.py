"""Names that raw records give their fields and speakers, and what a record is by them: a pair, a dialogue or triples."""

import re
from functools import lru_cache
from typing import Any

QUESTION = (
    "question", "query", "ask", "instruction", "instruct", "prompt", "input", "human", "title", "text", "sentence",
    "问题", "提问", "咨询",
)  # fmt: skip
"""Fields that may hold the question, the likeliest first. Letter case does not matter."""
ANSWER = ("answer", "response", "output", "long_answer", "completion", "assistant", "label", "回答", "答案", "回复")
INSTRUCTION = ("instruction", "instruct")
SYSTEM = ("system", "meta_instruction", "system_prompt")
MESSAGES = ("messages", "conversations", "conversation", "dialog", "dialogue", "dialogs", "chat")
TRIPLES = ("spo_list", "triples")
ROLE = ("role", "from", "speaker")
CONTENT = ("content", "value", "text", "utterance")
ROLES = {
    **dict.fromkeys(("system",), "system"),
    **dict.fromkeys(
        ("user", "human", "client", "patient", "来访者", "咨询者", "客户", "患者", "病人", "孩子", "用户"), "user"
    ),
    **dict.fromkeys(("assistant", "gpt", "bot", "model", "chatbot", "counselor", "counsellor", "doctor"), "assistant"),
    **dict.fromkeys(("chatlaw", "心理咨询师", "咨询师", "律师", "医生", "智能助手", "助手"), "assistant"),
    **dict.fromkeys(("tool", "function", "function_call", "observation", "tool_call", "tool_response"), "tool"),
}
"""Names of speakers, in lower case, to roles."""
_FIELDS = {*QUESTION, *ANSWER, *SYSTEM, *MESSAGES, *TRIPLES, "history"}
_MENTION = re.compile('"(' + "|".join(sorted(_FIELDS)) + r')"\s*:', re.IGNORECASE)


def is_field(name: str) -> bool:
    """Whether a record of ours may have a field of this name."""
    return name.lower() in _FIELDS or name.lower() in ROLE


def mentions_field(text: str) -> bool:
    """Whether a text that is no whole JSON names such a field."""
    return _MENTION.search(text) is not None


def is_record(value: Any) -> bool:
    """Whether a JSON value looks like a record: it has a field of a known name."""
    value = unwrap(value)
    if isinstance(value, list):
        return is_message(value[0]) if value else False
    return isinstance(value, dict) and any(isinstance(name, str) and name.lower() in _FIELDS for name in value)


def is_message(value: Any) -> bool:
    """Whether the value is one message of a dialogue, of any kind."""
    if not isinstance(value, dict):
        return False
    role, content = first_field(ROLE, value), first_field(CONTENT, value)
    if role and content:
        return str(value[role]).lower() in ROLES
    return {name.lower() for name in value} <= set(ROLES)


def unwrap(value: Any) -> Any:
    """The only element of a list of one, as some files wrap records and values."""
    return value[0] if isinstance(value, list) and len(value) == 1 and not is_message(value[0]) else value


def first_field(names: tuple[str, ...], fields: dict[str, Any]) -> str:
    """The field of the record whose name comes first in `names`, "" when there is none."""
    found = present_fields(names, tuple(fields))
    return found[0] if found else ""


@lru_cache(maxsize=4096)
def present_fields(names: tuple[str, ...], fields: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the fields that `names` has, in its order. Letter case does not matter."""
    lower = {name.lower(): name for name in fields}
    return tuple(lower[name] for name in names if name in lower)
