"""Calls written in Python with literal values, which are parsed and never evaluated."""

import ast
import json
from contextlib import suppress
from typing import Any

LITERALS = {"true": True, "false": False, "null": None}


def parse_call(text: str) -> ast.Call | None:
    """A call in Python; some templates write line ends in strings as they are."""
    for written in (text, text.replace("\n", "\\n")):
        with suppress(SyntaxError, ValueError):
            call = ast.parse(written, mode="eval").body
            return call if isinstance(call, ast.Call) else None
    return None


def literal_value(node: ast.expr) -> Any:
    """Value of a literal, with the constants of JSON; nothing is evaluated."""

    value = ast.literal_eval(_Constants().visit(node))
    try:
        # Tuples are lists here; sets, bytes and complex numbers are nothing that a call can have.
        return json.loads(json.dumps(value, allow_nan=False))
    except TypeError as error:
        raise ValueError(f"a call has a value that is no JSON: {error}") from None


class _Constants(ast.NodeTransformer):
    """The constants of JSON, which Python knows by other names."""

    def visit_Name(self, name: ast.Name) -> ast.expr:
        return ast.Constant(LITERALS[name.id]) if name.id in LITERALS else name
