"""Self-contained HTML pages: no network, no script from elsewhere, the same bytes for the same values."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render(template: str, **values: Any) -> str:
    """Fill `<template>.html.jinja` of this folder; every value is escaped, a missing one is an error."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(f"{template}.html.jinja").render(**values)
