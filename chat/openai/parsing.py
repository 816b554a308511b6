"""Parsing of request bodies: JSON to a request, or an error that names the field and what was expected."""

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from chat.openai.errors import ApiError
from chat.openai.fields import MAX_SHOWN, ignored_fields, known_fields, shorten_json

MAX_STOP_CHARACTERS = 200
EXPECTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "model_type": "an object",
    "string_too_short": "1 character or more",
    "string_too_long": f"at most {MAX_STOP_CHARACTERS} characters",
}
"""By pydantic's type of error."""
M = TypeVar("M", bound=BaseModel)


def parse_body(body: bytes, model: type[M]) -> tuple[M, tuple[str, ...]]:
    """(request, names of what was ignored). Raises ApiError 400, naming the field that is wrong and what was expected."""
    try:
        values = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(400, f"the body is no JSON: {error}", code="invalid_json") from None
    if not isinstance(values, dict):
        raise ApiError(400, f"the body is {shorten_json(values)}, expected a JSON object")
    try:
        request = model.model_validate(known_fields(values, model.model_fields))
    except ValidationError as error:
        raise validation_error(error.errors(include_url=False)[0]) from None
    return request, ignored_fields(values)


def validation_error(error: Any) -> ApiError:
    """Pydantic's error as a sentence with the field, its value and what was expected."""
    field = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return ApiError(400, f"{field} is missing", field, "missing_required_parameter")
    if error["type"] == "extra_forbidden":
        field = field[:MAX_SHOWN]
        return ApiError(400, f"{field} is no field of this server's", field, "unknown_parameter")
    expected = EXPECTED.get(error["type"], error["msg"].removeprefix("Value error, ").removeprefix("Input should be "))
    return ApiError(400, f"{field} is {shorten_json(error['input'])}, expected {expected}", field, "invalid_value")
