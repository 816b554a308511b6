"""Definitions of tools, in the form of OpenAI's API whatever theirs.

[{"type": "function", "function": {"name": "get_weather", "description": "…", "parameters": {…}}}]
[{"name": "get_weather", "parameters": {…}}]   "[{\\"name\\": …}]"   {"name": …}\\n{"name": …}
"""

from typing import Any

from tuneline.data.fields.names import first_field
from tuneline.data.fields.values import has_content, is_missing
from tuneline.data.tools.literals import check_value, read_literal, read_literals
from tuneline.data.turns.conversation import RejectedRecordError

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


_PYTHON = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "list": "array", "dict": "object"}


def _is_bare(parameters: dict[str, Any]) -> bool:
    """Whether parameters are described by their names alone, as in xLAM, and not by a JSON Schema."""
    return bool(parameters) and all(
        isinstance(one, dict) and isinstance(one.get("type"), str) for one in parameters.values()
    )


def _typed(schema: dict[str, Any]) -> dict[str, Any]:
    """With JSON Schema's name of a type in place of Python's: `str, optional` is a string. Another type is a format."""
    name = schema["type"].partition(",")[0].partition("[")[0].strip().lower()
    if name in _PYTHON:
        return {**schema, "type": _PYTHON[name]}
    return {"format" if k == "type" else k: v for k, v in schema.items()}


def _definition(entry: Any) -> dict[str, Any]:
    function = entry.get("function", entry) if isinstance(entry, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"].strip():
        raise RejectedRecordError(UNREADABLE)
    # What stands beside the function, such as `strict`, is a part of it; only the type that every one has is not.
    outer = {k: v for k, v in entry.items() if k != "function" and (k, v) not in (("type", "function"), ("type", None))}
    if function is not entry and any(function.get(name, value) != value for name, value in outer.items()):
        raise RejectedRecordError(UNREADABLE)
    function = function | outer if function is not entry else outer
    check_value(function, UNREADABLE)
    if isinstance(bare := function.get("parameters"), dict) and _is_bare(bare):
        function = {**function, "parameters": {"type": "object", "properties": {k: _typed(v) for k, v in bare.items()}}}
    return {"type": "function", "function": function}
