"""Messages in requests of OpenAI's chat completions."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from chat.openai.fields import IGNORED_IN_MESSAGE, REASONING
from chat.openai.strict_model import StrictModel
from chat.openai.tools import MAX_CALLS, CallInMessage
from tuneline.formats.records import Role

TEXT_PART = {"type", "text", "annotations", "cache_control"}
"""Keys of a part that is text; the last two change nothing."""


def join_text_parts(content: object) -> object:
    """Text of a message that may come in parts. Raises ValueError for a part that is no text."""
    if not isinstance(content, list):
        return content
    for part in content:
        if not isinstance(part, dict) or not {"type", "text"} <= part.keys() <= TEXT_PART or part["type"] != "text":
            raise ValueError('text, or parts like {"type": "text", "text": "..."} alone')
        if not isinstance(part["text"], str):
            raise ValueError("parts whose text is a string")
    return "\n".join(part["text"] for part in content)


class ChatMessage(StrictModel):
    role: Role
    content: Annotated[str, BeforeValidator(join_text_parts)]
    tool_calls: Annotated[list[CallInMessage], Field(max_length=MAX_CALLS)] = Field(default=[])
    """An assistant's alone, which then needs no content."""
    reasoning_content: str | None = None
    """An assistant's thoughts before it."""
    tool_call_id: str | None = None
    """A tool's alone, which needs it."""
    name: str | None = None
    """Of a tool, which goes by its call, and of a speaker: no template shows it."""

    @model_validator(mode="before")
    @classmethod
    def _by_role(cls, values: Any) -> Any:
        """As clients send it: a reply comes back with all fields that it had, and a system prompt has two names."""
        if not isinstance(values, dict):
            return values
        role = values.get("role")
        thoughts = [(name, "assistant") for name in REASONING]
        for name, owner in (("tool_calls", "assistant"), ("tool_call_id", "tool"), *thoughts):
            if values.get(name) and role != owner:
                raise ValueError(f"{name} only where the role is {owner}")
        if role == "tool" and not isinstance(values.get("tool_call_id"), str):
            raise ValueError("tool_call_id where the role is tool")
        if role == "developer":
            return values | {"role": "system"}
        if role != "assistant":
            return values
        return {name: value for name, value in values.items() if name not in {*IGNORED_IN_MESSAGE, *REASONING}} | {
            "content": values.get("content") or "",
            "reasoning_content": next((values[name] for name in REASONING if values.get(name)), None),
        }
