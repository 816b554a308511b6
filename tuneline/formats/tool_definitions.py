"""The definition of a tool in one form, wherever it comes from: training data, a request, or what a person pastes.

{"type": "function", "function": {"name": "get_weather", "description": "…", "parameters": {…}}}   OpenAI's API, and ours
{"name": "get_weather", "parameters": {…}}
{"name": "get_weather", "parameters": {"city": {"type": "str, optional"}}}                          xLAM
"""

from typing import Any

from tuneline.formats.json_values import check_value

_PYTHON = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "list": "array", "dict": "object"}


def tool_definition(entry: Any) -> dict[str, Any]:
    """A definition as OpenAI's API has it; nothing is added that the entry does not say.

    Raises ValueError with what is wrong, of which the tool is the subject: `has no name, expected …`.
    """
    function = entry.get("function", entry) if isinstance(entry, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"].strip():
        raise ValueError('has no name, expected {"name": …, "parameters": …}')
    # What stands beside the function, such as `strict`, is a part of it; only the type that every one has is not.
    outer = {k: v for k, v in entry.items() if k != "function" and (k, v) not in (("type", "function"), ("type", None))}
    if function is not entry:
        twice = [name for name, value in outer.items() if function.get(name, value) != value]
        if twice:
            raise ValueError(f"says {twice[0]} twice, beside the function and in it, expected it once")
        function = function | outer
    else:
        function = outer
    # Clients send null for what they leave out.
    function = {name: value for name, value in function.items() if value is not None}
    check_value(function)
    if isinstance(bare := function.get("parameters"), dict) and _is_bare(bare):
        function = {**function, "parameters": {"type": "object", "properties": {k: _typed(v) for k, v in bare.items()}}}
    return {"type": "function", "function": function}


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
