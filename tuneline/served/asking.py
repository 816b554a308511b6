"""What a server says of the held-out items: its answers, its prompts and its likelihoods, as far as it tells them."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, TypeVar

from tuneline.formats.calls import answer_with_calls
from tuneline.formats.records import Message, ToolCall
from tuneline.runtime.progress import track
from tuneline.served.expected import Item, Project, thinks
from tuneline.served.lengths import Lengths
from tuneline.served.prompts import begin_tokens

AGAIN = 5
"""Items whose differing answers are asked for a second time."""
T = TypeVar("T")
R = TypeVar("R")


class Server(Protocol):
    """What is asked: tuneline.endpoint.client.Endpoint."""

    def chat(
        self, messages: Sequence[Mapping[str, Any]], *, max_tokens: int,
        tools: Sequence[Mapping[str, Any]] | None = None, extra: Mapping[str, Any] | None = None,
    ) -> Any: ...  # fmt: skip

    def prompt_ids(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[int] | None: ...

    def nll(self, ids: Sequence[int], first: int = 1) -> list[float] | None: ...


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
    """Answers to the same request."""
    lengths: Lengths | None
    """Where it shows no ids, but counts tokens."""


def ask(server: Server, project: Project, concurrency: int) -> Said:
    """Ask everything. Raises ValueError for a server that does not answer."""

    def all_of(what: Callable[[T], R], of: Sequence[T], label: str) -> list[R]:
        with ThreadPoolExecutor(max_workers=concurrency) as pool:
            return list(track(pool.map(what, of), f"served: {label}", len(of), "items"))

    items = project.items
    # The first alone: a server that can't be asked is found out before the others are under way.
    first = answer_of(server, project, items[0])
    answers = [first, *all_of(lambda item: answer_of(server, project, item), items[1:], "answers")]
    prompts = every_or_none(
        lambda part, label: all_of(lambda item: prompt_of(server, item), part, label), items, "prompts"
    )
    nll = every_or_none(lambda part, label: all_of(lambda item: nll_of(server, item), part, label), items, "NLL")
    differing = [(item, said) for item, said in zip(items, answers, strict=True) if said.ids != item.answer_ids]
    again = [(said, answer_of(server, project, item)) for item, said in differing[:AGAIN]]
    told = all(prompt is not None for prompt in prompts)
    return Said(answers, prompts, nll, again, None if told else lengths(server, project, answers))


def every_or_none(
    asked: Callable[[Sequence[T], str], list[R | None]], items: Sequence[T], label: str
) -> list[R | None]:
    """What a server tells of each item; of the others it is not asked where it can't say it of the first."""
    first = asked(items[:1], label)
    if first[0] is None or len(items) == 1:
        return [first[0], *[None] * (len(items) - 1)]
    return [*first, *asked(items[1:], label)]


def answer_of(server: Server, project: Project, item: Item) -> Served:
    limit = project.params.max_new_tokens
    if thinks(item.record):
        limit += project.params.max_thinking_tokens
    reply = server.chat(
        openai_messages(item.record["messages"][:-1]), max_tokens=limit, tools=item.tools, extra=switches(project, item)
    )
    return read_reply(reply, item, project)


def switches(project: Project, item: Item) -> dict[str, Any] | None:
    """More fields of a request: thoughts on or off, where the template has the choice."""
    return {"chat_template_kwargs": {"enable_thinking": thinks(item.record)}} if project.thinking_choice else None


def read_reply(reply: Any, item: Item, project: Project) -> Served:
    """A reply as evaluation reads what a model has generated."""
    said = project.prompter.thought_marks.split(reply.text, opened=False)
    text, thoughts = said.answer.strip().rstrip("\ufffd"), reply.reasoning or said.thoughts
    faults: list[str] = []
    if item.record["task"] != "tools":
        calls, text = [], project.reader.plain(text)
    elif reply.tool_calls:
        calls = [called for call in reply.tool_calls if (called := read_call(call, faults)) is not None]
        text = answer_with_calls(text, calls)
    else:
        # A server without a reader of calls leaves them in the text.
        read = project.reader.read(text, item.tools, True)
        calls, faults, text = list(read.calls), list(read.faults), answer_with_calls(read.content, read.calls)
    return Served(
        text, project.ids(text), reply.finish_reason, thoughts, calls, faults, reply.prompt_tokens,
        reply.completion_tokens,
    )  # fmt: skip


