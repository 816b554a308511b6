"""Chat families: turn markers that we wrote down, for a base that brings no chat template of its own, and for ChatGLM3.

The Jinja templates of tuneline.models.chat_templates say the same for servers, which work on text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuneline.formats.example import IGNORE_INDEX, Encoded
from tuneline.formats.records import Message
from tuneline.models.chat_format import Mask, Prompter, Reasoning, Tools, as_list, check_asks, check_roles
from tuneline.models.control_tokens import without_control_tokens
from tuneline.models.thoughts import CLOSE, OPEN

Turn = tuple[str, list[int], list[int], bool]
"""Role, ids of thoughts and of the content, and whether it may carry loss."""
Texts = tuple[list[list[tuple[str, str, str, bool]]], list[Any]]
"""Conversations as turns of their family, texts in place of ids, and the encodings of all texts in order."""


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
        stops=("<|user|>", "<|observation|>"),
    ),
    Family(
        "glm4",
        ("[gMASK]", "<sop>"),
        roles=("<|system|>", "<|user|>", "<|assistant|>"),
        stops=("<|user|>", "<|observation|>"),
    ),
)


def family_of(tokenizer: Any) -> Family:
    """The family whose markers the tokenizer has as single tokens.

    Raises ValueError when it has those of none.
    """
    vocabulary = tokenizer.get_vocab()
    for family in FAMILIES:
        if all(marker in vocabulary for marker in family.markers):
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
            # A model of this family says the line end after its role itself.
            self.lead, self.closing, self.after, self.last = self.text(family.head), nothing, nothing, ends[:1]
        else:
            names = {"system": "system", "user": "user", "assistant": family.assistant}
            self.opening = {role: [ids(family.start), *self._named(name)] for role, name in names.items()}
            self.lead, self.closing, self.after, self.last = nothing, [ids(family.end)], self.text(family.tail), nothing
        vocabulary = tokenizer.get_vocab()
        self.stop_ids = sorted({*self.closing, *ends, *(ids(token) for token in family.stops if token in vocabulary)})
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
        merged = [_merge_system(messages, self.family) for messages in conversations]
        texts = [text for turns in merged for _, thoughts, content, _ in turns for text in (thoughts, content)]
        return merged, self.plain.encode_batch_fast(texts, add_special_tokens=False)

    def rows(self, encoded: Texts, mask: Mask, reasoning: Reasoning = "learn") -> list[Encoded]:
        rows = []
        for turns in _with_ids(encoded):
            if not turns or turns[-1][0] != "assistant":
                raise ValueError("a training row ends with an assistant's message")
            row = self._row(turns, mask, reasoning)
            if row.labels.count(IGNORE_INDEX) == len(row.labels):
                raise ValueError("no token of the row carries loss")
            prompt = self._ids(turns[:-1]) + self.opening["assistant"]
            assert row.input_ids[: len(prompt)] == prompt, "training and generation prompts differ"
            rows.append(row)
        return rows

    def _ids(self, turns: Sequence[Turn]) -> list[int]:
        ids = list(self.first)
        for role, thoughts, content, _ in turns:
            ids += self.opening[role]
            ids += self.lead
            ids += thoughts
            ids += content
            ids += self.closing
            ids += self.after
        return ids

    def _row(self, turns: Sequence[Turn], mask: Mask, reasoning: Reasoning) -> Encoded:
        labels = [IGNORE_INDEX] * len(self.first)
        learn = False
        for number, (role, thoughts, content, may_learn) in enumerate(turns, start=1):
            opening = self.opening[role]
            # Where nothing ends a turn, the token of the next role does, and the answer before it learns that.
            labels += opening if learn and not self.closing else [IGNORE_INDEX] * len(opening)
            masked = mask == "last_answer" and number < len(turns)
            learn = role == "assistant" and may_learn and not masked
            for part, learnt in (
                (self.lead, learn),
                (thoughts, learn and reasoning == "learn"),
                ([*content, *self.closing], learn),
            ):
                labels += part if learnt else [IGNORE_INDEX] * len(part)
            labels += [IGNORE_INDEX] * len(self.after)
        # What follows the last end token belongs to the next turn, which there is not.
        kept = len(labels) - len(self.after)
        ends = self.last if learn else [IGNORE_INDEX] * len(self.last)
        return Encoded(self._ids(turns)[:kept] + self.last, labels[:kept] + ends)


def _with_ids(encoded: Texts) -> list[list[Turn]]:
    merged, encodings = encoded
    ids = iter(encodings)
    return [[(role, next(ids).ids, next(ids).ids, may_learn) for role, _, _, may_learn in turns] for turns in merged]


def _merge_system(messages: Sequence[Message], family: Family) -> list[tuple[str, str, str, bool]]:
    """Turns as the family has them; thoughts of the last answer alone. Raises ValueError as `check_roles` does."""
    check_roles(messages)
    turns: list[tuple[str, str, str, bool]] = []
    system = ""
    for number, message in enumerate(messages, start=1):
        role, content = message["role"], message["content"]
        if role == "system" and not family.system_turn:
            system = content + "\n\n"
        else:
            reasons = message.get("reasoning") and number == len(messages)
            thoughts = f"{OPEN}{message['reasoning']}{CLOSE}" if reasons else ""
            turns.append((role, thoughts, system + content, message.get("learn", True)))
            system = ""
    return turns
