"""Choices of a question: in columns of their own, as an object, as a list, or as lines; one line `A. …` each.

{"question": "…", "option": {"A": "观察", "B": "手术"}, "answer": "A"}
{"question": "…", "choices": ["观察", "手术"], "answer": "B"}
{"input": "…", "A": "观察", "B": "手术", "output": "A"}
"""

import re
from functools import lru_cache
from typing import Any, NamedTuple

from tuneline.data.fields.names import first_field, plain_name
from tuneline.data.fields.values import as_lines, decoded, has_content

LETTERS = "ABCDEFGH"
OPTIONS = ("options", "option", "choices", "choice", "candidates", "选项", "备选项", "选项列表")
_LETTERED = re.compile(r"\s*[(（\[]?([A-Ha-h])[)）\]]?\s*(?:[.．、:：)）]|\s)\s*(?=\S)")
_NAMED = re.compile(r"(?:option|choice|选项|opt|op)_?([a-h])")
_KEY = ("key", "label", "id", "letter", "option")
_TEXT = ("text", "value", "content", "answer", "option_text")


class Choices(NamedTuple):
    text: str
    """The choices as lines; "" when there are none."""
    letters: tuple[str, ...]
    """By which they are answered; none when the lines have no letters."""
    used: tuple[str, ...]
    """Fields that hold them."""


NONE = Choices("", (), ())


def choices_of(fields: dict[str, Any], named: str | None) -> Choices:
    """The choices of a record, of the field that the user has `named` or of one that is known."""
    key = named or first_field(OPTIONS, fields)
    if key and key in fields and has_content(fields[key]):
        return _labelled(decoded(fields[key]), key)
    columns = columns_of_choices(tuple(fields))
    if "A" not in columns or "B" not in columns:
        return NONE
    offered = {letter: name for letter, name in columns.items() if has_content(fields[name])}
    if len(offered) < 2:
        return NONE
    lines = [f"{letter}. {as_lines(fields[name])}" for letter, name in offered.items()]
    return Choices("\n".join(lines), tuple(offered), tuple(offered.values()))


@lru_cache(maxsize=4096)
def columns_of_choices(fields: tuple[str, ...]) -> dict[str, str]:
    """Letter to the column that holds its choice: `A`, `optionA`, `option_a`, `选项A`."""
    found = {name: name for name in fields if name in LETTERS and len(name) == 1}
    for name in fields:
        if match := _NAMED.fullmatch(plain_name(name)):
            found.setdefault(match.group(1).upper(), name)
    return {letter: found[letter] for letter in LETTERS if letter in found}


def _labelled(value: Any, key: str) -> Choices:
    if isinstance(value, dict) and {"label", "text"} <= set(value) and isinstance(value["text"], list):
        # ARC writes {"label": ["A", "B"], "text": ["…", "…"]}.
        value = dict(zip(map(str, value["label"]), value["text"], strict=False))
    if isinstance(value, dict):
        filled = {str(name).strip(): as_lines(text) for name, text in value.items() if has_content(text)}
        letters = tuple(name.upper() for name in filled if name.upper() in LETTERS)
        return Choices("\n".join(f"{name}. {text}" for name, text in filled.items()), letters, (key,))
    if isinstance(value, list):
        return _listed([entry for entry in value if has_content(entry)], key)
    lines = [line for line in str(value).splitlines() if line.strip()]
    letters = tuple(match.group(1).upper() for line in lines if (match := _LETTERED.match(line)))
    return Choices("\n".join(line.strip() for line in lines), letters if len(letters) == len(lines) else (), (key,))


def _listed(entries: list[Any], key: str) -> Choices:
    """Choices of a list: with their own letters where they have them, else by place."""
    texts, letters = [], []
    for place, entry in enumerate(entries):
        own = LETTERS[place] if place < len(LETTERS) else str(place + 1)
        text = as_lines(entry)
        if isinstance(entry, dict) and first_field(_TEXT, entry):
            name = first_field(_KEY, entry)
            own = str(entry[name]) if name else own
            text = as_lines({key: value for key, value in entry.items() if key != name}).replace("\n", " ")
        elif match := _LETTERED.match(text):
            letters.append(match.group(1).upper())
            texts.append(text)
            continue
        letters.append(own)
        texts.append(f"{own}. {text}")
    return Choices("\n".join(texts), tuple(letters), (key,))
