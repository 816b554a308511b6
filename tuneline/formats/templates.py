"""Jinja templates: a missing value is an error, and HTML escapes every value."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape


def fill(template: Path, values: dict[str, Any], *folders: Path) -> str:
    """The text of a template, which may extend those that lie beside it or in `folders`."""
    environment = Environment(
        loader=FileSystemLoader([template.parent, *folders]),
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=template.name.endswith(".md.jinja"),
    )
    return environment.get_template(template.name).render(**values)
