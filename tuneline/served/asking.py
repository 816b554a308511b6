"""What a server says of the held-out items: its answers, its prompts and its likelihoods, as far as it tells them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from tuneline.endpoint.client import Endpoint
from tuneline.endpoint.in_flight import in_flight
from tuneline.evaluate.endpoint.questions import Asker, openai_messages
from tuneline.evaluate.endpoint.replies import ReplyReader
from tuneline.evaluate.endpoint.sides import server_name
from tuneline.formats.records import Message, ToolCall
from tuneline.models.untrusted.templates import apply_template
from tuneline.runtime.progress import track
from tuneline.served.expected import Item, Project, thinks
from tuneline.served.lengths import Lengths
from tuneline.served.prompts import begin_tokens

AGAIN = 5
"""Items whose answers differ that are asked twice more."""
T = TypeVar("T")
R = TypeVar("R")


class Served(NamedTuple):
    """A server's answer to one item."""

    text: str
    """Without thoughts, calls in lines of their own: as predictions.jsonl has answers."""
    ids: list[int]
    """Of the text, by our tokenizer."""
    finish: str
    thoughts: str
    calls: list[ToolCall]
    call_faults: list[str]
    prompt_tokens: int | None
    completion_tokens: int | None


class Said(NamedTuple):
    """All that a server said."""

    answers: list[Served]
    prompts: list[list[int] | None]
    nll: list[float | None]
    """Of the references, sums in nats."""
    again: list[tuple[Served, Served]]
    """Answers to the same request, made twice, one after the other."""
    lengths: Lengths | None
    """Where it shows no ids, but counts tokens."""


def ask(server: Endpoint, project: Project, concurrency: int) -> Said:
    """Ask everything. Raises ValueError for a server that does not answer."""

    def all_of(what: Callable[[T], R], of: Sequence[T], label: str) -> list[R]:
        answers = in_flight(lambda place: what(of[place]), range(len(of)), concurrency)
        found: dict[int, R] = {}
        for place, answer in track(answers, f"served: {label}", len(of), "items"):
            if isinstance(answer, ValueError):
                raise answer
            found[place] = answer
        return [found[place] for place in range(len(of))]

    items, asker = project.items, Asker(server, project.prompter, project.params)
    # The first alone: a server that can't be asked is found out before the others are under way.
    first = answer_of(asker, project, items[0])
    answers = [first, *all_of(lambda item: answer_of(asker, project, item), items[1:], "answers")]
    prompts = every_or_none(
        lambda part, label: all_of(lambda item: prompt_of(asker, item), part, label), items, "prompts"
    )
    nll = every_or_none(lambda part, label: all_of(lambda item: nll_of(server, item), part, label), items, "NLL")
    differing = [item for item, said in zip(items, answers, strict=True) if said.ids != item.answer_ids]
    # One at a time: in another batch a server may round to another answer without sampling.
    again = [(answer_of(asker, project, item), answer_of(asker, project, item)) for item in differing[:AGAIN]]
    told = all(prompt is not None for prompt in prompts)
    return Said(answers, prompts, nll, again, None if told else lengths(asker, project, answers))


def every_or_none(
    asked: Callable[[Sequence[T], str], list[R | None]], items: Sequence[T], label: str
) -> list[R | None]:
    """What a server tells of each item; of the others it is not asked where it can't say it of the first."""
    first = asked(items[:1], label)
    if first[0] is None or len(items) == 1:
        return [first[0], *[None] * (len(items) - 1)]
    return [*first, *asked(items[1:], label)]


def answer_of(asker: Asker, project: Project, item: Item) -> Served:
    """Asked and read as evaluation does it."""
    question = asker.held_out(item.record)
    reply = asker.endpoint.send(question.body)
    reading = ReplyReader(server_name(asker.endpoint), project.reader, project.prompter)
    said = reading.answer(item.record, question, reply, None)
    return Served(
        said["prediction"], project.ids(said["prediction"]), reply.finish_reason, said.get("reasoning", ""),
        said.get("calls", []), said.get("call_faults", []), reply.prompt_tokens, reply.completion_tokens,
    )  # fmt: skip


def prompt_of(asker: Asker, item: Item) -> list[int] | None:
    messages = openai_messages(item.record["messages"][:-1])
    return asker.endpoint.prompt_ids(messages, item.tools, asker.way(thinks(item.record)))


def nll_of(server: Endpoint, item: Item) -> float | None:
    found = server.nll(item.reference, item.first)
    return None if found is None else sum(found)


def lengths(asker: Asker, project: Project, answers: Sequence[Served]) -> Lengths | None:
    """What its usage counts beside ours, for the items and for three small conversations; None where it counts nothing."""
    pairs = [
        (said.prompt_tokens, len(item.prompt))
        for said, item in zip(answers, project.items, strict=True)
        if said.prompt_tokens is not None
    ]
    if len(pairs) < len(answers):
        return None
    user: Message = {"role": "user", "content": "x"}
    answer: Message = {"role": "assistant", "content": "x"}
    system: Message = {"role": "system", "content": "x"}
    plain, dialogue, led = (
        length_of(asker, project, messages) for messages in ([user], [user, answer, user], [system, user])
    )
    row = project.prompter.generation_prompt([user])
    return Lengths(
        items=[theirs - ours for theirs, ours in pairs],
        plain=plain,
        dialogue=dialogue,
        system=led,
        begin=begin_tokens(row, frozenset(project.prompter.control), project.reader.tokenizer.bos_token_id),
        suffix=suffix_tokens(project),
        cut=is_cut(pairs),
    )


def is_cut(pairs: Sequence[tuple[int, int]]) -> bool:
    """Whether lengths (theirs, ours) are the same up to one that all longer ones have."""
    most = max(theirs for theirs, _ in pairs)
    return any(ours > most for _, ours in pairs) and all(theirs == min(ours, most) for theirs, ours in pairs)


def length_of(asker: Asker, project: Project, messages: Sequence[Message]) -> int | None:
    """Theirs less ours; None where the template or the server takes no such conversation."""
    try:
        theirs = asker.endpoint.send(asker.body(messages, 1)).prompt_tokens
        return None if theirs is None else int(theirs) - len(project.prompter.generation_prompt(messages))
    except ValueError:
        return None


def suffix_tokens(project: Project) -> int | None:
    """Tokens of the generation prompt; None for a tokenizer without a chat template."""
    tokenizer = project.reader.tokenizer
    if not tokenizer.chat_template:
        return None
    asked = [{"role": "user", "content": "x"}]
    long, short = (
        len(tokenizer(apply_template(tokenizer, tokenizer.chat_template, asked, generation=way)).input_ids)
        for way in (True, False)
    )
    return long - short
