"""Cleaning of message text: placeholders that are filled, repairs that data.repairs allows, characters that are lost."""

import html
import re
from collections import Counter
from collections.abc import Callable
from functools import cache

from tuneline.data.answers import MAY_BE_EMPTY
from tuneline.data.config import Data
from tuneline.data.notices.answer_faults import is_no_label
from tuneline.data.notices.personal_data import personal_data
from tuneline.data.turns.conversation import Conversation, RejectedRecordError
from tuneline.formats.json_values import is_broken

PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}|<(NAME|AUTHOR)>")
_TAG = re.compile(r"</?(?:br|p|div|span|a|b|i|strong|em|li|ul|ol|table|tr|td|img|font)\b[^<>]*>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#\d+|#[xX][0-9a-fA-F]+|[A-Za-z][A-Za-z0-9]*);")
_END = re.compile(r"<eoa>\s*$")
_LONGEST_ENTITY = 64
"""Characters, leading zeros included. A longer one is no character, as one beyond Unicode is none."""


def _character(match: re.Match[str]) -> str:
    entity = match.group()
    # Python converts no number of thousands of digits.
    return "\ufffd" if entity[1] == "#" and len(entity) > _LONGEST_ENTITY else html.unescape(entity)


Repairs = tuple[tuple[str, str, Callable[[str], str]], ...]
"""Names, a text without which they change nothing, and what they do."""
REPAIRS: dict[str, tuple[str, Callable[[str], str]]] = {
    # Only what ends in a semicolon: html.unescape also turns the &copy of a link into a sign.
    "html_entities": ("&", lambda text: _ENTITY.sub(_character, text)),
    "html_tags": ("<", lambda text: _TAG.sub("", text)),
    "end_marker": ("<eoa>", lambda text: _END.sub("", text)),
    "trim": ("", str.strip),
}
"""In the order in which they are made."""
MASKED = "masked_answers"
"""Name of dialogues with answers that are marked as not to be learnt."""
TAGS = "html_tags"
"""Name of records whose text holds tags of HTML, which the repair of that name takes out."""


def clean(conversation: Conversation, params: Data, unfilled: Counter[str]) -> None:
    """Fill placeholders and make the repairs that params ask for, in place. Counts the placeholders left `unfilled`.

    Raises RejectedRecordError for broken characters and for a message that is empty.
    """
    repairs = chosen_repairs(tuple(params.repairs))
    for message in conversation.messages:
        role = message["role"]
        message["content"] = _clean_text(message["content"], role, repairs, conversation, params, unfilled)
        if "reasoning" in message:
            message["reasoning"] = _clean_text(
                message["reasoning"], "reasoning", repairs, conversation, params, unfilled
            )
        may_be_empty = (
            role == "tool" or "tool_calls" in message or (role == "assistant" and conversation.task in MAY_BE_EMPTY)
        )
        if not message["content"].strip() and not may_be_empty:
            raise RejectedRecordError(f"empty_{'answer' if role == 'assistant' else role}")
    if conversation.task == "label" and is_no_label(conversation.messages[-1]["content"]):
        raise RejectedRecordError("empty_answer")
    if conversation.references:
        # The first is the answer that is trained on, which is cleaned and counted already.
        others = [
            _clean_text(text, "reference", repairs, conversation, params, unfilled)
            for text in conversation.references[1:]
        ]
        conversation.references = [conversation.messages[-1]["content"], *others]


@cache
def chosen_repairs(names: tuple[str, ...]) -> Repairs:
    """Those that are named, in the order in which they are made."""
    return tuple((name, *repair) for name, repair in REPAIRS.items() if name in names)


def _clean_text(
    text: str, role: str, repairs: Repairs, conversation: Conversation, params: Data, unfilled: Counter[str]
) -> str:
    if is_broken(text):
        raise RejectedRecordError(f"broken_characters_in_{role}")
    original = text
    for name, cue, repair in repairs:
        if cue in text and (repaired := repair(text)) != text:
            conversation.repairs.append(name)
            text = repaired
    if "{{" in text or "<NAME>" in text or "<AUTHOR>" in text:
        text = _fill_placeholders(text, params.placeholders, unfilled)
    # &#0; is text before it is repaired.
    if text is not original and is_broken(text):
        raise RejectedRecordError(f"broken_characters_in_{role}")
    return text


def notices(conversation: Conversation) -> list[str]:
    """Names of what is learnt as it stands, and should be looked at."""
    texts = [message["content"] for message in conversation.messages]
    found = dict.fromkeys(name for text in texts for name in personal_data(text))
    if any("<" in text and _TAG.search(text) for text in texts):
        found[TAGS] = None
    if len(conversation.messages) > len(("question", "answer")) and not all(
        message.get("learn", True) for message in conversation.messages
    ):
        return [MASKED, *found]
    return [*found]


def _fill_placeholders(text: str, values: dict[str, str], unfilled: Counter[str]) -> str:
    lower = {name.lower(): value for name, value in values.items()}

    def fill(match: re.Match[str]) -> str:
        name = (match.group(1) or match.group(2)).lower()
        if name not in lower:
            unfilled[match.group()] += 1
        return lower.get(name, match.group())

    return PLACEHOLDER.sub(fill, text)
