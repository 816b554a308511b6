"""A server's replies as answers of an evaluation: thoughts, calls and text told apart, as for a model in this process."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tuneline.endpoint.client import Reply
from tuneline.evaluate.endpoint.questions import Question, supervised
from tuneline.evaluate.general_prompts import General, GeneralPrompt
from tuneline.formats.calls import answer_with_calls, reference_texts
from tuneline.formats.records import Record, ToolCall, to_line

if TYPE_CHECKING:
    from tuneline.evaluate.predict import Answer
    from tuneline.models.calls.answers import AnswerReader
    from tuneline.models.chat_format import Prompter
    from tuneline.models.thoughts import Said

ENDS = ("stop", "tool_calls", "function_call", "eos_token")
"""finish_reason of an answer that ended by itself."""


class ReplyReader:
    """Reads replies of one server, for one base."""

    def __init__(self, server: str, reader: "AnswerReader", prompter: "Prompter") -> None:
        """`server` is its kind and version, for the results."""
        self.server, self.reader, self.prompter = server, reader, prompter

    def answer(self, record: Record, question: Question, reply: Reply, nll: Sequence[float] | None) -> "Answer":
        """`nll` is of the reference's tokens, its end token last; None where the server can't say."""
        calling = record["task"] == "tools"
        said = read_said(reply, question, self.prompter)
        text = said.answer if calling or "tools" in record else self.reader.plain(said.answer)
        read = self.reader.read(text, record.get("tools"), calling)
        calls, faults = parsed_calls(reply.tool_calls)
        calls, faults = [*read.calls, *calls], [*read.faults, *faults]
        places = supervised(question.row)
        # The end token is no character of the answer; but an empty one consists of nothing else.
        scored = len(places) - (len(places) > 1)
        answer: Answer = {
            "id": record["id"],
            "prediction": answer_with_calls(read.content, calls),
            "stopped_at_eos": ended(reply, question) and not said.unfinished,
            "nll": None if nll is None else round(sum(nll[:scored]), 6),
            "tokens": scored,
            "characters": max(1, len(reference_texts(record)[0])),
            "batch": None,
            "reachable": True,
            "server": self.server,
        }
        if calling:
            answer |= {"calls": calls, "call_faults": faults}
        if said.thoughts:
            answer["reasoning"] = said.thoughts
        if said.unfinished:
            answer["unfinished_thought"] = True
        if reply.left_out:
            answer["left_out"] = list(reply.left_out)
        if reply.prompt_tokens is not None:
            answer["prompt_tokens"] = [question.prompt_tokens, reply.prompt_tokens]
        return answer

    def general(
        self, asked: tuple[str, GeneralPrompt], question: Question, reply: Reply, nll: Sequence[float] | None
    ) -> General:
        """The answer to a general prompt, which is `asked` with its name."""
        name, prompt = asked
        return {
            "id": name,
            "question": prompt.question,
            "prediction": self.reader.plain(read_said(reply, question, self.prompter).answer),
            "stopped_at_eos": ended(reply, question),
            "nll": None if nll is None else round(sum(nll[:-1]), 6),
            "tokens": len(supervised(question.row)) - 1,
        }


def read_said(reply: Reply, question: Question, prompter: "Prompter") -> "Said":
    """Answer and thoughts, whether the server tells them apart or leaves their marks in the text."""
    from tuneline.models.thoughts import Said

    # An answer cut at the limit may end within a character.
    text = reply.text.strip().rstrip("\ufffd")
    marks = prompter.thought_marks
    if reply.reasoning:
        cut = not text and not reply.tool_calls and not ended(reply, question)
        return Said(text, reply.reasoning.strip(), unfinished=cut)
    opened = prompter.opens_thoughts(question.thinking)
    # A server that takes thoughts away leaves no mark, and where nothing was thought no thoughts.
    return marks.split(text, opened and (marks.closed(text) or not ended(reply, question)))


def ended(reply: Reply, question: Question) -> bool:
    """Whether an answer ended by itself."""
    if reply.finish_reason:
        return reply.finish_reason in ENDS
    return reply.completion_tokens is not None and reply.completion_tokens < question.body["max_tokens"]


def parsed_calls(given: Sequence[Mapping[str, Any]]) -> tuple[list[ToolCall], list[str]]:
    """(calls, what is wrong with each that can't be read) of OpenAI's `tool_calls`."""
    calls: list[ToolCall] = []
    faults = []
    for one in given:
        function = one.get("function") or {}
        arguments = function.get("arguments") or {}
        try:
            values = json.loads(arguments) if isinstance(arguments, str) else arguments
            # Numbers without end and halves of characters are in no file.
            to_line(values)
        except (ValueError, TypeError, RecursionError) as error:
            faults.append(f"{function.get('name')}: arguments are no JSON ({error})")
            continue
        if isinstance(values, dict) and isinstance(function.get("name"), str):
            calls.append({"name": function["name"], "arguments": values})
        else:
            faults.append(f"{function.get('name')}: arguments are no object")
    return calls, faults
