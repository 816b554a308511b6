"""What a release must not carry: rows of the data, names of raters, folders of this machine, keys."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tuneline.cli.push.contents import ReleaseFile
from tuneline.formats.notices import NAMES as NOTICES

ROWS = ("data/processed/train.jsonl", "data/processed/heldout.jsonl")
RATERS = "reviews/*.jsonl"
VOCABULARIES = ("tokenizer.json", "vocab.json", "merges.txt", "*.model", "*.tiktoken", "*.gguf", "*.safetensors")
"""Files of pieces of words, or of numbers: they hold no text of ours."""
LENGTH = 24
"""Characters of a row that tell it apart; shorter ones, such as labels, stand in a card rightly."""
PLACES = re.compile(r"(?:file://|(?<![\w.:/-]))(?:/home/|/Users/|/root/|[A-Za-z]:\\+Users\\+)[^\s\"'`]+")
KEYS = re.compile(r"\bhf_[A-Za-z0-9]{30,}\b|\bms-[0-9a-f]{8}-[0-9a-f-]{27}\b")


def private_content(files: Sequence[ReleaseFile], project: Path) -> Iterator[str]:
    """What must not leave, a sentence each; it says which file holds what, and never the text itself.

    Rows and raters are those of the project's folder, as far as they are there.
    """
    texts = {file.name: _text(file.path) for file in files if not _matches(file.path, VOCABULARIES)}
    for name, text in texts.items():
        if PLACES.search(text) or f"{project.resolve()}/" in text:
            yield f"{name} names a folder of this machine"
        if KEYS.search(text):
            yield f"{name} holds a key"
    written = {file.name: texts[file.name] for file in files if file.name in texts and not _matches(file.path, NOTICES)}
    yield from _rows(written, project)
    yield from _raters(written, project)


def unseen(project: Path) -> list[str]:
    """Files of rows that are not there, so that nothing can be said of them."""
    return [name for name in ROWS if not (project / name).is_file()]


def _rows(texts: dict[str, str], project: Path) -> Iterator[str]:
    windows = {text[start : start + LENGTH] for text in texts.values() for start in range(len(text) - LENGTH + 1)}
    for source in ROWS:
        if not (project / source).is_file():
            continue
        for number, said in _said(project / source):
            if said[:LENGTH] in windows:
                held = next(name for name, text in texts.items() if said[:LENGTH] in text)
                yield f"{held} holds text of row {number} of {source}"
                break


def _said(path: Path) -> Iterator[tuple[int, str]]:
    """(line, the longest line of a message) of what users and assistants say; a system prompt belongs to the model."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            for message in json.loads(line)["messages"]:
                said = max(str(message.get("content") or "").splitlines() or [""], key=len).strip()
                if message.get("role") != "system" and len(said) >= LENGTH:
                    yield number, said


def _raters(texts: dict[str, str], project: Path) -> Iterator[str]:
    names = [path.stem for path in sorted(project.glob(RATERS)) if not path.stem.startswith("judge-")]
    for name, text in texts.items():
        for rater in names:
            if len(rater) > 1 and re.search(rf"(?<![A-Za-z0-9]){re.escape(rater)}(?![A-Za-z0-9])", text):
                yield f"{name} names a rater of reviews/"
                break


def _text(path: Path) -> str:
    """A file as a person reads it: JSON without escapes."""
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        return json.dumps(json.loads(text), ensure_ascii=False) if path.suffix == ".json" else text
    except ValueError:
        return text


def _matches(path: Path, patterns: Iterable[str]) -> bool:
    return any(path.match(pattern) for pattern in patterns)
