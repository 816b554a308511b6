"""Syntax of tool calls: what stands around names and arguments, and the syntaxes that are widely in use."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["object", "named", "keyed", "python", "quoted"]
"""A JSON object with name and arguments; a name and JSON arguments; a name and keys with values as text; a name and keyword
arguments of Python; a name and JSON with bare keys, whose strings stand between quotes of their own."""


@dataclass(frozen=True)
class CallSyntax:
    """Pieces of text around the parts of a call; white space at their edges need not be there when an answer is read."""

    kind: Kind
    lead: str = ""
    """Before all calls of an answer."""
    opening: str = ""
    """Before a call's name, or its object."""
    named: str = ""
    """Between a name and its arguments."""
    key_opening: str = ""
    key_closing: str = ""
    """Between a key and its value."""
    value_closing: str = ""
    quote: str = ""
    """Around a string, where the arguments have quotes of their own."""
    closing: str = ""
    """After a call's arguments, or its object."""
    between: str = ""
    """Between a call and the next, beside what opens and closes them."""
    tail: str = ""
    """After all calls."""

    @property
    def marker(self) -> str:
        """What says that a call begins; empty where nothing but its form does."""
        return (self.lead + self.opening).strip()

    def without(self, names: Sequence[str]) -> "CallSyntax":
        """The same without these tokens."""
        kept = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "kind"}
        for token in names:
            kept = {name: piece.replace(token, "") for name, piece in kept.items()}
        return CallSyntax(self.kind, **kept)

    @property
    def pieces(self) -> tuple[str, ...]:
        return tuple(getattr(self, name) for name in self.__dataclass_fields__ if name != "kind")


HERMES = CallSyntax("object", opening="<tool_call>\n", closing="\n</tool_call>", between="\n")
PYTHON_TAG = CallSyntax("object", opening="<|python_tag|>", between=";")
CHATGLM3 = CallSyntax("python", named="\n```python\ntool_call(", closing=")\n```")
KNOWN = (
    CallSyntax("keyed", opening="<tool_call>\n<function=", named=">\n", key_opening="<parameter=", key_closing=">\n",
               value_closing="\n</parameter>\n", closing="</function>\n</tool_call>", between="\n"),
    CallSyntax("keyed", opening="<tool_call>", named="\n", key_opening="<arg_key>", key_closing="</arg_key>\n<arg_value>",
               value_closing="</arg_value>\n", closing="</tool_call>", between="\n"),
    HERMES,
    CallSyntax("named", opening="[TOOL_CALLS]", named="[ARGS]"),
    CallSyntax("object", lead="[TOOL_CALLS] [", between=", ", tail="]"),
    CallSyntax("object", lead="<|tool_call|>[", between=", ", tail="]<|/tool_call|>"),
    PYTHON_TAG,
    CallSyntax("quoted", opening="<|tool_call>call:", quote='<|"|>', closing="<tool_call|>"),
    CallSyntax("quoted", opening="<start_function_call>call:", quote="<escape>", closing="<end_function_call>"),
    CallSyntax("named", lead="<｜tool▁calls▁begin｜>", opening="<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
               named="\n```json\n", closing="\n```<｜tool▁call▁end｜>", tail="<｜tool▁calls▁end｜>"),
    CHATGLM3,
    CallSyntax("named", named="\n"),
    CallSyntax("object"),
)  # fmt: skip
"""By Qwen3-Coder, GLM-4.5, Hermes and Qwen, Mistral (new and old), Phi-4-mini, Llama 3.1, Gemma 4, FunctionGemma, DeepSeek,
ChatGLM3, GLM-4, and Llama 3.1 again. Those without a marker come last."""


def call_of(found: dict[str, Any]) -> tuple[str, Any] | None:
    """(name, arguments) of a call as an object, under the names that are in use."""
    inner = found.get("function")
    if isinstance(inner, dict):
        return call_of(inner)
    name = found.get("name", inner)
    if not isinstance(name, str) or not name:
        return None
    for key in ("arguments", "parameters", "args"):
        if key in found:
            return name, found[key]
    return None


def arguments_of(found: Any) -> dict[str, Any]:
    """Arguments that are an object, or one written as a string. Raises ValueError."""
    if isinstance(found, str):
        found = json.loads(found) if found.strip() else {}
    if not isinstance(found, dict):
        raise ValueError(f"arguments are {type(found).__name__}, expected an object")
    return found
