"""Constrained decoding: answers that hold nothing but spans of a text and known classes, by masks over the vocabulary.

The masks are llguidance's, which parses a grammar byte by byte: where tokens begin and end does not matter. Only tokens after
which the answer can still become a sentence of the grammar are left to choose from; an end, where it is one.
"""

import json
import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from llguidance import LLMatcher
from llguidance.hf import from_tokenizer
from transformers import LogitsProcessor

from tuneline.formats.example import IGNORE_INDEX
from tuneline.formats.records import Message
from tuneline.models.chat_format import Prompter

BREAKS = {"triples": r"_;；\n", "entities": r"、;；\n"}
"""Characters that end an item or a span in it, as a regular expression's class has them: no span holds one."""
NAME = {"triples": r"[^_;；\n]+", "entities": r"[^:：_;；\n]{1,12}", "label": r".+"}
"""What a class may be called, so that an answer with it can be read."""
MARK = "甲"
"""A text by which it is found what stands before a text."""
ITEMS = {"triples": 'SPAN "_" CLASS "_" SPAN', "entities": 'CLASS (":" | "：") SPAN ("、" SPAN)*'}

JSON_FORM = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""llguidance's options for JSON: where white space is free, a model may go on with it for ever."""


class Constraint(NamedTuple):
    """What one answer may hold."""

    task: str
    """triples | entities | label."""
    text: str
    """Whose spans may be named; a label needs none."""
    classes: Sequence[str]
    """Relations, types or labels."""


def check_classes(task: str, classes: Sequence[str], key: str) -> None:
    """Raises ValueError, naming the parameter `key`, for a list that leaves nothing to say or a name that can't be read."""
    if task not in NAME:
        raise ValueError(f"{key} names the task {task!r}, expected one of {', '.join(NAME)}")
    if not classes:
        raise ValueError(
            f"{key} is empty for {task}, expected at least one name: list some, or set evaluate.constrain to null"
        )
    wrong = [name for name in classes if not re.fullmatch(NAME[task], name.strip())]
    if wrong:
        raise ValueError(f"{key} holds {wrong[0]!r} for {task}, expected names that match {NAME[task]}")


def grammar(constraint: Constraint, nothing: str = '""', lead: str = '""') -> str:
    """The answers as a grammar in llguidance's Lark: `nothing`, or `lead` and items.

    `nothing` is what stands for an empty answer and `lead` what stands before another one, both in Lark: strings, and control
    tokens by their numbers, which no string matches. Raises ValueError for classes that leave nothing to say.
    """
    task, text, classes = constraint
    check_classes(task, classes, "the list of classes")
    names = f"CLASS: {' | '.join(_quoted(name.strip()) for name in classes)}\n"
    if task == "label":
        return f"start: {lead} CLASS\n{names}"
    broken = BREAKS[task]
    # No white space at either end: a reader strips it, and nothing might be left.
    span = rf"[^{broken}\s]([^{broken}]*[^{broken}\s])?"
    if not re.search(span, text):
        return f"start: {nothing}\n"
    return (
        f"start: {nothing} | {lead} item (END item)*\n"
        f"item: {ITEMS[task]}\n"
        "END: /[;；\\n]/\n"
        f"{names}"
        f"SPAN: TEXT & /{span}/\n"
        f'TEXT: %regex {{"substring_chars": {_quoted(text)}}}\n'
    )


