"""What a release must not carry: rows of the data, names of raters, folders of this machine, keys."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tuneline.cli.push.contents import ReleaseFile
from tuneline.cli.push.rows import ROWS, held_rows
from tuneline.cli.push.written import as_read
from tuneline.formats.notices import NAMES as NOTICES

RATERS = "reviews/*.jsonl"
VOCABULARIES = (
    "tokenizer.json", "vocab.json", "vocab.txt", "tekken.json", "merges.txt", "*.model", "*.tiktoken", "*.gguf",
    "*.safetensors",
)  # fmt: skip
"""Files of pieces of words, or of numbers: they hold no text of ours."""
FOLDERS = "home|Users|root|mnt|media|data|workspace|workspaces|scratch|srv|nfs|Volumes"
PLACES = re.compile(rf"(?:file://|(?<![\w.:/-]))(?:/(?:{FOLDERS})/|[A-Za-z]:\\+Users\\+)[^\s\"'`]+")
KEYS = re.compile(
    r"\bhf_[A-Za-z0-9]{16,}|\bms-[0-9a-f]{8}-[0-9a-f-]{27}\b|\bsk-(?=[\w-]*\d)[\w-]{20,}|\bgh[pousr]_[A-Za-z0-9]{30,}"
    r"|\bgithub_pat_\w{22,}|\bglpat-[\w-]{20,}|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bLTAI[A-Za-z0-9]{12,}\b|\bAIza[\w-]{35}"
    r"|\bxox[abprs]-[\w-]{10,}|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
"""Of the Hugging Face Hub, ModelScope, OpenAI and those like it, GitHub, GitLab, AWS, Aliyun, Google, Slack; private keys."""


def private_content(files: Sequence[ReleaseFile], project: Path) -> Iterator[str]:
    """What must not leave, a sentence each; it says which file holds what, and never the text itself.

    Rows and raters are those of the project's folder, as far as they are there. Raises ValueError for a file of rows that
    can't be read.
    """
    texts = {file.name: as_read(file.path) for file in files if not _matches(file.path, VOCABULARIES)}
    for name, text in texts.items():
        if PLACES.search(text) or f"{project.resolve()}/" in text:
            yield f"{name} names a folder of this machine"
        if KEYS.search(text):
            yield f"{name} holds a key"
    yield from held_rows(texts, project)
    own = {file.name: texts[file.name] for file in files if file.name in texts and not _matches(file.path, NOTICES)}
    yield from _raters(own, project)


def unseen(project: Path) -> list[str]:
    """Files of rows that are not there, so that nothing can be said of them."""
    return [name for name in ROWS if not (project / name).is_file()]


def without_keys(text: str) -> str:
    """The text with *** for each key."""
    return KEYS.sub("***", text)


def _raters(texts: Mapping[str, str], project: Path) -> Iterator[str]:
    names = [path.stem for path in sorted(project.glob(RATERS)) if not path.stem.startswith("judge-")]
    for name, text in texts.items():
        for rater in names:
            if len(rater) > 1 and re.search(rf"(?<![A-Za-z0-9]){re.escape(rater)}(?![A-Za-z0-9])", text):
                yield f"{name} names a rater of reviews/"
                break


def _matches(path: Path, patterns: Iterable[str]) -> bool:
    return any(path.match(pattern) for pattern in patterns)
