"""File of general prompts (`evaluate.general`): JSON lines of {"id", "question", "answer"}, read strictly."""

from pathlib import Path
from typing import Any

import orjson

from tuneline.runtime.evaluation_folder import FOLDER, path_of

FIELDS = ("id", "question", "answer")


def read_own_prompts(name: str, folder: Path = FOLDER) -> dict[str, tuple[str, str]]:
    """{id: (question, answer)} in the order of the file.

    Raises ValueError naming file and line of what is no prompt, or an id for the second time; and for a file that is missing
    or holds none.
    """
    try:
        path = path_of(name, folder)
    except ValueError as error:
        raise ValueError(
            f"evaluate.general is {name!r}, expected JSON lines of {', '.join(FIELDS)}: {error}; null is the prompts that come "
            "with Tuneline"
        ) from None
    prompts: dict[str, tuple[str, str]] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        try:
            row = orjson.loads(line)
            wrong = wrong_with(row)
        except orjson.JSONDecodeError as error:
            wrong = f"no JSON ({error})"
        if not wrong and row["id"] in prompts:
            wrong = f"id {row['id']!r} is that of line {lines[row['id']]}, too, expected another one"
        if wrong:
            raise ValueError(f"{path}, line {number} (evaluate.general): {wrong}")
        prompts[row["id"]], lines[row["id"]] = (row["question"], row["answer"]), number
    if not prompts:
        raise ValueError(f"{path} (evaluate.general) is empty, expected at least one prompt; null is those of Tuneline")
    return prompts


def wrong_with(row: Any) -> str | None:
    """What is wrong with a line; None for a prompt."""
    if not isinstance(row, dict):
        return "no object, expected one with " + ", ".join(FIELDS)
    if unknown := sorted(set(row) - set(FIELDS)):
        return f"{unknown[0]!r} is no key of a prompt, expected {', '.join(FIELDS)}"
    for name in FIELDS:
        if name not in row:
            return f"{name} is missing, expected text"
        if not isinstance(row[name], str) or not row[name].strip():
            return f"{name} is {row[name]!r}, expected text that is not empty"
    return None
