"""Messages to ids, for training and for generation, side by side so that the two cannot drift apart.

Control tokens are placed as ids and everything a person wrote is encoded as plain text by a tokenizer
that knows no control tokens, so no text can forge a role (transformers#29279). The Jinja templates of
tuneline.templates say the same for servers, which work on text.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tuneline.records import Message

Mask = Literal["all_answers", "last_answer", "none"]
"""Which assistant turns are learnt."""
Turn = tuple[str, list[int]]
"""Role, and ids of the content."""
Texts = tuple[list[list[tuple[str, str]]], list[Any]]
"""Conversations as (role, content) turns of their family, and the encodings of all contents in order."""
IGNORE_INDEX = -100
"""The label that carries no loss (torch.nn.functional.cross_entropy)."""


@dataclass(frozen=True)
class Family:
    """The turn markers of one family of chat models.

    A turn is start + role name + "\\n" + content + end + "\\n". Source: the families' published templates.
    """

    name: str
    start: str
    end: str
    begins_with: str | None
    """Control token before the first turn."""
    assistant: str
    """The assistant's role name."""
    system_turn: bool
    """Whether a system prompt has a turn of its own, or else goes before the first user turn."""


FAMILIES = (
    Family("gemma", "<start_of_turn>", "<end_of_turn>", "<bos>", "model", system_turn=False),
    Family("chatml", "<|im_start|>", "<|im_end|>", None, "assistant", system_turn=True),
)


@dataclass(frozen=True)
class Encoded:
    """One row. `labels[i]` is `input_ids[i]` where it is learnt, else IGNORE_INDEX; both have length T."""

    input_ids: list[int]
    labels: list[int]


def family_of(tokenizer: Any) -> Family:
    """The family whose markers the tokenizer has as single tokens.

    Raises ValueError when it has those of none.
    """
    vocabulary = tokenizer.get_vocab()
    for family in FAMILIES:
        if family.start in vocabulary and family.end in vocabulary:
            return family
    markers = " or ".join(f"{family.start} ({family.name})" for family in FAMILIES)
    raise ValueError(f"the base's tokenizer has no turn markers that we know: expected {markers} in its vocabulary")