class Constrainer:
    """Constrained decoding with one tokenizer, which takes seconds to read for a large vocabulary."""

    def __init__(self, tokenizer: Any, prompter: Prompter) -> None:
        self.prompter = prompter
        self.vocabulary = from_tokenizer(tokenizer, eos_token=prompter.stop_ids)
        self.pad = tokenizer.pad_token_id or 0
        # A role's line end, an empty thought, or the mark of a first word, as training rows have them.
        self.nothing = self._rule(self._answer_ids(""))
        self.lead = self._rule(self._answer_ids(MARK), MARK)

    def matcher(self, constraint: Constraint) -> LLMatcher:
        """At the beginning of an answer. Raises ValueError for a constraint that makes no grammar."""
        matcher = LLMatcher(self.vocabulary, grammar(constraint, self.nothing, self.lead))
        if matcher.is_error():
            raise ValueError(f"the answers to {constraint.text[:40]!r} can't be constrained: {matcher.get_error()}")
        return matcher

    def processor(self, constraints: Sequence[Constraint | None]) -> "ConstrainedDecoding":
        """For one batch; a row without a constraint is free."""
        return ConstrainedDecoding([None if one is None else self.matcher(one) for one in constraints], self.pad)

    def json_processor(self, schema: str) -> "ConstrainedDecoding":
        """For one answer in JSON, on one line, that keeps to a JSON Schema. Raises ValueError where that makes no grammar."""
        merged = json.loads(schema) | {"x-guidance": JSON_FORM}
        rules = f"start: {self.lead} value\nvalue: %json {json.dumps(merged, ensure_ascii=False)}\n"
        matcher = LLMatcher(self.vocabulary, rules)
        if matcher.is_error():
            raise ValueError(f"response_format has a schema that can't be kept to: {matcher.get_error()[:300]}")
        return ConstrainedDecoding([matcher], self.pad)

    def complete(self, constraint: Constraint, ids: Sequence[int]) -> int:
        """Length of the longest beginning of `ids` that is an answer by itself: where one is cut, an item ends halfway."""
        matcher = self.matcher(constraint)
        longest = 0
        for length, token in enumerate(ids, start=1):
            if not matcher.try_consume_tokens([token]):
                break
            longest = length if matcher.is_accepting() else longest
        return longest

    def allows(self, constraint: Constraint, answer: str) -> bool:
        """Whether an answer can be said under a constraint."""
        ids = self._answer_ids(answer)
        matcher = self.matcher(constraint)
        return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()

    def _answer_ids(self, answer: str) -> list[int]:
        """What a training row teaches of an answer, without its end."""
        turns: list[Message] = [{"role": "user", "content": MARK}, {"role": "assistant", "content": answer}]
        labels = self.prompter.training_row(turns, "last_answer").labels
        learnt = [label for label in labels if label != IGNORE_INDEX]
        end = max((place for place, token in enumerate(learnt) if token in self.prompter.stop_ids), default=len(learnt))
        return learnt[:end]

    def _rule(self, ids: Sequence[int], ending: str = "") -> str:
        """The ids in Lark, without the text that they end with."""
        rules = []
        for special, run in groupby(ids, key=self.vocabulary.is_special_token):
            if special:
                rules += [f"<[{token}]>" for token in run]
            else:
                rules.append(_quoted(bytes(self.vocabulary.decode_bytes(list(run))).decode().removesuffix(ending)))
        return " ".join(rules) or _quoted("")


class ConstrainedDecoding(LogitsProcessor):
    """Logits processor that leaves each row of a batch the tokens its matcher allows."""

    def __init__(self, matchers: Sequence[LLMatcher | None], pad: int) -> None:
        self.matchers = list(matchers)
        self.pad = pad
        self.begun = False

    def keep_rows(self, rows: Sequence[int]) -> None:
        """The others have left the batch."""
        self.matchers = [self.matchers[row] for row in rows]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores [B, V] of ids [B, T], those of tokens that are not allowed at -inf.

        Raises ValueError for a token that was not allowed.
        """
        # The first call comes with the prompt, which no grammar is about.
        if self.begun:
            for place, token in enumerate(input_ids[:, -1].tolist()):
                matcher = self.matchers[place]
                # A row that has ended is filled up with padding.
                if matcher is None or matcher.is_stopped() or matcher.consume_token(token):
                    continue
                if token == self.pad:
                    # At a limit of its own, while others still think.
                    self.matchers[place] = None
                else:
                    raise ValueError(f"a constrained answer can't go on: {matcher.get_error()}")
        self.begun = True
        allowed = torch.from_numpy(np.stack([_allowed(one, scores.shape[1]) for one in self.matchers]))
        return scores.masked_fill(~allowed.to(scores.device), -torch.inf)


class ItemConstraints(NamedTuple):
    """Constraints of the answers to several questions."""

    constrainer: Constrainer
    constraints: Sequence[Constraint | None]
    """One per item; None leaves its answer free."""

    def processor(self, items: Sequence[int]) -> "ConstrainedDecoding":
        """For one batch of item numbers."""
        return self.constrainer.processor([self.constraints[item] for item in items])

    def complete(self, item: int, ids: list[int]) -> list[int]:
        """What remains of an answer that was cut: whole items."""
        constraint = self.constraints[item]
        return ids if constraint is None else ids[: self.constrainer.complete(constraint, ids)]

    def allow(self, item: int, answers: Sequence[str]) -> bool:
        """Whether any of the answers can be said."""
        constraint = self.constraints[item]
        return constraint is None or any(self.constrainer.allows(constraint, answer) for answer in answers)


def _allowed(matcher: LLMatcher | None, size: int) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Which of `size` tokens may follow, bool [size]: a model's head may have more rows than its tokenizer tokens, or fewer."""
    if matcher is None:
        return np.ones(size, dtype=bool)
    bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")[:size]
    return np.pad(bits, (0, size - len(bits))).astype(bool)


def _quoted(text: str) -> str:
    """As a string of Lark and of JSON, which are written alike."""
    return json.dumps(text, ensure_ascii=False)
