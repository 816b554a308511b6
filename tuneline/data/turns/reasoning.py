"""Thoughts of a raw record: in a field of the record or of a message, or between <think> and </think> before an answer.

{"Question": "…", "Complex_CoT": "先想…", "Response": "…"}
{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…", "reasoning_content": "…"}]}
{"query": "…", "response": "<think>\n先想…\n</think>\n\n…"}
"""

from collections.abc import Collection
from typing import Any

from tuneline.data.fields.accounted import REASONING
from tuneline.data.fields.names import present_fields
from tuneline.data.fields.values import is_missing
from tuneline.data.turns.conversation import Conversation
from tuneline.models.thoughts import in_answer


def thoughts_of(fields: dict[str, Any], ignored: Collection[str] = (), path: str = "") -> tuple[str, str]:
    """(field, its text) of the thoughts in a record or a message, ("", "") for none.

    `ignored` names fields, by themselves or with the `path` that they are in.
    """
    for name in present_fields(REASONING, tuple(fields)):
        text = fields[name]
        if (
            isinstance(text, str)
            and text.strip()
            and not is_missing(text)
            and not {name, f"{path}.{name}"} & {*ignored}
        ):
            return name, text
    return "", ""


def take_reasoning(conversation: Conversation, fields: dict[str, Any]) -> None:
    """Put the thoughts of a record, and those within its answers, before the answer that follows them, in place."""
    answers = [message for message in conversation.messages if message["role"] == "assistant"]
    for message in answers:
        thoughts, content = in_answer(message["content"])
        if thoughts:
            message["content"] = content
            if message.setdefault("reasoning", thoughts).strip() != thoughts.strip():
                conversation.repairs.append("dropped_reasoning")
    conversation.references = [in_answer(reference)[1] for reference in conversation.references]
    name, thoughts = thoughts_of({name: fields[name] for name in fields if name not in conversation.used})
    # Others than the answer's own stay unused.
    if answers and thoughts and answers[-1].setdefault("reasoning", thoughts).strip() == thoughts.strip():
        conversation.used.add(name)
