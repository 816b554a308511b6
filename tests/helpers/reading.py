"""Read raw files as the convert stage does, in this process, and give records and rejects as objects."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.helpers.paths import ROOT
from tuneline.data.accounting import SourceCounts
from tuneline.data.batches import batch_jobs
from tuneline.data.config import Data
from tuneline.data.normalize import read_batch


class Read(NamedTuple):
    records: list[dict[str, Any]]
    rejects: list[dict[str, Any]]
    compared: list[tuple[str, str]]
    """(instruction, question) of each record, normalised."""
    counts: SourceCounts

    @property
    def reasons(self) -> list[str]:
        return [reject["reason"] for reject in self.rejects]

    def contents(self, number: int = 0) -> list[str]:
        return [message["content"] for message in self.records[number]["messages"]]

    def roles(self, number: int = 0) -> str:
        return "".join(message["role"][0] for message in self.records[number]["messages"])


def section(sources: list[dict], **changes: Any) -> Data:
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["data"]
    return Data.model_validate(shipped | {"sources": sources} | changes)


def read(path: Path, changes: dict[str, Any] | None = None, **options: Any) -> Read:
    """One file or folder, with options of the source and changes to the section."""
    params = section([{"path": path.name, **options}], **(changes or {}))
    result = Read([], [], [], SourceCounts())
    for job in batch_jobs(params, path.parent, [result.counts]):
        batch = read_batch(job)
        result.records.extend(json.loads(line) for line in batch.records.splitlines())
        for line in batch.texts.decode().split("\n")[:-1]:
            instruction, question, _, _ = line.split("\t")
            result.compared.append((instruction, question))
        result.rejects.extend(json.loads(line) for line in batch.rejects.decode().split("\n") if line)
        result.counts.add(batch)
    assert result.counts.items == len(result.records) + len(result.rejects)
    return result


def write(path: Path, content: str | bytes | list | dict, encoding: str = "utf-8") -> Path:
    """Text as it is, anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, str | bytes):
        content = json.dumps(content, ensure_ascii=False)
    path.write_bytes(content.encode(encoding) if isinstance(content, str) else content)
    return path


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
