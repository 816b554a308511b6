"""Answers of a server's model to the held-out questions and the general prompts, and how likely it finds the references."""

from collections.abc import Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from tuneline.endpoint.client import Endpoint, Reply
from tuneline.evaluate.endpoint.asking import Wanted, ask_all
from tuneline.evaluate.endpoint.kept import Kept, digest
from tuneline.evaluate.endpoint.questions import Asker, Question, supervised
from tuneline.evaluate.endpoint.replies import answer_of, general_of
from tuneline.evaluate.endpoint.sides import kept_of, open_endpoint, server_name
from tuneline.evaluate.general_prompts import PROMPTS

if TYPE_CHECKING:
    from tuneline.evaluate.answering import Answered, Questions


def answer_by_endpoint(asked: "Questions") -> "Answered":
    """All answers. Raises ValueError of one sentence for whatever the server refuses, or when it answers no more."""
    from tuneline.evaluate.answering import Answered
    from tuneline.models.calls.answers import AnswerReader
    from tuneline.models.chat_format import load_prompter
    from tuneline.models.loading import load_tokenizer

    tokenizer = load_tokenizer(asked.base)
    prompter = load_prompter(tokenizer)
    reader = AnswerReader(tokenizer, prompter)
    records, params = asked.records, asked.params
    with open_endpoint(params, tuned=asked.adapter is not None) as endpoint:
        asker = Asker(endpoint, prompter, params)
        own, general = [asker.held_out(record) for record in records], [asker.general(name) for name in PROMPTS]
        questions = [*own, *general]
        kept = kept_of(endpoint, asked)
        started = monotonic()
        new = ask_all(endpoint, _replies(endpoint, questions), kept, params.concurrency, f"{asked.label}: answers")
        seconds = monotonic() - started
        nll = likelihoods(endpoint, questions, kept, params.concurrency, f"{asked.label}: NLL")
        server = server_name(endpoint)
        if endpoint.unknown:
            print(
                f"{asked.label}: the server does not know {', '.join(sorted(endpoint.unknown))}, left out", flush=True
            )
    found = [Reply(**kept.values[_key(question)]) for question in questions]
    speed = _run_info(server, params.concurrency, [Reply(**kept.values[key]) for key in new], seconds)
    answers = [
        answer_of(record, question, reply, likely, reader, prompter) | by_server(server, question, reply)
        for record, question, reply, likely in zip(records, own, found, nll, strict=False)
    ]
    lines = [
        general_of(name, question, reply, likely, reader, prompter)
        for name, question, reply, likely in zip(PROMPTS, general, found[len(own) :], nll[len(own) :], strict=True)
    ]
    return Answered(answers, lines, speed, kept)  # type: ignore[arg-type]


def likelihoods(
    endpoint: Endpoint, questions: Sequence[Question], kept: Kept, concurrency: int, label: str
) -> list[list[float] | None]:
    """-log p of each supervised token by question, in nats; all None where the server can't say it of all of them."""
    wanted = [Wanted(_nll_key(one), one.id, partial(_nll, endpoint, one)) for one in questions]
    # A server that can't say it of one can't say it of thousands.
    ask_all(endpoint, wanted[:1], kept, 1, label)
    if kept.values[wanted[0].key] is not None:
        ask_all(endpoint, wanted, kept, concurrency, label)
    found = [kept.values.get(one.key) for one in wanted]
    if missing := sum(one is None for one in found):
        print(f"{label} of {missing} references can't be told by the server: it is null in the results", flush=True)
        return [None] * len(questions)
    return found


def by_server(server: str, question: Question, reply: Reply) -> dict[str, Any]:
    """What an answer's line says of how it came to be."""
    told = reply.prompt_tokens
    return {"server": server} | ({} if told is None else {"prompt_tokens": [question.prompt_tokens, told]})


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
