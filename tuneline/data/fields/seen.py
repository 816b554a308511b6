"""What a file of unknown shape holds, in words, with the lines of params.yaml that make it readable."""

import json
import re
from typing import Any

from tuneline.data.fields.names import ROLE
from tuneline.data.fields.values import SEPARATOR, has_content

FIELDS_SHOWN = 8
SHOWN = 24
"""Characters of a value that are shown."""
_PLAIN = re.compile(r"[\w.\u4e00-\u9fff]+")


def seen(fields: dict[str, Any]) -> str:
    """The fields of a record with an example value each, and what to write into params.yaml."""
    texts = list(_texts(fields, ""))
    names = [f"{name} ({_shown(value)})" for name, value in fields.items()][:FIELDS_SHOWN]
    more = f" and {len(fields) - FIELDS_SHOWN} more" if len(fields) > FIELDS_SHOWN else ""
    told = f"records hold {', '.join(names)}{more}"
    if len(texts) < 2:
        return f"{told}, expected a question and an answer"
    question = texts[0][0]
    answer = max(texts[1:], key=lambda entry: len(entry[1]))[0]
    line = f"columns: {{question: {_quoted(question)}, answer: {_quoted(answer)}}}"
    return (
        f"{told}; under this source in params.yaml, write `{line}`, with the fields that are your question and answer"
    )


def seen_text(head: str) -> str:
    """The same for text that is no record."""
    rows = [line.split("\t") for line in head.splitlines()[:20] if line.strip()]
    if rows and len(rows[0]) > 1 and len({len(row) for row in rows}) == 1:
        return (
            seen({str(number): cell for number, cell in enumerate(rows[0])}) + " (columns by number, without a header)"
        )
    if len(rows) > 1:
        return (
            f"it has lines such as {_shown(rows[0][0])} and {_shown(rows[1][0])}; where questions and answers take turns "
            "line by line, write `format: line_pairs` under this source in params.yaml"
        )
    return "it has no fields, no table and no speakers"


def _texts(value: Any, path: str) -> list[tuple[str, str]]:
    """(path, text) of everything that may be a question or an answer."""
    if isinstance(value, str):
        return [(path, value)] if has_content(value) else []
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [
        found
        for key, part in parts
        if key not in ROLE
        for found in _texts(part, f"{path}{SEPARATOR}{key}" if path else str(key))
    ]


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.split())
    return f"“{text[:SHOWN]}…”" if len(text) > SHOWN else f"“{text}”"


def _quoted(path: str) -> str:
    return path if _PLAIN.fullmatch(path) and not path.isdigit() else json.dumps(path, ensure_ascii=False)
