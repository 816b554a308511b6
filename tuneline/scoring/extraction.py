"""Precision, recall and F1 of extracted items, on sets: entities or triples, in any order.

An answer holds one item a line, or between semicolons: a triple `head_relation_tail`, or `type:a、b`, which is the items
`type:a` and `type:b`. Two items are equal when they are so after NFKC, case and white space; items that are there twice
count once. Of several references the one with the highest F1 counts.

Micro F1 counts items over all answers; macro F1 is the mean of F1 over the relations (types) that the references hold. 0-100.
An empty answer to an empty reference is right and adds nothing to any count.
"""

import re
from collections.abc import Sequence

from tuneline.records import normalise
from tuneline.scoring.counts import Counts, f1

ENDS = re.compile(r"[;；\n]+")
TYPED = re.compile(r"([^:：_]{1,12})[:：](.+)")


def items(text: str) -> frozenset[str]:
    """The items of an answer."""
    found: set[str] = set()
    for piece in ENDS.split(text):
        typed = TYPED.fullmatch(piece.strip())
        names = [f"{typed.group(1)}:{name}" for name in typed.group(2).split("、")] if typed else [piece]
        found |= {plain for name in names if (plain := normalise(name))}
    return frozenset(found)


def relation(item: str) -> str:
    """The relation of a triple or the type of an entity; empty for what is neither."""
    parts = item.split("_")
    if len(parts) == 3:
        return parts[1]
    kind, colon, _ = item.partition(":")
    return kind if colon else ""


def counted(prediction: str, references: Sequence[str]) -> Counts:
    """{relation: (items in common, said, right)} of one answer."""
    said = items(prediction)
    right = max(map(items, references), key=lambda one: f1(len(said & one), len(said), len(one)))
    kinds = sorted({relation(item) for item in said | right})
    return {
        kind: tuple(sum(relation(item) == kind for item in one) for one in (said & right, said, right))  # type: ignore[misc]
        for kind in kinds
    }
