"""JSON Lines, or a JSON array, of flat question-answer objects; told apart by content, never by extension.

{"system": "请回答下列问题…", "query": "我在2011年有过一次醉酒驾驶…", "response": "回答:醉驾对孩子上学可能有影响…"}
"""

import json
from collections.abc import Iterator
from typing import Any


def claims(text: str) -> bool:
    return text.lstrip()[:1] in ("{", "[")


def read(text: str) -> Iterator[tuple[str, dict[str, Any] | str, str]]:
    if text.lstrip().startswith("["):
        yield from _array(text)
    else:
        yield from _lines(text)


def _lines(text: str) -> Iterator[tuple[str, dict[str, Any] | str, str]]:
    # Not str.splitlines(): it also splits at U+2028 and U+0085, which JSON strings may hold.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield str(number), _object(line), line


def _array(text: str) -> Iterator[tuple[str, dict[str, Any] | str, str]]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        yield str(getattr(error, "lineno", 1)), "broken_json_array", text
        return
    for index, row in enumerate(rows):
        raw = json.dumps(row, ensure_ascii=False, sort_keys=True)
        yield f"[{index}]", row if isinstance(row, dict) else "not_an_object", raw


def _object(line: str) -> dict[str, Any] | str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return "broken_json"
    return row if isinstance(row, dict) else "not_an_object"
