"""Chat templates that we wrote, one per family: what tuneline.models.chat_format does with ids, in Jinja for servers.

A server renders text and parses it, so text of a user that spells a control token becomes one there; the
id-level prompt of this pipeline does not do that.
"""

from pathlib import Path
from typing import Any


def chat_template(family: str) -> str:
    """The Jinja template of a family by its name in tuneline.models.chat_format.FAMILIES."""
    return (Path(__file__).parent / f"{family}.jinja").read_text(encoding="utf-8").rstrip("\n")


def is_ours(template: Any) -> bool:
    """Whether a tokenizer's template is one of these."""
    return any(
        template == path.read_text(encoding="utf-8").rstrip("\n") for path in Path(__file__).parent.glob("*.jinja")
    )
