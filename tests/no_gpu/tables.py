"""docs/gpus.md's table, from what torch's CUDA build was found to say (torch_facts.json)."""

import json
from pathlib import Path
from typing import Any

from tests.helpers.paths import ROOT

FACTS = Path(__file__).with_name("torch_facts.json")
"""Written by `pytest tests/test_cuda_build.py --write-tables`, so that a lock which drops a card is seen."""
DRIVERS = {"12": 525, "13": 580}
"""NVIDIA's minimum driver (Linux) by CUDA's major version, whose minor versions it runs all: "CUDA Compatibility"."""
WORDS = {
    "gpus.md": {
        "attention": "call", "names": {},
    },
    "gpus.zh.md": {
        "attention": "调用",
        "names": {
            "training, packed": "训练，打包", "training, packed, longer than a window": "训练，打包，长于窗口",
            "training, padded": "训练，填充", "training, after a prefix": "训练，前有前缀",
            "prompts, padded": "多条提示，填充", "a prompt": "一条提示", "a token, padded": "一个词元，填充",
            "a token": "一个词元",
        },
    },
}  # fmt: skip


def facts() -> dict[str, Any]:
    return json.loads(FACTS.read_text(encoding="utf-8"))


def attention(document: str) -> list[str]:
    """A line for each of our calls: the kernel that torch chooses, by compute capability; every shape, where they differ."""
    words, known = WORDS[document], facts()["cards"]
    heads = [f"{capability} ({'bfloat16' if card['bfloat16'] else 'float16'})" for capability, card in known.items()]
    lines = [line((words["attention"], *heads)), "|---" * (len(heads) + 1) + "|"]
    for call in next(iter(known.values()))["attention"]:
        lines.append(
            line((words["names"].get(call, call), *(cell(card["attention"][call]) for card in known.values())))
        )
    return lines


def cell(kernels: dict[str, str]) -> str:
    found = sorted(set(kernels.values()))
    return found[0] if len(found) == 1 else ", ".join(f"{name}: {kernel}" for name, kernel in kernels.items())


def line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def table_at(text: str, head: str) -> list[str]:
    """The table of a document that begins with this line."""
    lines = text.splitlines()
    start = lines.index(head) if head in lines else len(lines)
    end = next((place for place in range(start, len(lines)) if not lines[place].startswith("|")), len(lines))
    return lines[start:end]


def write(document: str, table: list[str]) -> None:
    """Put a table in the place of the one with the same first line."""
    path = ROOT / "docs" / document
    text = path.read_text(encoding="utf-8")
    before = table_at(text, table[0])
    path.write_text(text.replace("\n".join(before), "\n".join(table)), encoding="utf-8")
