"""Chat format: messages to ids, for training and for generation side by side, so that the two cannot drift apart.

Control tokens are placed as ids and everything a person wrote is encoded as plain text by a tokenizer
that knows no control tokens, so no text can forge a role (transformers#29279). The prompt is that of the base's own chat
template (tuneline.models.template_prompt); a base that has none gets one of ours (tuneline.models.chat_families).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

from tuneline.formats.example import Encoded
from tuneline.formats.records import Message
from tuneline.models.thoughts import ThoughtMarks

Mask = Literal["all_answers", "last_answer"]
"""Which assistant turns carry loss."""
Reasoning = Literal["learn", "mask"]
"""Whether thoughts before an answer carry loss with it."""
Tools = Sequence[dict[str, Any]]
"""Definitions of functions that may be called, as OpenAI's API has them."""


class Prompter(ABC):
    """Encodes messages for one tokenizer."""

    name: str
    """`own` for the base's own chat template, else the name of a family of ours."""
    plain: Any
    """The tokenizer without control tokens."""
    control: set[int]
    """Ids that this class places, and text never becomes."""
    stop_ids: list[int]
    """What ends an answer."""
    lead: list[int]
    """What a model writes itself between the generation prompt and an answer without thoughts."""
    thought_marks: ThoughtMarks = ThoughtMarks()

    def opens_thoughts(self, thinking: bool) -> bool:
        """Whether a generation prompt ends within a thought that it has begun."""
        return False

    def text(self, content: str) -> list[int]:
        """Ids of plain text: never a control token, whatever it says."""
        return list(self.plain.encode(content, add_special_tokens=False).ids)

    @abstractmethod
    def generation_prompt(
        self, messages: Sequence[Message], thinking: bool = False, tools: Tools | None = None
    ) -> list[int]:
        """Ids up to where the assistant's answer begins. The last message must be the user's, or a tool's.

        `thinking` is whether the answer may begin with thoughts, where the base's template has that choice. Raises ValueError
        for tools, calls and a tool's answers where the template has none.
        """

    def training_row(
        self,
        messages: Sequence[Message],
        mask: Mask = "all_answers",
        reasoning: Reasoning = "learn",
        tools: Tools | None = None,
    ) -> Encoded:
        """Ids and labels of a whole conversation, which ends with the assistant's answer and what ends it.

        Calls are a part of an answer, and a tool's answers are not. Raises ValueError when no token would carry loss, for an
        unknown role or a late system prompt, and for tools where the template has none.
        """
        return self.training_rows([messages], mask, reasoning, [tools])[0]

    def training_rows(
        self,
        conversations: Sequence[Sequence[Message]],
        mask: Mask = "all_answers",
        reasoning: Reasoning = "learn",
        tools: Sequence[Tools | None] | None = None,
    ) -> list[Encoded]:
        """The same for many, whose texts are encoded together: on all cores, and to the same ids.

        `tools` has one entry a conversation.
        """
        return self.rows(self.encode(conversations, tools), mask, reasoning)

    @abstractmethod
    def encode(self, conversations: Sequence[Sequence[Message]], tools: Sequence[Tools | None] | None = None) -> Any:
        """The texts of the conversations, encoded; Python is free for other threads meanwhile."""

    @abstractmethod
    def rows(self, encoded: Any, mask: Mask, reasoning: Reasoning = "learn") -> list[Encoded]:
        """The training rows of what `encode` gave."""


def load_prompter(tokenizer: Any) -> Prompter:
    """The prompt of a tokenizer: its own chat template's, or ours for a base that has none.

    Raises ValueError for a template that is not followed, saying what it does, and for unknown turn markers without a template.
    """
    from tuneline.models.chat_families import FamilyPrompter
    from tuneline.models.chat_templates import is_ours
    from tuneline.models.template_check import check_template
    from tuneline.models.template_prompt import TemplatePrompter

    if not tokenizer.chat_template or is_ours(tokenizer.chat_template):
        return FamilyPrompter(tokenizer)
    prompter = TemplatePrompter(tokenizer)
    check_template(prompter)
    prompter.renderer.accept()
    return prompter


def check_roles(messages: Sequence[Message]) -> None:
    """Raises ValueError for an unknown role or a late system prompt."""
    for number, message in enumerate(messages):
        if message["role"] == "system" and number:
            raise ValueError(f"message {number} is a system prompt, expected only before the first turn")
        if message["role"] not in ("system", "user", "assistant", "tool"):
            raise ValueError(f"message {number} has role {message['role']!r}, expected system, user, assistant or tool")


def check_asks(messages: Sequence[Message]) -> None:
    """Raises ValueError for messages that nothing is to be answered in."""
    if not messages or messages[-1]["role"] not in ("user", "tool"):
        raise ValueError("a generation prompt ends with a user's message, or a tool's")


def as_list(ids: int | Sequence[int] | None) -> list[int]:
    """Ends as transformers' configurations have them: none, one or several."""
    if ids is None:
        return []
    return [ids] if isinstance(ids, int) else list(ids)
