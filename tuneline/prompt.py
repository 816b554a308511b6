"""Messages to ids, for training and for generation, side by side so that the two cannot drift apart.

Control tokens are placed as ids and everything a person wrote is encoded as plain text by a tokenizer
that knows no control tokens, so no text can forge a role (transformers#29279). The Jinja templates of
tuneline.templates say the same for servers, which work on text.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tuneline.records import Message

Mask = Literal["all_answers", "last_answer", "none"]
"""Which assistant turns are learnt."""
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
        if not messages or messages[-1]["role"] != "assistant":
            raise ValueError("a training row ends with an assistant's message")
        row = self._turns(messages, mask)
        # The newline after the last end token belongs to the next turn, which there is not.
        del row.input_ids[-len(self.newline) :], row.labels[-len(self.newline) :]
        if all(label == IGNORE_INDEX for label in row.labels):
            raise ValueError("no token of the row is learnt")
        prompt = self.generation_prompt(messages[:-1])
        assert row.input_ids[: len(prompt)] == prompt, "training and generation prompts differ"
        return row

    def _turns(self, messages: Sequence[Message], mask: Mask) -> Encoded:
        row = Encoded([], [])

        def add(ids: Iterable[int], learn: bool = False) -> None:
            for token in ids:
                row.input_ids.append(token)
                row.labels.append(token if learn else IGNORE_INDEX)

        turns = _merge_system(messages, self.family)
        add(self.first)
        for turn, (role, content) in enumerate(turns, start=1):
            learn = role == "assistant" and (mask == "all_answers" or (mask == "last_answer" and turn == len(turns)))
            add(self.roles[role])
            add([*self.text(content), self.end], learn)
            add(self.newline)
        return row

    def _header(self, role: str) -> list[int]:
        return [self.start, *self.text(f"{role}\n")]


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