def read_call(call: Mapping[str, Any], faults: list[str]) -> ToolCall | None:
    function = call.get("function") or {}
    try:
        arguments = json.loads(function.get("arguments") or "{}")
        if isinstance(arguments, dict):
            return {"name": str(function["name"]), "arguments": arguments}
        faults.append("arguments are no JSON object")
    except (ValueError, KeyError) as error:
        faults.append(f"the call can't be read: {error}")
    return None


def openai_messages(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Messages as OpenAI's API has them: arguments of calls as text, and each call and its answer with an id."""
    found: list[dict[str, Any]] = []
    waiting: Iterator[str] = iter(())
    for message in messages:
        entry: dict[str, Any] = {"role": message["role"], "content": message["content"]}
        if calls := message.get("tool_calls"):
            ids = [f"call_{len(found)}_{number}" for number in range(len(calls))]
            entry["tool_calls"] = [
                {"id": one, "type": "function",
                 "function": {"name": call["name"], "arguments": json.dumps(call["arguments"], ensure_ascii=False)}}
                for one, call in zip(ids, calls, strict=True)
            ]  # fmt: skip
            waiting = iter(ids)
        if message["role"] == "tool":
            entry["tool_call_id"] = next(waiting, "call")
        found.append(entry)
    return found


def prompt_of(server: Server, item: Item) -> list[int] | None:
    return server.prompt_ids(openai_messages(item.record["messages"][:-1]), item.tools)


def nll_of(server: Server, item: Item) -> float | None:
    found = server.nll(item.reference, item.first)
    return None if found is None else sum(found)


def lengths(server: Server, project: Project, answers: Sequence[Served]) -> Lengths | None:
    """What its usage counts beside ours, for the items and for three small conversations; None where it counts nothing."""
    pairs = [
        (said.prompt_tokens, len(item.prompt))
        for said, item in zip(answers, project.items, strict=True)
        if said.prompt_tokens is not None
    ]
    if len(pairs) < len(answers):
        return None
    user, answer, system = ({"role": role, "content": "x"} for role in ("user", "assistant", "system"))
    plain, dialogue, led = (
        length_of(server, project, messages) for messages in ([user], [user, answer, user], [system, user])
    )
    row = project.prompter.generation_prompt([{"role": "user", "content": "x"}])
    return Lengths(
        items=[theirs - ours for theirs, ours in pairs],
        plain=plain,
        dialogue=dialogue,
        system=led,
        begin=begin_tokens(row, frozenset(project.prompter.control)),
        suffix=suffix_tokens(project),
        cut=is_cut(pairs),
    )


def is_cut(pairs: Sequence[tuple[int, int]]) -> bool:
    """Whether lengths (theirs, ours) are the same up to one that all longer ones have."""
    most = max(theirs for theirs, _ in pairs)
    return any(ours > most for _, ours in pairs) and all(theirs == min(ours, most) for theirs, ours in pairs)


def length_of(server: Server, project: Project, messages: Sequence[Any]) -> int | None:
    """Theirs less ours; None where the template or the server takes no such conversation."""
    try:
        extra = {"chat_template_kwargs": {"enable_thinking": False}} if project.thinking_choice else None
        theirs = server.chat(messages, max_tokens=1, extra=extra).prompt_tokens
        return None if theirs is None else int(theirs) - len(project.prompter.generation_prompt(messages))
    except ValueError:
        return None


def suffix_tokens(project: Project) -> int | None:
    """Tokens of the generation prompt; None for a tokenizer without a chat template."""
    tokenizer = project.reader.tokenizer
    if not tokenizer.chat_template:
        return None
    long, short = (
        len(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": "x"}], add_generation_prompt=way, return_dict=False
            )
        )
        for way in (True, False)
    )
    return long - short
