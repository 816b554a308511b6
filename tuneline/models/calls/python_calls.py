"""Calls written in Python with literal values, which are parsed and never evaluated."""

import ast
import json
import keyword
import re
from contextlib import suppress
from typing import Any

_MARK = "_Qkw"
_RESERVED = re.compile(rf"((?<=[(,\s])(?:{'|'.join(keyword.kwlist)})(?=\s*=(?!=)))")
"""Words of Python as names of arguments, such as `from`, which templates write all the same."""
LITERALS = {"true": True, "false": False, "null": None}


def parse_call(text: str) -> ast.Call | None:
    """A call in Python; some templates write line ends in strings as they are."""
    for written in (text, text.replace("\n", "\\n")):
        for readable in (written, _RESERVED.sub(rf"\1{_MARK}", written)):
            with suppress(SyntaxError, ValueError):
                call = ast.parse(readable, mode="eval").body
                return _unmarked(call) if isinstance(call, ast.Call) else None
    return None


def _unmarked(call: ast.Call) -> ast.Call:
    """With the names of arguments, and texts that look like some, as they were written."""
    for node in ast.walk(call):
        if isinstance(node, ast.keyword) and node.arg:
            node.arg = node.arg.removesuffix(_MARK)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = node.value.replace(_MARK, "")
    return call


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
