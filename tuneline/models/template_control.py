"""Control tokens of a chat template: the tokens that no text may become."""

import re
from typing import Any

from tuneline.formats.records import Message
from tuneline.models.template_render import TemplateRenderer
from tuneline.models.template_tools import ANSWERED, ASKED, CALLED, GIVEN

OF_TEXT = re.compile(r"think|thought|reason|tool|function|arg_", re.IGNORECASE)
"""Added tokens that are written by a model itself, in an answer."""
OF_THOUGHTS = re.compile(r"think|thought|reason", re.IGNORECASE)
OF_RESULTS = re.compile("tool.?(?:response|output|result)", re.IGNORECASE)
PROBED = ("system", "user", "assistant", "user")


def control_names(tokenizer: Any, renderer: TemplateRenderer) -> list[str]:
    """Names of the tokens that no text may become: the special ones, and what the template begins and ends turns with."""
    messages: list[Message] = [{"role": role, "content": "x"} for role in PROBED]  # type: ignore[typeddict-item]
    messages = renderer.arranged(messages)
    written = renderer.render(messages) + renderer.render(messages, True, True) + renderer.render(messages, True, False)
    given = _around_observations(renderer)
    return [
        name
        for token in tokenizer.added_tokens_decoder.values()
        if (name := str(token)).strip()
        and (
            token.special
            or (name in written and not OF_TEXT.search(name))
            or (name in given and not OF_THOUGHTS.search(name))
        )
    ]


def _around_observations(renderer: TemplateRenderer) -> set[str]:
    """Added tokens that the template writes only where a function has given something, or that are called so."""
    if not renderer.tools.shows_calls:
        return set()
    whole = renderer.render([ASKED, CALLED, GIVEN, ANSWERED])
    try:
        without = renderer.render([ASKED, CALLED]) + renderer.render([ASKED, ANSWERED])
    except ValueError:
        return set()
    names = map(str, renderer.tokenizer.added_tokens_decoder.values())
    return {name for name in names if name in whole and (name not in without or OF_RESULTS.search(name))}
