"""Marks of what is not to be learnt: of a whole row, of one message, and of the worse side of a preference pair.

{"messages": […], "label": false}                                    KTO of TRL and ms-swift
{"instruction": "…", "output": "…", "kto_tag": false}                LLaMA-Factory
{"role": "assistant", "content": "…", "loss": false}                 ms-swift, XTuner; also `loss_scale`, `loss_weight`
{"role": "assistant", "content": "…", "weight": 0}                   OpenAI, Mistral; `train`, `training` (Axolotl)
{"role": "assistant", "content": "…", "masked": true}                torchtune
{"prompt": "…", "chosen": "…", "rejected": "…"}                      DPO, ORPO, SimPO, reward models
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from tuneline.data.fields.names import ANSWER, MESSAGES, first_field, plain_name, present_fields
from tuneline.data.fields.values import has_content

BAD = frozenset({
    "false", "0", "0.0", "-1", "bad", "rejected", "reject", "wrong", "incorrect", "undesirable", "dispreferred", "lose",
    "差", "坏", "错误", "不好", "不合格",
})  # fmt: skip
GOOD = frozenset({
    "true", "1", "1.0", "good", "chosen", "accept", "accepted", "right", "correct", "desirable", "preferred", "win", "好",
    "正确", "合格",
})  # fmt: skip
"""No yes and no, positive and negative, which are answers of their own."""
ROW_MARKS = (
    "kto_tag", "label", "is_good", "good", "is_correct", "correct", "is_right", "accepted", "desirable", "is_desirable",
    "is_valid", "valid", "quality", "preference", "feedback", "评价", "质量",
)  # fmt: skip
"""Fields that say whether a row is good, where all that they hold is a word of GOOD or BAD."""
INVERSE_MARKS = ("is_bad", "bad", "is_wrong", "wrong", "undesirable", "is_negative", "rejected", "is_rejected")
"""The same for whether it is bad; `rejected` only as true and false."""
LEARN = ("loss", "loss_weight", "loss_scale", "weight", "train", "training", "trainable", "learn", "is_train", "label")
"""Fields of a message that say whether it is learnt."""
MASKED = ("masked", "mask", "is_masked", "ignore_loss", "no_loss")
"""Fields of a message that say whether it is not."""
CHOSEN = (
    "chosen", "chosen_response", "response_chosen", "chosen_messages", "chosen_answer", "answer_chosen", "preferred",
    "preferred_output", "preferred_response", "accepted_response", "accept", "win", "winner", "better", "response_j",
    "good_answer", "good_response", "positive", "pos",
)  # fmt: skip
REJECTED = (
    "rejected", "rejected_response", "response_rejected", "rejected_messages", "rejected_answer", "answer_rejected",
    "non_preferred_output", "dispreferred", "dispreferred_output", "reject", "rejected_output", "lose", "loser", "worse",
    "response_k", "bad_answer", "bad_response", "negative", "neg", "negatives",
)  # fmt: skip


class Pair(NamedTuple):
    """The fields of a preference pair."""

    chosen: str
    """ "" where the row's own answer or dialogue is the good side."""
    rejected: tuple[str, ...]


def preference_pair(fields: dict[str, Any]) -> Pair | None:
    """The fields of a record that is a preference pair, None for any other: a bad side with text makes it one."""
    names = tuple(fields)
    good, bad = present_fields(CHOSEN, names), present_fields(REJECTED, names)
    if not good and not bad:
        return None
    rejected = tuple(name for name in bad if _is_side(fields[name]))
    chosen = next((name for name in good if _is_side(fields[name])), "")
    return Pair(chosen, rejected) if rejected or plain_name(chosen) in CHOSEN[:5] else None


def _is_side(value: Any) -> bool:
    """Whether a value is a side of a pair, and no mark or number."""
    return isinstance(value, str | list | dict) and has_content(value) and word(value) not in BAD | GOOD


def word(value: Any) -> str:
    """A value as BAD and GOOD write it; "" for what is none."""
    return str(value).strip().lower() if isinstance(value, str | bool | int | float) else ""


def marking_fields(records: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Fields that mark the rows of a file as good or bad: beside an answer, and holding nothing but such words."""
    found = []
    for name in dict.fromkeys(name for fields in records for name in fields):
        if plain_name(name) not in (*ROW_MARKS, *INVERSE_MARKS):
            continue
        values = [word(fields[name]) for fields in records if has_content(fields.get(name))]
        beside = any(has_answer_beside(fields, name) for fields in records if name in fields)
        if values and beside and set(values) <= BAD | GOOD:
            found.append(name)
    return tuple(found)


def has_answer_beside(fields: dict[str, Any], mark: str) -> bool:
    others = {name: value for name, value in fields.items() if name != mark}
    answer = first_field(ANSWER, others)
    return bool(first_field(MESSAGES, others)) or bool(answer and has_content(others[answer]))


def is_bad(fields: dict[str, Any], marks: Sequence[str]) -> bool:
    """Whether one of the `marks` of its file says that a record is bad."""
    for name in marks:
        value = word(fields.get(name))
        inverse = plain_name(name) in INVERSE_MARKS
        if value in (GOOD if inverse else BAD):
            return True
    return False


def message_mark(message: dict[str, Any]) -> tuple[bool | None, tuple[str, ...]]:
    """(whether a message is to be learnt, None where nothing says; fields that say so as 0 or 1, true or false)."""
    learn, said = None, []
    for name in mark_names(tuple(message)):
        text = word(message[name])
        if text not in BAD and text not in GOOD:
            continue
        said.append(name)
        negative = text in (GOOD if plain_name(name) in MASKED else BAD)
        learn = False if negative else (True if learn is None else learn)
    return learn, tuple(said)


@lru_cache(maxsize=4096)
def mark_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of a message's fields that may say whether it is learnt."""
    return tuple(name for name in names if plain_name(name) in (*LEARN, *MASKED))
