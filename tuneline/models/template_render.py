"""Rendering of a checkpoint's own chat template, in a process with limits, and what it does with messages.

Found by rendering, never by reading the template's source: in which form it takes contents, whether it has a system prompt, and
under which name it takes thoughts.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from tuneline.formats.records import Message
from tuneline.models.template_tool_use.support import ToolSupport, with_calls
from tuneline.models.thoughts import CLOSE, OPEN, in_answer
from tuneline.models.untrusted.limited_process import LimitError
from tuneline.models.untrusted.templates import apply_template, computed_seconds

DATE = {"%d": "26", "%b": "Jul", "%B": "July", "%m": "07", "%Y": "2024", "%y": "24", "%H": "00", "%M": "00", "%S": "00"}
"""What a template that writes today's date gets: ids must not change with the day. It is Llama 3.2's own default."""
FIXED_DATE = (
    "{% macro strftime_now(form) %}{{ form"
    + "".join(f" | replace('{code}', '{value}')" for code, value in DATE.items())
    + " }}{% endmacro %}{{ '' }}"
)

TRIAL_SECONDS = 30
"""Of computing that a template may take until it is accepted; some hundred conversations take published ones less than one."""


def sentinel(message: int, field: str) -> str:
    """A text that stands for a content, and is found again in what a template renders."""
    return f"Qx{message:03}{field[0]}xQ"


class TemplateRenderer:
    """The chat template of a tokenizer, and how it takes messages.

    Raises ValueError when it renders no plain conversation, or leaves out what is in it.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.template = tokenizer.chat_template
        self.dated = "strftime_now" in self.template
        """Whether it may write today's date."""
        if self.dated:
            self.template = FIXED_DATE + self.template
        self.on_trial = True
        """Whether one conversation that takes too long or too much memory is the end of it, as it is until `accept`."""
        self.exceeded: LimitError | None = None
        self._began = computed_seconds()
        self.in_parts = False
        """Whether it takes a content as a list of parts."""
        plain = _sentinels("user", "assistant", "user", "assistant")
        if not self._keeps(plain):
            self.in_parts = True
            if not self._keeps(plain):
                self.in_parts = False
                self.render(plain)
                raise ValueError(
                    "the base's chat template leaves out texts of a plain conversation of user and assistant"
                )

    def accept(self) -> None:
        """End its trial. Raises LimitError for a template that took too long, or too much memory, for any conversation."""
        if self.exceeded is not None:
            raise self.exceeded
        self.on_trial = False

    @cached_property
    def folds_system(self) -> bool:
        """Whether it has no system prompt, which then stands before the first question."""
        return not self._keeps(_sentinels("system", "user", "assistant"))

    @cached_property
    def takes_reasoning(self) -> bool:
        """Whether it takes thoughts apart from the answer."""
        return self._shows_reasoning({"reasoning_content": sentinel(1, "reasoning")})

    @cached_property
    def drops_reasoning(self) -> bool:
        """Whether it removes thoughts from an answer's text; else they are a part of it."""
        text = f"{OPEN}{sentinel(1, 'reasoning')}{CLOSE}{sentinel(1, 'content')}"
        return not self.takes_reasoning and not self._shows_reasoning({"content": self._content(text)})

    @cached_property
    def tools(self) -> ToolSupport:
        """What it does with tools."""
        return ToolSupport(
            lambda messages, tools, as_text: self._applied(
                with_calls(messages, list(map(self._given, messages)), as_text), False, False, tools, tokenize=False
            )
        )

    def _shows_reasoning(self, answer: dict[str, Any]) -> bool:
        asked, answered = map(self._given, _sentinels("user", "assistant"))
        return sentinel(1, "reasoning") in self._applied([asked, answered | answer], False, True, None, tokenize=False)

    def arranged(self, messages: Sequence[Message]) -> list[Message]:
        """The messages with a system prompt where the template has one, and with thoughts apart from answers."""
        messages = [_with_reasoning_apart(message) for message in messages]
        if len(messages) < 2 or messages[0]["role"] != "system" or not self.folds_system:
            return messages
        system, question = messages[:2]
        return [{**question, "content": f"{system['content']}\n\n{question['content']}"}, *messages[2:]]

    def render(
        self, messages: Sequence[Message], generation: bool = False, thinking: bool = False, tools: Any = None
    ) -> str:
        """The conversation as text. Raises ValueError with the template's own words when it refuses it."""
        return str(self._applied(self._all_given(messages), generation, thinking, tools, tokenize=False))

    def ids(
        self, messages: Sequence[Message], generation: bool = False, thinking: bool = False, tools: Any = None
    ) -> list[int]:
        """What transformers gives for it; contents that spell control tokens become them there."""
        return list(self._applied(self._all_given(messages), generation, thinking, tools, tokenize=True))

    def _all_given(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        given = list(map(self._given, messages))
        if not any("tool_calls" in message for message in messages):
            return given
        return with_calls(messages, given, self.tools.arguments_as_text)

    def _given(self, message: Message) -> dict[str, Any]:
        """A message as the template takes it."""
        reasoning, content = message.get("reasoning"), message["content"]
        if not reasoning or (not self.takes_reasoning and self.drops_reasoning):
            return {"role": message["role"], "content": self._content(content)}
        if self.takes_reasoning:
            return {"role": message["role"], "content": self._content(content), "reasoning_content": reasoning}
        return {"role": message["role"], "content": self._content(f"{OPEN}{reasoning}{CLOSE}{content}")}

    def _content(self, text: str) -> Any:
        return [{"type": "text", "text": text}] if self.in_parts else text

    def _keeps(self, messages: list[Message]) -> bool:
        """Whether all contents come through."""
        try:
            text = self.render(messages)
        except ValueError:
            return False
        return all(message["content"] in text for message in messages)

    def _applied(
        self, given: list[dict[str, Any]], generation: bool, thinking: bool, tools: Any, tokenize: bool
    ) -> Any:
        if self.exceeded is not None:
            raise self.exceeded
        try:
            if self.on_trial and computed_seconds() - self._began > TRIAL_SECONDS:
                raise LimitError(
                    f"the base's chat template takes more than {TRIAL_SECONDS} seconds for a few conversations"
                )
            text = apply_template(
                self.tokenizer, self.template, given, tools=tools, generation=generation,
                enable_thinking=thinking, thinking=thinking,
            )  # fmt: skip
        except LimitError as error:
            self.exceeded = error if self.on_trial else None
            raise
        return self.tokenizer(text, add_special_tokens=False)["input_ids"] if tokenize else text


def _sentinels(*roles: Any) -> list[Message]:
    return [{"role": role, "content": sentinel(number, "content")} for number, role in enumerate(roles)]


def _with_reasoning_apart(message: Message) -> Message:
    """Thoughts before an answer's text, as a chat client gives them back, are its reasoning; blank thoughts are none."""
    reasoning, content = message.get("reasoning", ""), message["content"]
    if message["role"] == "assistant" and not reasoning:
        reasoning, content = in_answer(content)
    if (reasoning, content) == (message.get("reasoning", ""), message["content"]) and (
        reasoning.strip() or not reasoning
    ):
        return message
    apart: Message = {**message, "content": content}
    apart.pop("reasoning", None)
    return {**apart, "reasoning": reasoning} if reasoning.strip() else apart
