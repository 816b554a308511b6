"""Answers of a server's model to the held-out questions and the general prompts, and how likely it finds the references."""

from collections.abc import Iterator, Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from tuneline.endpoint.client import Endpoint, Reply
from tuneline.evaluate.endpoint.asking import Wanted, ask_all
from tuneline.evaluate.endpoint.kept import Kept, digest
from tuneline.evaluate.endpoint.questions import Asker, Question, supervised
from tuneline.evaluate.endpoint.replies import ReplyReader
from tuneline.evaluate.endpoint.sides import kept_of, left_out, open_endpoint, other_prompt_lengths, server_name
from tuneline.evaluate.general_prompts import prompts_of
from tuneline.runtime.terminal.lines import say

if TYPE_CHECKING:
    from tuneline.evaluate.answering import Answered, Questions
    from tuneline.evaluate.predict import Answer


def answer_by_endpoint(asked: "Questions") -> "Answered":
    """All answers. Raises ValueError of one sentence for whatever the server refuses, or when it answers no more."""
    from tuneline.evaluate.answering import Answered
    from tuneline.models.calls.answers import AnswerReader
    from tuneline.models.chat_format import load_prompter
    from tuneline.models.loading import load_tokenizer

    tokenizer = load_tokenizer(asked.base)
    prompter = load_prompter(tokenizer)
    records, params = asked.records, asked.params
    prompts = prompts_of(params)
    with open_endpoint(params, tuned=asked.adapter is not None) as endpoint:
        asker = Asker(endpoint, prompter, params)
        own, general = [asker.held_out(record) for record in records], [asker.general(*one) for one in prompts.items()]
        questions = [*own, *general]
        kept = kept_of(endpoint, asked)
        started = monotonic()
        new = ask_all(endpoint, _replies(endpoint, questions), kept, params.concurrency, asked.label, "answers")
        seconds = monotonic() - started
        nll = likelihoods(endpoint, questions, kept, params.concurrency, asked.label)
        server = server_name(endpoint)
    found = [Reply(**kept.values[_key(question)]) for question in questions]
    speed = _run_info(server, params.concurrency, [Reply(**kept.values[key]) for key in new], seconds)
    reading, size = ReplyReader(server, AnswerReader(tokenizer, prompter), prompter), len(own)
    answers = [reading.answer(*one) for one in zip(records, own, found[:size], nll[:size], strict=True)]
    lines = [reading.general(*one) for one in zip(prompts.items(), general, found[size:], nll[size:], strict=True)]
    for remark in remarks(answers, left_out(answers)):
        say(f"{asked.label}: {remark}")
    return Answered(answers, lines, speed, kept)


def likelihoods(
    endpoint: Endpoint, questions: Sequence[Question], kept: Kept, concurrency: int, label: str
) -> list[list[float] | None]:
    """-log p of each supervised token by question, in nats; all None where the server can't say it of all of them."""
    wanted = [Wanted(_nll_key(one), one.id, partial(_nll, endpoint, one)) for one in questions]
    # A server that can't say it of one can't say it of thousands.
    ask_all(endpoint, wanted[:1], kept, 1, label, "likelihoods")
    if kept.values[wanted[0].key] is not None:
        ask_all(endpoint, wanted, kept, concurrency, label, "likelihoods")
    found = [kept.values.get(one.key) for one in wanted]
    if missing := sum(one is None for one in found):
        say(f"{label}: the server can't tell NLL of {missing} references: it is null in the results")
        return [None] * len(questions)
    return found


def remarks(answers: Sequence["Answer"], unknown: Sequence[str]) -> Iterator[str]:
    """What a user should know of how the server answered."""
    if unknown:
        yield f"the server does not know {', '.join(unknown)}: left out of the requests"
    other = [one for one in answers if other_prompt_lengths([one])]
    if other:
        ours, theirs = other[0]["prompt_tokens"]
        yield (
            f"{len(other)} of {len(answers)} prompts are of another length at the server "
            f"({other[0]['id']}: {theirs} tokens, expected {ours}): `tuneline served` says why"
        )


def _replies(endpoint: Endpoint, questions: Sequence[Question]) -> list[Wanted]:
    return [Wanted(_key(one), one.id, partial(_reply, endpoint, one)) for one in questions]


def _reply(endpoint: Endpoint, question: Question) -> dict[str, Any]:
    return endpoint.send(question.body)._asdict()


def _nll(endpoint: Endpoint, question: Question) -> list[float] | None:
    places = supervised(question.row)
    found = endpoint.nll(question.row.input_ids[: places[-1] + 1], places[0])
    return None if found is None else [found[place - places[0]] for place in places]


def _key(question: Question) -> str:
    return digest(["reply", question.body])


def _nll_key(question: Question) -> str:
    return digest(["nll", question.body["model"], question.row.input_ids, question.row.labels])


def _run_info(server: str, concurrency: int, replies: Sequence[Reply], seconds: float) -> dict[str, Any]:
    """For metrics/speed, of the replies that this run has asked for."""
    info: dict[str, Any] = {"backend": "endpoint", "server": server, "concurrency": concurrency, "asked": len(replies)}
    counted = [reply.completion_tokens for reply in replies if reply.completion_tokens is not None]
    if not replies or len(counted) < len(replies):
        return info
    return info | {
        "new_tokens_per_second": round(sum(counted) / max(seconds, 0.01), 1),
        "seconds_per_item": round(seconds / len(replies), 3),
    }