class Prompter:
    """Encodes messages for one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self.family = family_of(tokenizer)
        self.plain = _without_control_tokens(tokenizer)
        ids = tokenizer.convert_tokens_to_ids
        self.start, self.end = ids(self.family.start), ids(self.family.end)
        self.first = [ids(self.family.begins_with)] if self.family.begins_with else []
        self.newline = self.text("\n")
        self.closing = [self.end, *self.newline]
        self.roles = {
            "system": self._header("system"),
            "user": self._header("user"),
            "assistant": self._header(self.family.assistant),
        }
        self.stop_ids = sorted({self.end, *_as_list(tokenizer.eos_token_id)})

    def text(self, content: str) -> list[int]:
        """Ids of plain text: never a control token, whatever it says."""
        return list(self.plain.encode(content, add_special_tokens=False).ids)

    def generation_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids up to where the assistant's answer begins. The last message must be the user's."""
        if not messages or messages[-1]["role"] != "user":
            raise ValueError("a generation prompt ends with a user's message")
        return self._turns(messages, "none").input_ids + self.roles["assistant"]

    def training_row(self, messages: Sequence[Message], mask: Mask = "all_answers") -> Encoded:
        """Ids and labels of a whole conversation, which ends with the assistant's answer and its end token.

        Raises ValueError when nothing would be learnt, or for an unknown role or a late system prompt.
        """
        return self.training_rows([messages], mask)[0]

    def training_rows(self, conversations: Sequence[Sequence[Message]], mask: Mask = "all_answers") -> list[Encoded]:
        """The same for many, whose texts are encoded together: on all cores, and to the same ids."""
        return self.rows(self.encode(conversations), mask)

    def encode(self, conversations: Sequence[Sequence[Message]]) -> Texts:
        """The texts of the conversations, encoded; Python is free for other threads meanwhile."""
        merged = [_merge_system(messages, self.family) for messages in conversations]
        texts = [content for turns in merged for _, content in turns]
        return merged, self.plain.encode_batch_fast(texts, add_special_tokens=False)

    def rows(self, encoded: Texts, mask: Mask) -> list[Encoded]:
        """The training rows of what `encode` gave."""
        rows = []
        for turns in _with_ids(encoded):
            if not turns or turns[-1][0] != "assistant":
                raise ValueError("a training row ends with an assistant's message")
            row = self._row(turns, mask)
            # The newline after the last end token belongs to the next turn, which there is not.
            del row.input_ids[-len(self.newline) :], row.labels[-len(self.newline) :]
            if row.labels.count(IGNORE_INDEX) == len(row.labels):
                raise ValueError("no token of the row is learnt")
            prompt = self._ids(turns[:-1]) + self.roles["assistant"]
            assert row.input_ids[: len(prompt)] == prompt, "training and generation prompts differ"
            rows.append(row)
        return rows

    def _turns(self, messages: Sequence[Message], mask: Mask) -> Encoded:
        (turns,) = _with_ids(self.encode([messages]))
        return self._row(turns, mask)

    def _row(self, turns: Sequence[Turn], mask: Mask) -> Encoded:
        labels = [IGNORE_INDEX] * len(self.first)
        for number, (role, content) in enumerate(turns, start=1):
            learn = role == "assistant" and (mask == "all_answers" or (mask == "last_answer" and number == len(turns)))
            labels += [IGNORE_INDEX] * len(self.roles[role])
            labels += [*content, self.end] if learn else [IGNORE_INDEX] * (len(content) + 1)
            labels += [IGNORE_INDEX] * len(self.newline)
        return Encoded(self._ids(turns), labels)

    def _ids(self, turns: Sequence[Turn]) -> list[int]:
        ids = list(self.first)
        for role, content in turns:
            ids += self.roles[role]
            ids += content
            ids += self.closing
        return ids

    def _header(self, role: str) -> list[int]:
        return [self.start, *self.text(f"{role}\n")]


def _with_ids(encoded: Texts) -> list[list[Turn]]:
    merged, encodings = encoded
    ids = iter(encodings)
    return [[(role, next(ids).ids) for role, _ in turns] for turns in merged]


def _merge_system(messages: Sequence[Message], family: Family) -> list[tuple[str, str]]:
    """Turns as the family has them. Raises ValueError for an unknown role or a late system prompt."""
    turns: list[tuple[str, str]] = []
    system = ""
    for number, message in enumerate(messages):
        role, content = message["role"], message["content"]
        if role == "system" and number:
            raise ValueError(f"message {number} is a system prompt, expected only before the first turn")
        if role == "system" and not family.system_turn:
            system = content + "\n\n"
        elif role in ("system", "user", "assistant"):
            turns.append((role, system + content))
            system = ""
        else:
            raise ValueError(f"message {number} has role {role!r}, expected system, user or assistant")
    return turns


def _without_control_tokens(tokenizer: Any) -> Any:
    """The same tokenizer, knowing no added tokens but those of white space (which text needs)."""
    from tokenizers import Tokenizer

    state = tokenizer.backend_tokenizer.to_str()
    # Only this list is parsed: the whole is 30 MB for the default base, and seconds.
    begin = state.index('"added_tokens":') + len('"added_tokens":')
    added, end = json.JSONDecoder().raw_decode(state, begin)
    white = [token for token in added if not token["content"].strip()]
    plain = Tokenizer.from_str(state[:begin] + json.dumps(white) + state[end:])
    # Some checkpoints save these as they were last used; here they would cut answers.
    plain.no_truncation()
    plain.no_padding()
    return plain


def _as_list(ids: Any) -> list[int]:
    if ids is None:
        return []
    return list(ids) if isinstance(ids, list | tuple) else [ids]
