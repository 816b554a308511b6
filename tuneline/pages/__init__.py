"""Self-contained pages: no network, no script from elsewhere, the same bytes for the same values."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape


def render(template: str, **values: Any) -> str:
    """Fill `<template>.html.jinja` of this folder; every value is escaped, a missing one is an error."""
    return _filled(f"{template}.html.jinja", values)


def markdown(template: str, **values: Any) -> str:
    """Fill `<template>.md.jinja`; a missing value is an error."""
    return _filled(f"{template}.md.jinja", values)


def _filled(name: str, values: dict[str, Any]) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=name.endswith(".md.jinja"),
    )
    return environment.get_template(name).render(**values)
