"""Chat families: turn markers that we wrote down, for a base that brings no chat template of its own, and for ChatGLM3.

The Jinja templates of tuneline.models.chat_templates say the same for servers, which work on text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tuneline.formats.example import IGNORE_INDEX, Encoded
from tuneline.formats.records import Message
from tuneline.models.chat_format import Mask, Prompter, Reasoning, Tools, as_list, check_asks, check_roles
from tuneline.models.chatglm.tools import call_text, tools_text
from tuneline.models.control_tokens import knows, without_control_tokens
from tuneline.models.thoughts import CLOSE, OPEN


class Turn(NamedTuple):
    """A turn as its family has it; an answer with calls is several."""

    role: str
    thoughts: str
    content: str
    learn: bool
    """Whether it may carry loss."""
    message: int
    name: str = ""
    """Of the function that it calls."""


Texts = tuple[list[list[Turn]], list[Any]]
TurnIds = tuple[Turn, list[int], list[int], list[int]]
"""A turn with the ids of what stands beside its role, of its thoughts and of its content."""


@dataclass(frozen=True)
class Family:
    """The turn markers of one family of chat models; all are single control tokens.

    A turn is start + role name + "\\n" + content + end + "\\n"; or, where each role has a token of its own and
    nothing ends a turn, that token + "\\n" + content. Sources: the families' published templates, and
    tokenization_chatglm.py of THUDM/chatglm3-6b.
    """

    name: str
    begins_with: tuple[str, ...]
    """Before the first turn."""
    start: str = ""
    end: str = ""
    named: str = ""
    """Token after the role's name, if any."""
    head: str = "\n"
    """Text before the content."""
    tail: str = "\n"
    """Text between turns, where something ends them."""
    assistant: str = "assistant"
    """The assistant's role name."""
    roles: tuple[str, str, str] | None = None
    """Tokens of system, user and assistant, where they have their own."""
    stops: tuple[str, ...] = ()
    """What ends an answer besides `end` and the tokenizer's end of text."""
    system_turn: bool = True
    """Whether a system prompt has a turn of its own, or else goes before the first user turn."""

    @property
    def markers(self) -> tuple[str, ...]:
        """Tokens by which a tokenizer of this family is recognised."""
        return tuple(filter(None, (*self.begins_with, *(self.roles or (self.start, self.named, self.end)))))


OBSERVATION = "<|observation|>"
"""Role of what a function gave."""
FAMILIES = (
    Family("gemma", ("<bos>",), "<start_of_turn>", "<end_of_turn>", assistant="model", system_turn=False),
    Family("chatml", (), "<|im_start|>", "<|im_end|>"),
    Family(
        "llama3",
        ("<|begin_of_text|>",),
        "<|start_header_id|>",
        "<|eot_id|>",
        named="<|end_header_id|>",
        head="\n\n",
        tail="",
        stops=("<|end_of_text|>",),
    ),
    Family(
        "chatglm3",
        ("[gMASK]", "sop"),
        roles=("<|system|>", "<|user|>", "<|assistant|>"),
        stops=("<|user|>", OBSERVATION),
    ),
    Family(
        "glm4",
        ("[gMASK]", "<sop>"),
        roles=("<|system|>", "<|user|>", "<|assistant|>"),
        stops=("<|user|>", OBSERVATION),
    ),
)


def family_of(tokenizer: Any) -> Family:
    """The family whose markers the tokenizer has as single tokens.

    Raises ValueError when it has those of none.
    """
    for family in FAMILIES:
        if all(knows(tokenizer, marker) for marker in family.markers):
            return family
    known = " or ".join(f"{(family.roles or (family.start,))[0]} ({family.name})" for family in FAMILIES)
    raise ValueError(f"the base's tokenizer has no turn markers that we know: expected {known} in its vocabulary")


