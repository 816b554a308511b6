"""Jinja as transformers sets it up for chat templates, without transformers: the child that renders them starts in no time.

Source: transformers 5.23, transformers.utils.chat_template_utils; a test renders the same by both.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

FREE, FACTOR = 2**20, 8
"""Characters that a text may have whatever it is made of, and for each byte of what is given."""
known: dict[str, str] = {}
"""Templates by the key under which they are asked for."""


class Generation(Extension):
    """The tag {% generation %}, which marks answers for those who want it and renders what is in it."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.CallBlock:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        block = jinja2.nodes.CallBlock(self.call_method("_rendered"), [], [], body)
        block.set_lineno(line)
        return block

    def _rendered(self, caller: Any) -> Any:
        return caller()


class _Dict:
    """`dict` without its attributes."""

    def __call__(self, *arguments: Any, **named: Any) -> dict[Any, Any]:
        return dict(*arguments, **named)

    def fromkeys(self, *arguments: Any) -> dict[Any, Any]:
        return dict.fromkeys(*arguments)


class _Namespace(jinja2.utils.Namespace):
    """A namespace whose names begin with no underscore."""

    def __init__(*arguments: Any, **named: Any) -> None:
        self, *rest = arguments
        values = dict(*rest, **named)
        for name in values:
            _check_name(name)
        jinja2.utils.Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(
            f"Chat templates cannot store underscore-prefixed attributes on a namespace, but got {name!r}."
        )


def _raise_exception(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@lru_cache(maxsize=64)
def compiled(template: str) -> jinja2.Template:
    """The template. Raises Jinja's TemplateSyntaxError."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": lambda form: datetime.now().strftime(form),
        "dict": _Dict(),
        "namespace": _Namespace,
    }
    return environment.from_string(template)


def rendered(template: str, variables: Mapping[str, Any]) -> str:
    """The template's text. Raises whatever the template makes of it."""
    return str(compiled(template).render(**variables))


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """In the child: {"text": what is rendered}, {"long": characters} of more than any conversation has, {"unknown": true}."""
    if "template" in question:
        known[question["key"]] = question["template"]
    if question["key"] not in known:
        return {"unknown": True}
    text = rendered(known[question["key"]], question["variables"])
    return {"long": len(text)} if len(text) > FREE + FACTOR * question["size"] else {"text": text}
