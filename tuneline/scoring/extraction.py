"""Precision, recall and F1 of extracted items, on sets: entities or triples, in any order.

An answer holds one item a line, or between semicolons: a triple `head_relation_tail`, or `type:a、b`, which is the items
`type:a` and `type:b`. Two items are equal when they are so after NFKC, case and white space; items that are there twice
count once. Of several references the one with the highest F1 counts.

Micro F1 counts items over all answers; macro F1 is the mean of F1 over the relations (types) that the references hold. 0-100.
An empty answer to an empty reference is right and adds nothing to any count.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from tuneline.formats.extraction import ENDS, TYPED
from tuneline.formats.records import normalise
from tuneline.scoring.counts import Counts, f1


def items(text: str) -> frozenset[str]:
    """The items of an answer."""
    found: set[str] = set()
    for piece in ENDS.split(text):
        typed = TYPED.fullmatch(piece.strip())
        names = [f"{typed.group(1)}:{name}" for name in typed.group(2).split("、")] if typed else [piece]
        found |= {plain for name in names if (plain := normalise(name))}
    return frozenset(found)


def relation(item: str) -> str:
    """Of a triple; empty for what is none."""
    parts = item.split("_")
    return parts[1] if len(parts) == 3 else ""


def entity_type(item: str) -> str:
    """Type of an entity; empty for what is none."""
    name, colon, _ = item.partition(":")
    return name if colon else ""


def triples(prediction: str, references: Sequence[str]) -> Counts:
    """{relation: (true positives, predicted, actual)} of one answer."""
    return _counted(prediction, references, relation)


def entities(prediction: str, references: Sequence[str]) -> Counts:
    """{type: (true positives, predicted, actual)} of one answer."""
    return _counted(prediction, references, entity_type)


def _counted(prediction: str, references: Sequence[str], class_of: Callable[[str], str]) -> Counts:
    predicted = items(prediction)
    actual = max(map(items, references), key=lambda found: f1(len(predicted & found), len(predicted), len(found)))
    true_positives, claimed, wanted = (
        Counter(map(class_of, found)) for found in (predicted & actual, predicted, actual)
    )
    return {name: (true_positives[name], claimed[name], wanted[name]) for name in sorted(claimed | wanted)}