class FamilyPrompter(Prompter):
    """Encodes messages with the turn markers of the tokenizer's family."""

    def __init__(self, tokenizer: Any) -> None:
        self.family = family = family_of(tokenizer)
        self.name = family.name
        self.plain = without_control_tokens(tokenizer, family.markers)
        ids = tokenizer.convert_tokens_to_ids
        ends = as_list(tokenizer.eos_token_id)
        nothing = list[int]()
        self.first = [ids(token) for token in family.begins_with]
        self.named = [ids(family.named)] if family.named else []
        if family.roles:
            tokens = zip(("system", "user", "assistant"), family.roles, strict=True)
            self.opening = {role: [ids(token)] for role, token in tokens}
            if knows(tokenizer, OBSERVATION):
                self.opening["tool"] = [ids(OBSERVATION)]
            # A model of this family says the line end after its role itself.
            self.lead, self.closing, self.after, self.last = self.text(family.head), nothing, nothing, ends[:1]
        else:
            names = {"system": "system", "user": "user", "assistant": family.assistant}
            self.opening = {role: [ids(family.start), *self._named(name)] for role, name in names.items()}
            self.lead, self.closing, self.after, self.last = nothing, [ids(family.end)], self.text(family.tail), nothing
        stops = (ids(token) for token in family.stops if knows(tokenizer, token))
        self.stop_ids = sorted({*self.closing, *ends, *stops})
        openings = (opening[0] for opening in self.opening.values())
        self.control = {*self.first, *self.named, *self.stop_ids, *openings}

    def _named(self, name: str) -> list[int]:
        """What follows the token that starts a turn."""
        if not self.named:
            return self.text(name + self.family.head)
        return [*self.text(name), *self.named, *self.text(self.family.head)]

    def generation_prompt(
        self, messages: Sequence[Message], thinking: bool = False, tools: Tools | None = None
    ) -> list[int]:
        check_asks(messages)
        (turns,) = _with_ids(self.encode([messages], [tools]))
        return self._ids(turns) + self.opening["assistant"]

    def encode(self, conversations: Sequence[Sequence[Message]], tools: Sequence[Tools | None] | None = None) -> Texts:
        each = tools or [None] * len(conversations)
        turns = [self._turns(messages, own) for messages, own in zip(conversations, each, strict=True)]
        texts = [text for own in turns for turn in own for text in (_head(turn), turn.thoughts, turn.content)]
        return turns, self.plain.encode_batch_fast(texts, add_special_tokens=False)

    def rows(self, encoded: Texts, mask: Mask, reasoning: Reasoning = "learn") -> list[Encoded]:
        rows = []
        for turns in _with_ids(encoded):
            if not turns or turns[-1][0].role != "assistant":
                raise ValueError("a training row ends with an assistant's message")
            row = self._row(turns, mask, reasoning)
            if row.labels.count(IGNORE_INDEX) == len(row.labels):
                raise ValueError("no token of the row carries loss")
            asked = [turn for turn in turns if turn[0].message < turns[-1][0].message]
            prompt = self._ids(asked) + self.opening["assistant"]
            assert row.input_ids[: len(prompt)] == prompt, "training and generation prompts differ"
            rows.append(row)
        return rows

    def _turns(self, messages: Sequence[Message], tools: Tools | None) -> list[Turn]:
        """Turns as the family has them. Raises ValueError as `check_roles` does, and for tools where it has none."""
        uses = bool(tools) or any(message["role"] == "tool" or "tool_calls" in message for message in messages)
        if uses and (self.name != "chatglm3" or "tool" not in self.opening):
            raise ValueError(
                f"the prompt of this base is Tuneline's own for {self.name}, which has no tools, and this conversation has "
                "some: take such a base whose chat template has tools, or leave these rows out (data.exclude in params.yaml)"
            )
        turns = _merge_system(messages, self.family)
        return [Turn("system", "", tools_text(tools), False, -1), *turns] if tools else turns

    def _ids(self, turns: Sequence[TurnIds]) -> list[int]:
        ids = list(self.first)
        for turn, head, thoughts, content in turns:
            ids += self.opening[turn.role]
            ids += head or self.lead
            ids += thoughts
            ids += content
            ids += self.closing
            ids += self.after
        return ids

    def _row(self, turns: Sequence[TurnIds], mask: Mask, reasoning: Reasoning) -> Encoded:
        labels = [IGNORE_INDEX] * len(self.first)
        learn = False
        final = turns[-1][0]
        for turn, head, thoughts, content in turns:
            opening = self.opening[turn.role]
            # Where nothing ends a turn, the token of the next role does, and the answer before it learns that.
            labels += opening if learn and not self.closing else [IGNORE_INDEX] * len(opening)
            masked = mask == "last_answer" and turn.message < final.message
            learn = turn.role == "assistant" and turn.learn and not masked
            for part, learnt in (
                (head or self.lead, learn),
                (thoughts, learn and reasoning == "learn"),
                ([*content, *self.closing], learn),
            ):
                labels += part if learnt else [IGNORE_INDEX] * len(part)
            labels += [IGNORE_INDEX] * len(self.after)
        # What follows the last end token belongs to the next turn, which there is not.
        kept = len(labels) - len(self.after)
        # After a call comes what the function gives.
        last = self.opening["tool"] if final.name else self.last
        ends = last if learn else [IGNORE_INDEX] * len(last)
        return Encoded(self._ids(turns)[:kept] + last, labels[:kept] + ends)


def _with_ids(encoded: Texts) -> list[list[TurnIds]]:
    conversations, encodings = encoded
    ids = (encoding.ids for encoding in encodings)
    return [[(turn, next(ids), next(ids), next(ids)) for turn in turns] for turns in conversations]


def _head(turn: Turn) -> str:
    """What stands beside the role of a turn that calls a function."""
    return f"{turn.name}\n" if turn.name else ""


def _merge_system(messages: Sequence[Message], family: Family) -> list[Turn]:
    """Turns with thoughts of the last answer alone. Raises ValueError as `check_roles` does."""
    check_roles(messages)
    turns: list[Turn] = []
    system = ""
    for number, message in enumerate(messages):
        role, content, learn = message["role"], message["content"], message.get("learn", True)
        calls = message.get("tool_calls", [])
        if role == "system" and not family.system_turn:
            system = content + "\n\n"
            continue
        reasons = message.get("reasoning") and number + 1 == len(messages)
        thoughts = f"{OPEN}{message['reasoning']}{CLOSE}" if reasons else ""
        if content or thoughts or not calls:
            turns.append(Turn(role, thoughts, system + content, learn, number))
        turns += [Turn(role, "", call_text(call), learn, number, call["name"]) for call in calls]
        system = ""
    return turns
