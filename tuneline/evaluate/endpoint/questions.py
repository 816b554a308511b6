"""What a server is asked of an item: a conversation in OpenAI's form, and the ids that its likelihood is measured on."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tuneline.evaluate.config import Evaluate
from tuneline.evaluate.general_prompts import PROMPTS, TOKENS, GeneralPrompt, question_of
from tuneline.formats.example import IGNORE_INDEX, Encoded
from tuneline.formats.records import Message, Record

if TYPE_CHECKING:
    from tuneline.endpoint.client import Endpoint
    from tuneline.models.chat_format import Prompter, Reasoning


class Question(NamedTuple):
    id: str
    body: dict[str, Any]
    """Of the request."""
    prompt_tokens: int
    """Of our own prompt."""
    thinking: bool
    row: Encoded
    """The prompt with its reference answer, whose supervised tokens are scored."""


class Asker:
    """Makes questions of records and general prompts, for one model of one server."""

    def __init__(self, endpoint: "Endpoint", prompter: "Prompter", params: Evaluate) -> None:
        self.endpoint, self.prompter, self.params = endpoint, prompter, params
        asked = question_of(next(iter(PROMPTS.values())))
        self.chooses = prompter.generation_prompt(asked, True) != prompter.generation_prompt(asked, False)
        """Whether the base's template has the choice to think."""

    def held_out(self, record: Record) -> Question:
        last = record["messages"][-1]
        thinking, tools = "reasoning" in last, record.get("tools")
        # The answer is scored after the reference's own thoughts.
        way: Reasoning = "mask" if thinking else "learn"
        row = self.prompter.training_row(record["messages"], "last_answer", way, tools)
        return self._question(record["id"], record["messages"][:-1], self.params.max_new_tokens, thinking, tools, row)

    def general(self, name: str, prompt: GeneralPrompt) -> Question:
        asked = question_of(prompt)
        row = self.prompter.training_row([*asked, {"role": "assistant", "content": prompt.answer}], "last_answer")
        return self._question(name, asked, TOKENS, False, None, row)

    def _question(
        self,
        name: str,
        messages: Sequence[Message],
        limit: int,
        thinking: bool,
        tools: Sequence[dict[str, Any]] | None,
        row: Encoded,
    ) -> Question:
        may_think = thinking or self.prompter.opens_thoughts(False)
        body = self.body(messages, limit + self.params.max_thinking_tokens * may_think, thinking, tools)
        prompt = self.prompter.generation_prompt(messages, thinking, tools or None)
        return Question(name, body, len(prompt), thinking, row)

    def body(
        self,
        messages: Sequence[Message],
        limit: int,
        thinking: bool = False,
        tools: Sequence[dict[str, Any]] | None = None,
    ) -> dict[str, Any]:
        """Of a request; `limit` in new tokens, thoughts included."""
        return self.endpoint.request(openai_messages(messages), max_tokens=limit, tools=tools, extra=self.way(thinking))

    def way(self, thinking: bool) -> dict[str, Any]:
        """Fields that say whether to think, by the names that templates have for it; none where there is no choice."""
        if not self.chooses:
            return {}
        names = ("enable_thinking",) if self.endpoint.server().kind == "tuneline" else ("enable_thinking", "thinking")
        return {"chat_template_kwargs": dict.fromkeys(names, thinking)}


def openai_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as OpenAI's API has them: calls with ids, and what functions gave by the ids of their calls."""
    last_user = max((place for place, message in enumerate(messages) if message["role"] == "user"), default=0)
    converted: list[dict[str, Any]] = []
    waiting: list[str] = []
    for place, message in enumerate(messages):
        one: dict[str, Any] = {"role": message["role"], "content": message["content"]}
        if message["role"] == "tool" and waiting:
            one["tool_call_id"] = waiting.pop(0)
        if calls := message.get("tool_calls"):
            # Nine letters and digits, which is what Mistral's templates take.
            waiting = [f"call{place:03d}{number:02d}" for number in range(len(calls))]
            one["tool_calls"] = [_call(name, call) for name, call in zip(waiting, calls, strict=True)]
        # Of earlier turns templates leave thoughts out.
        if "reasoning" in message and place > last_user:
            one["reasoning_content"] = message["reasoning"]
        converted.append(one)
    return converted


def _call(name: str, call: Mapping[str, Any]) -> dict[str, Any]:
    arguments = json.dumps(call["arguments"], ensure_ascii=False)
    return {"id": name, "type": "function", "function": {"name": call["name"], "arguments": arguments}}


def supervised(row: Encoded) -> list[int]:
    """Places of the tokens that carry loss; the first of a row follows nothing."""
    return [place for place, label in enumerate(row.labels) if place and label != IGNORE_INDEX]
