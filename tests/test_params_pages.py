"""docs/params.md and its Chinese page list every key of params.yaml with its default, in the file's order."""

import re
from typing import Any

import pytest
import yaml

from tests.helpers.paths import ROOT
from tuneline.data.config import Source

PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
SOURCE = "data.sources[]"
BLOCK = "—"
"""In the place of a default: a block of YAML, or a key that must be given."""
PAGES = pytest.mark.parametrize("name", ["params.md", "params.zh.md"])
Table = list[tuple[str, str]]


def tables_of(text: str) -> dict[str, Table]:
    """{heading: (key, default) of each row}."""
    tables: dict[str, Table] = {}
    for line in text.splitlines():
        if heading := re.fullmatch(r"##+ `(.+)`", line):
            table = tables[heading[1]] = []
        elif row := re.fullmatch(r"\| `(.+?)` \| `?(.+?)`? \| [^|]+ \|", line):
            table.append((row[1], row[2]))
    return tables


def read(name: str) -> dict[str, Table]:
    return tables_of((ROOT / "docs" / name).read_text(encoding="utf-8"))


def wrong_defaults(tables: dict[str, Table]) -> list[str]:
    """Keys of params.yaml whose cells say something else than the file."""
    return [
        f"{section}.{key}"
        for section, values in PARAMS.items()
        for key, default in tables[section]
        if not (is_block(values[key]) if default == BLOCK else same(yaml.safe_load(default), values[key]))
    ]


def is_block(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and set(map(type, value)) == {dict})


def same(told: Any, value: Any) -> bool:
    """1 is neither 1.0 nor true."""
    return type(told) is type(value) and told == value


@PAGES
def test_a_page_lists_every_key_with_its_default(name):
    tables = read(name)
    listed = {section: [key for key, _ in rows] for section, rows in tables.items()}
    assert listed.pop(SOURCE) == list(Source.model_fields)
    assert {section: list(values) for section, values in PARAMS.items()} == listed
    assert list(listed) == list(PARAMS)
    assert wrong_defaults(tables) == []


@PAGES
def test_a_page_lists_the_defaults_of_a_source(name):
    rows, fields = read(name)[SOURCE], Source.model_fields
    assert [key for key, default in rows if default == BLOCK] == [key for key in fields if fields[key].is_required()]
    given = {key: yaml.safe_load(default) for key, default in rows if default != BLOCK}
    assert given == {key: fields[key].get_default(call_default_factory=True) for key in given}


def test_both_languages_have_the_same_headings():
    assert list(read("params.md")) == list(read("params.zh.md"))


def test_a_default_that_differs_and_a_block_that_is_none_are_found():
    text = (ROOT / "docs/params.md").read_text(encoding="utf-8")
    for cells in ("| `r` | `8` |", "| `r` | `16.0` |", f"| `r` | {BLOCK} |"):
        assert wrong_defaults(tables_of(text.replace("| `r` | `16` |", cells))) == ["lora.r"]
