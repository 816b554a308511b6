"""Definitions of tools, in the form of OpenAI's API whatever theirs.

[{"type": "function", "function": {"name": "get_weather", "description": "…", "parameters": {…}}}]
[{"name": "get_weather", "parameters": {…}}]   "[{\\"name\\": …}]"   {"name": …}\\n{"name": …}
"""

from typing import Any

from tuneline.data.fields.names import first_field
from tuneline.data.fields.values import has_content, is_missing
from tuneline.data.tools.literals import read_literal, read_literals, rejected_as
from tuneline.data.turns.conversation import RejectedRecordError
from tuneline.formats.tool_definitions import tool_definition

TOOLS = ("tools", "functions")
"""Fields that hold them."""
UNREADABLE = "tools_unreadable"
"""Reason of a record whose definitions are none."""


def tools_field(fields: dict[str, Any], mapped: str = "") -> str:
    """The field of a record that holds definitions, "" for none."""
    name = mapped or first_field(TOOLS, fields)
    return name if name in fields and has_content(fields[name]) and not is_missing(fields[name]) else ""


def definitions_of(value: Any) -> list[dict[str, Any]]:
    """The definitions in a field's value. Raises RejectedRecordError for what is none."""
    return [_definition(entry) for entry in _entries(value)]


def _entries(value: Any) -> list[Any]:
    if isinstance(value, str):
        text = value.strip()
        if not text:
            return []
        try:
            value = read_literal(text, UNREADABLE)
        except RejectedRecordError:
            value = read_literals(text, UNREADABLE)
    if value is None:
        return []
    # One alone, or texts of one each.
    entries = value if isinstance(value, list) else [value]
    return [read_literal(entry, UNREADABLE) if isinstance(entry, str) else entry for entry in entries]


def _definition(entry: Any) -> dict[str, Any]:
    with rejected_as(UNREADABLE):
        return tool_definition(entry)
