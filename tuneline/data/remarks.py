"""Remarks on a source: what a person should know of it before a model learns it, a line each."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tuneline.data.cleaning import MASKED, TAGS
from tuneline.data.notices.personal_data import PERSONAL
from tuneline.data.turns.conversation import MARKED_BAD


def remarks(name: str, row: dict[str, Any]) -> list[str]:
    """Lines on a source; `row` is its part of metrics/convert_details.json."""
    return [
        f"convert: {line}"
        for line in (*_reading(name, row), *_personal(name, row), *_answers(name, row), *_dialogues(name, row))
    ]


def _reading(name: str, row: dict[str, Any]) -> Iterator[str]:
    """What of the files is read, and what is not."""
    other = Counter(encoding for encoding in row["encodings"].values() if not encoding.startswith("utf-8"))
    if other:
        yield f"{name} is read as {_counted(other, 'of its files')}; encoding of the source overrides it"
    if row["skipped"]:
        yield f"{name} holds files that no reader knows: {len(row['skipped'])} are skipped, such as {row['skipped'][0]}"
    if torn := row["reasons"].get("unreadable_file"):
        yield f"{name} holds files that can't be read, or not to their end ({torn}): data/processed/rejects.jsonl says why"
    if row["placeholders"]:
        yield f"{name} holds placeholders that data.placeholders does not fill: {_counted(row['placeholders'])}"
    if row["unused"]:
        yield f"{name} has fields that nothing reads: {_counted(row['unused'])}"
    if tagged := row["noticed"].get(TAGS):
        yield f"{name} holds tags of HTML ({tagged} items): html_tags in data.repairs takes them out"
    if row["markup"]:
        yield (
            f"{name} holds the markup of other chat templates in its text: {_counted(row['markup'], 'items')}; "
            "other_templates in data.repairs turns it into turns where it can"
        )
    if row["beyond_limit"]:
        yield f"{row['beyond_limit']} rows of {name} are left out by its limit"
    if row["beyond_share"]:
        yield f"{row['beyond_share']} rows of {name} are left out by data.train_share"


def _personal(name: str, row: dict[str, Any]) -> Iterator[str]:
    found = {kind.replace("_", " "): row["noticed"][kind] for kind in PERSONAL if kind in row["noticed"]}
    if found:
        yield (
            f"{name} holds personal data, which a model may repeat: {_counted(found, 'items')}; "
            "names of people are not searched for"
        )


def _answers(name: str, row: dict[str, Any]) -> Iterator[str]:
    """Answers that are not learnt, and those that should be looked at."""
    if marked := row["reasons"].get(MARKED_BAD):
        yield f"{name} marks {marked} items as bad, which are not learnt"
    if masked := row["noticed"].get(MASKED):
        yield f"{name} has {masked} dialogues with answers that are marked as not to be learnt: they are masked"
    if row["answers"]:
        faults = {fault.replace("_", " "): count for fault, count in row["answers"].items()}
        yield f"{name} holds answers with faults: {_counted(faults)} of {row['items']} items"
    for answer, count in row["same_answers"].items():
        yield f"{name} gives {count} times the same answer, {answer!r}"


def _dialogues(name: str, row: dict[str, Any]) -> Iterator[str]:
    """Turns that are scored, and dialogues that are not."""
    if row["scored_earlier"]:
        yield (
            f"{row['scored_earlier']} of {row['heldout']} held-out dialogues of {name} go on after the answer that is scored, "
            "with thanks, a farewell or what a call gave"
        )
    if row["nothing_asked"]:
        yield f"{row['nothing_asked']} dialogues of {name} ask nothing, and are never drawn for the held-out set"


def _counted(counts: dict[str, int], unit: str = "") -> str:
    return ", ".join(f"{text} ({count}{' ' + unit if unit else '×'})" for text, count in counts.items())
