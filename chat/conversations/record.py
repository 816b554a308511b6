"""A conversation with both models as the browser keeps it: data in the page, which chat/demo.js reads."""

import html
import json
from collections.abc import Sequence

from chat.i18n.texts import Text
from chat.side_by_side import shown_text
from tuneline.formats.records import Message


def record_html(models: Sequence[Text], system: str, histories: Sequence[Sequence[Message]]) -> str:
    """An element without text whose attribute holds the conversation as JSON; empty where nothing has been answered.

    Nothing of it comes back: a browser sends questions, never what was answered before.
    """
    if not any(message["role"] == "assistant" for history in histories for message in history):
        return ""
    columns = [
        {
            "model": {"zh": model.zh, "en": model.en},
            "messages": [{"role": message["role"], "content": shown_text(message)} for message in history],
        }
        for model, history in zip(models, histories, strict=True)
    ]
    told = json.dumps({"system": system.strip(), "columns": columns}, ensure_ascii=False)
    return f'<div data-conversation="{html.escape(told)}"></div>'
