"""Records as questions, and a model's greedy answers to them: what evaluation asks, and training at each validation."""

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tuneline.formats.records import Message, Record
from tuneline.models.calls.answers import AnswerReader
from tuneline.models.chat_format import Prompter, Tools
from tuneline.models.decoding.generate import BatchTime, Generated, Thoughts, greedy

if TYPE_CHECKING:
    from tuneline.models.constrained_decoding import ItemConstraints


class Asked(NamedTuple):
    """Conversations up to the answer."""

    questions: Sequence[Sequence[Message]]
    thinking: Sequence[bool]
    """Whether each is thought about first."""
    tools: Sequence[Tools | None]
    """What each may call."""

    def prompts(self, prompter: Prompter) -> list[list[int]]:
        return [
            prompter.generation_prompt(question, way, own or None)
            for question, way, own in zip(self.questions, self.thinking, self.tools, strict=True)
        ]


class Limits(NamedTuple):
    max_new_tokens: int
    max_thinking_tokens: int
    batch_size: int


def asked(records: Sequence[Record], constrained: Container[str] = ()) -> Asked:
    """What records ask; an item whose reference has thoughts is thought about first, unless its task is constrained."""
    thinking = ["reasoning" in record["messages"][-1] and record["task"] not in constrained for record in records]
    # Calls may be wanted where no functions are listed.
    tools: list[Tools | None] = [record.get("tools", [] if record["task"] == "tools" else None) for record in records]
    return Asked([record["messages"][:-1] for record in records], thinking, tools)


def answer(
    network: Any,
    prompter: Prompter,
    reader: AnswerReader,
    asked: Asked,
    limits: Limits,
    label: str,
    constraints: "ItemConstraints | None" = None,
) -> tuple[list[Generated], list[BatchTime]]:
    """Greedy answers to conversations that end with a user's turn, or a tool's answer; and how long each batch took."""
    # Before hours of answers, rather than after.
    reader.check(next(filter(None, asked.tools), None))
    opened = {way: prompter.opens_thoughts(way) for way in (True, False)}
    answers, times = greedy(
        network,
        asked.prompts(prompter),
        stop_ids=reader.stops_of(network),
        pad_id=reader.tokenizer.pad_token_id or 0,
        max_new_tokens=limits.max_new_tokens,
        batch_size=limits.batch_size,
        decode=reader.decode,
        thoughts=Thoughts(
            prompter.thought_marks,
            [way or opened[way] for way in asked.thinking],
            [opened[way] for way in asked.thinking],
            limits.max_thinking_tokens,
        ),
        label=label,
        constraints=constraints,
    )
    # Without tools nothing of an answer is a call.
    plain = (
        answer if own is not None else answer._replace(text=reader.plain(answer.text))
        for answer, own in zip(answers, asked.tools, strict=True)
    )
    return list(plain), times
