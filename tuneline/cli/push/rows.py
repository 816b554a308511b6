"""Whether texts hold text of the project's rows: every stretch of a row is looked up, however it is wrapped or written."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from tuneline.cli.push.written import as_read, one_line, strings
from tuneline.formats.json_object import json_object
from tuneline.formats.records import read_records
from tuneline.formats.stored import read_rows
from tuneline.models.loading import BASE
from tuneline.runtime.params import read_params

PROCESSED = Path("data/processed")
ROWS = ("data/processed/train.jsonl", "data/processed/heldout.jsonl")
"""Records; the other files hold parts of them."""
CARD = Path(__file__).parents[2] / "export/model_card.md.jinja"
OURS = "base_general.jsonl"
"""Answers to questions that come with the project."""
PARTS = ("question", "heldout", "prediction", "messages", "references")
"""Keys of a row's texts in files of other rows than records, of whatever form."""
LENGTH, SHORTEST = 24, 12
"""Characters without white space: of a stretch that tells a row apart, and of a whole text that does."""
STEP = LENGTH - SHORTEST + 1
"""Whatever its place, a stretch has a piece of SHORTEST characters that begins at a multiple of it."""
LABELS = ("label", "labels")
"""Tasks whose answers are names of classes, which stand in a card rightly."""


def held_rows(texts: Mapping[str, str], project: Path) -> Iterator[str]:
    """A sentence for each file of rows of which a text holds something; `texts` are {name: content}.

    Raises ValueError naming file and line of what is no row.
    """
    stretches = Stretches({name: one_line(text) for name, text in texts.items()}, public_texts(project))
    sources = sorted(path for path in (project / PROCESSED).glob("*.jsonl") if path.name != OURS)
    found = {path: stretches.rows_of(path) for path in sources}
    if any(found.values()):
        prompts = set(chain.from_iterable(map(_prompts, _records(project))))
        found = {path: _beside(hits, prompts) for path, hits in found.items()}
    for path, hits in found.items():
        if hits:
            text, number = min(hits.items(), key=lambda hit: hit[1])
            held = next(name for name, content in stretches.texts.items() if text in content)
            yield f"{held} holds text of row {number} of {path.relative_to(project).as_posix()}"


def public_texts(project: Path) -> list[str]:
    """What a row may have in common with a release: templates, names of classes, our card, and what the base says."""
    classes = project / PROCESSED / "classes.json"
    found = [*strings(json_object(classes))] if classes.is_file() else []
    if (project / "params.yaml").is_file():
        found += strings(read_params(project / "params.yaml").get("data"))
    base = [
        path for pattern in ("*.json", "*.jinja", "NOTICE*", "*LICENSE*") for path in (project / BASE).glob(pattern)
    ]
    found += [as_read(path) for path in base if path.is_file() and path.name != "tokenizer.json"]
    return [one_line(text) for text in [*found, CARD.read_text(encoding="utf-8")]]


class Stretches:
    """Every stretch of the texts, which are without white space, but for those of public texts."""

    def __init__(self, texts: Mapping[str, str], public: Iterable[str]) -> None:
        self.texts, self.public = texts, frozenset(public)
        self.whole = _cut(self.texts.values(), LENGTH) - _cut(self.public, LENGTH)
        self.pieces = _cut(self.whole, SHORTEST)
        self.starts = _cut(self.texts.values(), SHORTEST)
        """What a short text may begin with."""

    def rows_of(self, path: Path) -> dict[str, int]:
        """Stretches that a file's rows have, too, each with the number of the first such row."""
        found: dict[str, int] = {}
        for number, texts in enumerate(_texts(path), start=1):
            for text in map(one_line, texts):
                for hit in self._of(text):
                    found.setdefault(hit, number)
        return found

    def _of(self, text: str) -> Iterator[str]:
        if SHORTEST <= len(text) < LENGTH:
            if text[:SHORTEST] in self.starts and text not in self.public:
                yield from [text] if any(text in held for held in self.texts.values()) else []
            return
        for start in range(0, len(text) - SHORTEST + 1, STEP):
            if text[start : start + SHORTEST] in self.pieces:
                first, last = max(0, start - STEP + 1), min(start, len(text) - LENGTH)
                around = {text[one : one + LENGTH] for one in range(first, last + 1)}
                yield from around & self.whole


def _cut(texts: Iterable[str], length: int) -> set[str]:
    return {text[start : start + length] for text in texts for start in range(len(text) - length + 1)}


def _beside(hits: Mapping[str, int], prompts: Iterable[str]) -> dict[str, int]:
    """Hits that are not of a system prompt, which belongs to the model."""
    texts = [one_line(text) for text in prompts]
    return {hit: number for hit, number in hits.items() if not any(hit in text for text in texts)}


def _records(project: Path) -> Iterator[Any]:
    return chain.from_iterable(read_records(project / name) for name in ROWS if (project / name).is_file())


def _texts(path: Path) -> Iterator[Iterator[str]]:
    """The texts of each row of a file."""
    if any(path.match(name) for name in ROWS):
        return map(_said, read_records(path))
    return map(_parts, read_rows(path, {}, "predict_base" if path.name == "base_answers.jsonl" else "convert"))


def _prompts(row: Any) -> list[str]:
    return [message["content"] for message in row["messages"] if message["role"] == "system"]


def _said(row: Any) -> Iterator[str]:
    """The texts of a record, but for system prompts and labels."""
    labelled = row["task"] in LABELS
    for message in row["messages"]:
        if message["role"] != "system" and not (labelled and message["role"] == "assistant"):
            yield message["content"]
        calls = [call.get("arguments") for call in message.get("tool_calls") or () if isinstance(call, dict)]
        yield from strings([message.get("reasoning"), calls])
    if not labelled:
        yield from row.get("references", ())


def _parts(row: Any) -> Iterator[str]:
    yield from strings([row.get(name) for name in PARTS])
    yield from _raw(row.get("raw"))


def _raw(text: Any) -> Iterator[str]:
    """What a rejected row says: the texts of its JSON, or all of it where it is none."""
    if not isinstance(text, str):
        return
    try:
        yield from strings(orjson.loads(text))
    except orjson.JSONDecodeError:
        yield text
