"""Control tokens of a chat template: the tokens that no text may become."""

import re
from typing import Any

from tuneline.formats.records import Message
from tuneline.models.template_render import TemplateRenderer
from tuneline.models.template_tools import ANSWERED, ASKED, CALLED, GIVEN

OF_TEXT = re.compile(r"think|thought|reason|tool(?!.?(?:response|output|result))|function|arg_", re.IGNORECASE)
"""Added tokens that are written by a model itself, in an answer: no marks of what a tool has given."""
PROBED = ("system", "user", "assistant", "user")


def control_names(tokenizer: Any, renderer: TemplateRenderer) -> list[str]:
    """Names of the tokens that no text may become: the special ones, and what the template begins and ends turns with."""
    messages: list[Message] = [{"role": role, "content": "x"} for role in PROBED]  # type: ignore[typeddict-item]
    messages = renderer.arranged(messages)
    written = renderer.render(messages) + renderer.render(messages, True, True) + renderer.render(messages, True, False)
    if renderer.tools.shows_calls:
        written += renderer.render([ASKED, CALLED, GIVEN, ANSWERED])
    added = tokenizer.added_tokens_decoder.values()
    return [
        str(token)
        for token in added
        if str(token).strip() and (token.special or (str(token) in written and not OF_TEXT.search(str(token))))
    ]
