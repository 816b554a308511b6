"""Tool calls as text that people read, and as what is compared: `get_weather(city="北京", days=3)`."""

import json
from collections.abc import Sequence
from typing import Any

from tuneline.formats.records import Message, Record, ToolCall, references


def call_text(call: ToolCall) -> str:
    """A call in a line, its values as JSON."""
    arguments = ", ".join(f"{name}={_json(value)}" for name, value in call["arguments"].items())
    return f"{call['name']}({arguments})"


def answer_with_calls(content: str, calls: Sequence[ToolCall]) -> str:
    """An answer's text with its calls, a line each."""
    return "\n".join(filter(None, [content, *map(call_text, calls)]))


def message_text(message: Message) -> str:
    """A message's content with its calls."""
    return answer_with_calls(message["content"], message.get("tool_calls", ()))


def reference_texts(record: Record) -> list[str]:
    """All right answers of an item, calls included."""
    last = record["messages"][-1]
    return [message_text(last)] if last.get("tool_calls") else references(record)


def asked(record: Record) -> str:
    """What is to be answered: the last question, and what was called and found since."""
    messages = record["messages"][:-1]
    start = max((n for n, message in enumerate(messages) if message["role"] == "user"), default=0)
    signs = {"assistant": "→ ", "tool": "← "}
    return "\n".join(signs.get(message["role"], "") + message_text(message) for message in messages[start:])


def canonical(value: Any) -> str:
    """Equal for equal JSON: order of members is nothing, and 3.0 is 3."""
    return json.dumps(_numbers(value), ensure_ascii=False, sort_keys=True)


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _numbers(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_numbers(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
