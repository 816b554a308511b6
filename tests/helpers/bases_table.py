"""The table of bases in docs/bases.md and docs/bases.zh.md: a row for each family of the matrix."""

from collections.abc import Iterable
from typing import Any

from tests.helpers.paths import ROOT

WORDS = {
    "bases.md": {"packed": "packed", "padded": "padded", "head": ("base", "rows in training", "linear layers", "left out")},
    "bases.zh.md": {"packed": "打包", "padded": "填充", "head": ("基座", "训练行", "线性层", "略去的部分")},
}  # fmt: skip


def row(document: str, name: str, details: dict[str, Any]) -> str:
    """A family's row, of what `base` wrote into metrics/base_details.json."""
    layers = ", ".join(f"`{one}`" for one in details["linear_layers"])
    left_out = ", ".join(f"`{one}`" for one in details["left_out"])
    return f"| {name} | {WORDS[document][details['rows']]} | {layers} | {left_out} |"


def rows(document: str) -> dict[str, str]:
    """Rows of a document by family."""
    lines = (ROOT / "docs" / document).read_text(encoding="utf-8").splitlines()
    start = lines.index(_head(document)[0]) if _head(document)[0] in lines else len(lines)
    found = {}
    for line in lines[start + 2 :]:
        if not line.startswith("| "):
            break
        found[line.split("|")[1].strip()] = line
    return found


def write(document: str, new: str, order: Iterable[str]) -> None:
    """Put a row into a document's table."""
    path = ROOT / "docs" / document
    known = rows(document) | {new.split("|")[1].strip(): new}
    text = path.read_text(encoding="utf-8")
    head = "\n".join(_head(document)) + "\n"
    before, _, after = text.partition(head)
    rest = after.split("\n")
    while rest and rest[0].startswith("| "):
        rest.pop(0)
    body = "".join(known[name] + "\n" for name in order if name in known)
    path.write_text(before + head + body + "\n".join(rest), encoding="utf-8")


def _head(document: str) -> tuple[str, str]:
    names = WORDS[document]["head"]
    return f"| {' | '.join(names)} |", "|---" * len(names) + "|"
