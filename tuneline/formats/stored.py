"""Reading what an earlier stage wrote, as rows or as one JSON object: content that is not as it writes it is one sentence.

Which byte of it changed is said by runtime/storage/inputs.py; this is for files that somebody wrote himself.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

NUMBER = (int, float)
Fields = Mapping[str, type | tuple[type, ...]]
"""Names of what must be there, `total.train` inside `total`, `sources.*.train` inside each of `sources`; with its type."""
NAMES = {str: "text", int: "an integer", bool: "true or false", list: "a list", dict: "an object", type(None): "null"}
COUNTS: dict[str, type | tuple[type, ...]] = {
    **{
        f"{place}.{term}": int for place in ("total", "sources.*") for term in ("items", "train", "heldout", "rejected")
    },
    **{f"sources.*.{term}": int for term in ("duplicates", "leaks")},
}
"""Of metrics/convert_details.json."""
TRAINING: Fields = dict.fromkeys(
    ("rows_seen", "steps", "supervised_tokens", "total_parameters", "trainable_parameters"), int
)
"""Of metrics/train.json."""
EVALUATION: Fields = {
    "items": int, "base.*.value": (*NUMBER, type(None)), "tuned.*.value": (*NUMBER, type(None)), "delta": dict,
}  # fmt: skip
"""Of metrics/eval_details.json."""


def read_rows(
    path: Path, fields: Fields, stage: str, check: Callable[[Any], str | None] | None = None
) -> Iterator[Any]:
    """Rows of a file of JSON lines that `stage` writes.

    `check` says what else is wrong with a row. Raises ValueError naming file, line and what was expected, and when the file
    is missing.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing: run `dvc repro {stage}`, which writes it")
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = orjson.loads(line)
                wrong = complaint(row, fields) or (check(row) if check else None)
            except orjson.JSONDecodeError as error:
                wrong = f"no JSON ({error})"
            if wrong:
                raise ValueError(f"{path}, line {number}: {wrong}; `dvc repro {stage}` writes it anew")
            yield row


def read_object(path: Path, fields: Fields, stage: str) -> dict[str, Any]:
    """The JSON object in a file that `stage` writes. Raises ValueError naming file, key and what was expected."""
    if not path.is_file():
        raise ValueError(f"{path} is missing: run `dvc repro {stage}`, which writes it")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        wrong = complaint(found, fields)
    except (ValueError, RecursionError) as error:
        wrong = f"no JSON ({error})"
    if wrong:
        raise ValueError(f"{path}: {wrong}; `dvc repro {stage}` writes it anew")
    assert isinstance(found, dict)
    return found


def complaint(value: Any, fields: Fields) -> str | None:
    """What is wrong with a row or an object; None when each field is there and of its type."""
    if not isinstance(value, dict):
        return f"it is {_name(type(value))}, expected an object"
    return next((wrong for name, kind in fields.items() if (wrong := _missing(value, name, kind))), None)


def _missing(value: dict[str, Any], name: str, kind: type | tuple[type, ...], above: str = "") -> str | None:
    first, _, rest = name.partition(".")
    if first == "*":
        parts = value
    elif first not in value:
        return f"{above}{first} is missing, expected {_names(kind) if not rest else 'an object'}"
    else:
        parts = {first: value[first]}
    for key, part in parts.items():
        wanted: type | tuple[type, ...] = dict if rest else kind
        if not _is_a(part, wanted):
            return f"{above}{key} is {_shown(part)}, expected {_names(wanted)}"
        if rest and (wrong := _missing(part, rest, kind, f"{above}{key}.")):
            return wrong
    return None


def _is_a(value: Any, kind: type | tuple[type, ...]) -> bool:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    # A truth value is an integer in Python, and in no file.
    return isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _names(kind: type | tuple[type, ...]) -> str:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return " or ".join(_name(one) for one in kinds if one is not int or float not in kinds)


def _name(kind: type) -> str:
    return NAMES.get(kind, "a number")
