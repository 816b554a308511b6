"""Syntax of answers that are extracted: triples `head_relation_tail`, entities `type:a、b`, labels; and the classes they name.

Items stand on lines of their own, or between semicolons. A class is a triple's relation, an entity's type, or a label.
"""

import re
from pathlib import Path

import orjson

from tuneline.formats.records import Record, references

ENDS = re.compile(r"[;；\n]+")
TYPED = re.compile(r"([^:：_]{1,12})[:：](.+)")
TASKS = ("triples", "entities", "label")
"""Those whose answers name classes."""
FREE = b'"task":"qa"}\n'
"""End of a line of a record whose answer names no class, as most are."""
Classes = dict[str, list[str]]
"""{task: names}, sorted."""


def named_classes(task: str, answer: str) -> set[str]:
    """Names of the classes in an answer, as they stand there."""
    if task == "label":
        return {answer.strip()} - {""}
    pieces = [piece.strip() for piece in ENDS.split(answer)]
    if task == "triples":
        triples = [piece.split("_") for piece in pieces]
        return {parts[1].strip() for parts in triples if len(parts) == 3} - {""}
    typed = [TYPED.fullmatch(piece) for piece in pieces]
    return {match.group(1).strip() for match in typed if match} - {""}


def read_classes(records: Path) -> Classes:
    """Classes that the answers in a file of records name; tasks that name none are left out."""
    found: dict[str, set[str]] = {task: set() for task in TASKS}
    with records.open("rb") as lines:
        for line in lines:
            if line.endswith(FREE):
                continue
            record: Record = orjson.loads(line)
            for answer in references(record) if record["task"] in found else ():
                found[record["task"]] |= named_classes(record["task"], answer)
    return {task: sorted(names) for task, names in found.items() if names}
