"""The definition of a tool is the same text for the model in training data, in a request, and where a person pastes it."""

import json

import pytest

from chat.openai.errors import ApiError
from chat.openai.tools import Tool
from chat.tool_definitions import DefinitionsError, read_definitions
from tuneline.data.tools.definitions import definitions_of
from tuneline.data.turns.conversation import RejectedRecordError
from tuneline.formats.tool_definitions import tool_definition

CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTIONS = [
    {"name": "weather", "description": "查询天气", "parameters": CITY},
    {"name": "now"},
    {"name": "weather", "parameters": {"city": {"type": "str, optional"}, "day": {"type": "date"}}},
]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_training_data_requests_and_the_page_have_one_form(function):
    entry = {"type": "function", "function": function}
    expected = tool_definition(entry)
    assert tool_definition(function) == expected
    assert definitions_of(json.dumps([function])) == definitions_of([entry]) == [expected]
    assert read_definitions(json.dumps(entry)) == (expected,)
    assert Tool.model_validate(entry).definition("tools.0") == expected


def test_types_of_python_become_those_of_json_schema_and_nothing_is_added():
    _, bare, named = (tool_definition(function)["function"] for function in FUNCTIONS)
    assert bare == {"name": "now"}
    properties = {"city": {"type": "string"}, "day": {"format": "date"}}
    assert named == {"name": "weather", "parameters": {"type": "object", "properties": properties}}


@pytest.mark.parametrize(
    ("entry", "says", "reason"),
    [
        (3, "has no name, expected", "tools_unreadable"),
        ({"function": {"name": " "}}, "has no name, expected", "tools_unreadable"),
        ({"function": {"name": "f", "strict": True}, "strict": False}, "says strict twice", "tools_unreadable"),
        ({"name": "f", "parameters": {"x": 2**70}}, "expected what JSON can write", "tools_unreadable"),
        ({"name": "f", "description": "\ufffd"}, "expected text without lost", "broken_characters_in_call"),
    ],
)
def test_each_place_says_in_its_own_way_what_is_wrong(entry, says, reason):
    with pytest.raises(ValueError, match=says):
        tool_definition(entry)
    with pytest.raises(RejectedRecordError, match=f"^{reason}$"):
        definitions_of([entry])
    with pytest.raises(DefinitionsError, match=f"^tool 1 .*{says}"):
        read_definitions(json.dumps(entry))


def test_a_request_with_a_value_that_no_prompt_can_hold_is_a_400():
    tool = Tool.model_validate({"type": "function", "function": {"name": "f", "parameters": {"x": "\ud800"}}})
    with pytest.raises(ApiError, match=r"^tools\.3 holds .* expected text without lost characters") as caught:
        tool.definition("tools.3")
    assert (caught.value.status, caught.value.body["error"]["param"]) == (400, "tools.3")


def test_null_is_what_is_left_out():
    assert tool_definition({"name": "f", "description": None, "parameters": None}) == {
        "type": "function", "function": {"name": "f"}
    }  # fmt: skip
