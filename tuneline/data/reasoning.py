"""Thoughts of a raw record: in a field of the record or of a message, or between <think> and </think> before an answer.

{"Question": "…", "Complex_CoT": "先想…", "Response": "…"}
{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…", "reasoning_content": "…"}]}
{"query": "…", "response": "<think>\n先想…\n</think>\n\n…"}
"""

from typing import Any

from tuneline.data.readers.conversation import Conversation
from tuneline.data.readers.field_names import MESSAGES, ROLE, ROLES, first_field
from tuneline.models.thoughts import in_answer

REASONING = (
    "reasoning_content", "reasoning", "complex_cot", "think", "thinking", "thought", "thoughts", "cot",
    "chain_of_thought", "reasoning_process", "思考过程", "思考", "推理过程",
)  # fmt: skip
"""Fields that hold thoughts, the likeliest first. Letter case does not matter."""


def take_reasoning(conversation: Conversation, fields: dict[str, Any]) -> None:
    """Put the thoughts of a record's answers where they belong, in place: `reasoning` of the answer that follows them."""
    answers = [message for message in conversation.messages if message["role"] == "assistant"]
    for message in answers:
        thoughts, content = in_answer(message["content"])
        if thoughts:
            message["content"], message["reasoning"] = content, thoughts
    conversation.references = [in_answer(reference)[1] for reference in conversation.references]
    found = [_reasoning(entry) for entry in _answering_entries(fields)]
    if len(found) == len(answers):
        for message, thoughts in zip(answers, found, strict=True):
            if thoughts:
                message["reasoning"] = thoughts
    elif any(found):
        # Entries were merged or left out: it can't be told whose thoughts they are.
        conversation.repairs.append("dropped_reasoning")
    if answers and (thoughts := _reasoning(fields)):
        answers[-1]["reasoning"] = thoughts


def _answering_entries(fields: dict[str, Any]) -> list[dict[str, Any]]:
    """Entries of a dialogue that the assistant has written."""
    entries = fields.get(first_field(MESSAGES, fields))
    if not isinstance(entries, list):
        return []
    return [entry for entry in entries if isinstance(entry, dict) and _speaker(entry) == "assistant"]


def _speaker(entry: dict[str, Any]) -> str | None:
    return ROLES.get(str(entry.get(first_field(ROLE, entry))).lower())


def _reasoning(fields: dict[str, Any]) -> str:
    text = fields.get(first_field(REASONING, fields))
    return text if isinstance(text, str) and text.strip() else ""
