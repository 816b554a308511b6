"""docs/gpus.md's tables, from what torch's CUDA build was found to say (torch_facts.json)."""

import json
from pathlib import Path
from typing import Any

from tests.helpers.paths import ROOT
from tuneline.runtime.gpu import has_kernels

FACTS = Path(__file__).with_name("torch_facts.json")
"""Written by `pytest tests/test_cuda_build.py --write-tables`, so that a lock which drops a card is seen."""
DRIVERS = {"12": 525, "13": 580}
"""NVIDIA's minimum driver (Linux) by CUDA's major version, whose minor versions it runs all: "CUDA Compatibility"."""
CARDS = {
    "6.1": "GTX 1080 Ti, P40",
    "7.0": "V100",
    "7.5": "T4, RTX 2080 Ti",
    "8.0": "A100, A30",
    "8.6": "RTX 3090, A10, A40, RTX A6000",
    "8.9": "RTX 4090, L4, L40S",
    "9.0": "H100, H200, H20",
    "10.0": "B200",
    "10.3": "B300",
    "12.0": "RTX 5090, RTX PRO 6000",
}
"""Examples of NVIDIA's list "CUDA GPU Compute Capability"."""
WORDS = {
    "gpus.md": {
        "cards": ("compute capability", "cards", "this lock's torch", "computes in"),
        "bfloat16": ("yes", "bfloat16"), "float16": ("yes", "float16 or float32: no bfloat16"),
        "none": ("no kernels", "not at all"),
        "attention": "call", "names": {},
    },
    "gpus.zh.md": {
        "cards": ("计算能力", "显卡", "本锁文件的 torch", "计算精度"),
        "bfloat16": ("可用", "bfloat16"), "float16": ("可用", "float16 或 float32（没有 bfloat16）"),
        "none": ("没有内核", "不能用"),
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


def cards(document: str) -> list[str]:
    """A line for each compute capability: whether torch has kernels for it, and what it can compute in."""
    words = WORDS[document]
    kernels = facts()["build"]["architectures"]
    lines = [line(words["cards"]), "|---" * 4 + "|"]
    for capability, names in CARDS.items():
        major, minor = map(int, capability.split("."))
        runs = has_kernels((major, minor), kernels)
        kind = "none" if not runs else "bfloat16" if major >= 8 else "float16"
        lines.append(line((capability, names, *words[kind])))
    return lines


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
