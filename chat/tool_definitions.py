"""Tool definitions that a person pastes or keeps in a file, checked before a model sees them."""

import json
from typing import Any

from chat.i18n.texts import Text
from tuneline.formats.tool_definitions import tool_definition
from tuneline.runtime.errors import sentence

MAX_TOOLS = 128


class DefinitionsError(ValueError):
    """Text that is no list of definitions."""

    def __init__(self, text: Text) -> None:
        super().__init__(text.en)
        self.text = text


def read_definitions(text: str) -> tuple[dict[str, Any], ...]:
    """Definitions as OpenAI's API has them, out of JSON: a list, or one alone; {"name", "parameters"} will do.

    Raises DefinitionsError saying which is wrong, and how.
    """
    if not text.strip():
        return ()
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DefinitionsError(
            Text(f"工具定义不是 JSON：{error}", f"the tools are no JSON: {error}; expected a list of definitions")
        ) from None
    entries = found if isinstance(found, list) else [found]
    if len(entries) > MAX_TOOLS:
        raise DefinitionsError(
            Text(
                f"有 {len(entries)} 个工具，最多 {MAX_TOOLS} 个",
                f"there are {len(entries)} tools, expected {MAX_TOOLS} at most",
            )
        )
    return tuple(_definition(number, entry) for number, entry in enumerate(entries, start=1))


def _definition(number: int, entry: Any) -> dict[str, Any]:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        definition = tool_definition(entry)
    except ValueError as error:
        unnamed = '没有 name，应为 {"name": …, "parameters": …}' if "has no name" in str(error) else f"有误：{error}"
        raise DefinitionsError(Text(f"第 {number} 个工具{unnamed}", f"tool {number} {error}")) from None
    function = definition["function"]
    try:
        Draft202012Validator.check_schema(function.get("parameters") or {})
    except SchemaError as error:
        raise DefinitionsError(
            Text(
                f"工具 {function['name']} 的 parameters 不是 JSON Schema：{sentence(error)}",
                f"parameters of tool {function['name']} are no JSON Schema: {error.message}",
            )
        ) from None
    return definition
