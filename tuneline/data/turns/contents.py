"""Contents of messages: text, or the texts of a list of typed parts."""

from typing import Any

from tuneline.data.turns.conversation import RejectedRecordError


def content_text(value: Any) -> str:
    """Text, or the texts of a list of typed parts. Raises RejectedRecordError for pictures and the like."""
    if isinstance(value, list):
        parts = part_texts(value)
        if parts is None:
            raise RejectedRecordError("content_not_text")
        value = "".join(parts)
    if not isinstance(value, str):
        raise RejectedRecordError("content_not_text")
    if not value.strip():
        raise RejectedRecordError("empty_turn")
    return value


def part_texts(parts: list[Any]) -> list[str] | None:
    """The texts of typed parts; None where one is no text."""
    texts = [_part_text(part) for part in parts]
    return None if None in texts else [text for text in texts if text is not None]


def _part_text(value: Any) -> str | None:
    if isinstance(value, dict) and value.get("type", "text") == "text":
        value = value.get("text", value.get("value"))
    return value if isinstance(value, str) else None
