"""Records that hold several items: paragraphs with questions below them, and lists of questions and answers side by side.

{"title": "…", "paragraphs": [{"context": "…", "qas": [{"question": "…", "answers": [{"text": "…"}]}]}]}    (SQuAD, CMRC)
{"article": "…", "questions": ["…", "…"], "options": [["…"], ["…"]], "answers": ["A", "C"]}                 (RACE)
"""

from collections.abc import Iterator
from typing import Any

BELOW = ("paragraphs", "qas", "qa", "qa_pairs", "qa_list", "questions_answers")
"""Fields that hold parts with items of their own, or the items."""
ASKED, ANSWERED = ("questions", "question"), ("answers", "answer")
_MENTIONS = tuple(f'"{name}"' for name in (*BELOW, *ASKED[:1]))


def may_hold_items(text: str) -> bool:
    """Whether a record's text names a field that holds items."""
    return any(mention in text for mention in _MENTIONS)


def items(fields: dict[str, Any], place: str) -> list[tuple[str, dict[str, Any]]]:
    """(place, fields) of each item in a record, with the fields of what it stands in; none when it is one item itself."""
    found = list(_items(fields, place))
    return [] if len(found) == 1 and found[0][1] is fields else found


def _items(fields: dict[str, Any], place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, fields) of each item. A field of the part has precedence over one of the same name around it."""
    for name in BELOW:
        parts = fields.get(name)
        if isinstance(parts, list) and parts and all(isinstance(part, dict) for part in parts):
            around = {key: value for key, value in fields.items() if key != name}
            if not _is_part(parts[0]):
                continue
            for number, part in enumerate(parts):
                yield from _items(_renamed(around, part) | part, f"{place}.{name}[{number}]")
            return
    yield from _side_by_side(fields, place)


def _is_part(part: dict[str, Any]) -> bool:
    return bool({*BELOW, *ASKED, "query", "q", "问题", "问", "Question", "Q"} & set(part))


def _renamed(around: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """The fields around a part, under names that do not hide behind the part's own."""
    return {f"outer_{key}" if key in part else key: value for key, value in around.items()}


def _side_by_side(fields: dict[str, Any], place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    asked = next((name for name in ASKED if _texts(fields.get(name))), "")
    answered = next((name for name in ANSWERED if isinstance(fields.get(name), list)), "")
    size = len(fields[asked]) if asked else 0
    if size < 2 or not answered or len(fields[answered]) != size:
        yield place, fields
        return
    beside = {
        name for name, value in fields.items()
        if isinstance(value, list) and len(value) == size and all(isinstance(entry, list | dict) for entry in value)
    }  # fmt: skip
    for number in range(size):
        one = {name: value[number] if name in beside else value for name, value in fields.items()}
        del one[asked], one[answered]
        yield f"{place}[{number}]", one | {"question": fields[asked][number], "answer": fields[answered][number]}


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
