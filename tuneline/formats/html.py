"""Self-contained HTML pages: no network, no script from elsewhere, the same bytes for the same values."""

from pathlib import Path
from typing import Any, NamedTuple

from tuneline.formats.templates import fill


class Text(NamedTuple):
    """What a page says, in its two languages, of which a reader sees one."""

    en: str
    zh: str


def render(template: Path, **values: Any) -> str:
    """Fill an HTML template, which may extend page.html.jinja; every value is escaped, a missing one is an error."""
    return fill(template, values, Path(__file__).parent)
