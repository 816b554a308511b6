"""Self-contained pages: no network, no script from elsewhere, the same bytes for the same values."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape


def render(template: Path, **values: Any) -> str:
    """Fill an HTML template, which may extend page.html.jinja; every value is escaped, a missing one is an error."""
    return _filled(template, values)


def markdown(template: Path, **values: Any) -> str:
    """Fill a Markdown template; a missing value is an error."""
    return _filled(template, values)


def _filled(template: Path, values: dict[str, Any]) -> str:
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=template.name.endswith(".md.jinja"),
    )
    return environment.get_template(template.name).render(**values)
