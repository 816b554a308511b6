"""The data report: what became of every item, why items were rejected, lengths of rows, and supervised tokens."""

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tuneline.formats.example import IGNORE_INDEX, Encoded
from tuneline.formats.html import Text, render
from tuneline.formats.records import TERMS
from tuneline.formats.stored import read_rows
from tuneline.models.chat_format import Prompter
from tuneline.tokenize.encode import STEP, Preview, Summary

COLUMNS = ("items", *TERMS, "conflicts")
NAMES = {
    "items": Text("items", "条目"),
    "train": Text("training set", "训练集"),
    "heldout": Text("test set", "测试集"),
    "duplicates": Text("duplicates", "重复"),
    "leaks": Text("leaks", "泄漏"),
    "rejected": Text("rejected", "拒收"),
    "conflicts": Text("conflicts", "冲突"),
}
"""Of COLUMNS."""
COUNTED = {
    "rows": Text("rows", "训练数据条数"),
    "rows_per_epoch": Text("rows learnt in one pass, by weight", "学一遍共多少条（按各来源的权重）"),
    "overlong": Text("over-long, left out", "过长，没有使用的数据"),
    "truncated": Text("truncated", "截短的数据"),
    "split": Text("split", "拆分的数据"),
    "answers_lost": Text("answers that fit no row, not learnt", "过长而没有学到的回答"),
    "tokens": Text("tokens", "词元（模型读写的最小单位，约一个字或词）"),
    "supervised_tokens": Text("supervised tokens", "计入学习的词元（即回答）"),
    "longest": Text("longest row, in tokens", "最长的一条（词元数）"),
    "supervised_fraction": Text("supervised fraction", "计入学习的比例"),
}
"""Names of the figures of metrics/tokenize.json."""
FAULTS = {
    "without_content": Text("answers without content", "没有内容的回答"),
    "cut_off": Text("answers cut off in the middle of a sentence", "在句子中间截断的回答"),
    "no_full_stop": Text("answers whose last sentence has no end", "末句没有结束的回答"),
}
"""Names of what is wrong with answers."""
NOTICED = {
    "masked_answers": Text(
        "dialogues with answers that are marked as not to be learnt: in the prompt, and masked",
        "对话含有标记为不学习的回答：留在提示词中，不计入损失",
    ),
    "html_tags": Text(
        "items with tags of HTML, which html_tags in data.repairs takes out",
        "含 HTML 标签的条目，data.repairs 加上 html_tags 可去掉",
    ),
    "mobile_numbers": Text("items with a mobile number, which a model may repeat", "含手机号的条目，模型可能会说出来"),
    "identity_numbers": Text(
        "items with an identity number, which a model may repeat", "含身份证号的条目，模型可能会说出来"
    ),
    "email_addresses": Text(
        "items with an e-mail address, which a model may repeat", "含电子邮箱的条目，模型可能会说出来"
    ),
}
"""What convert notices, in words."""
FEWEST_BINS, BINS = 8, 32
"""Bars of a histogram of lengths."""
LEAKS_SHOWN = 10
"""Held-out items whose leaks are shown, and the rows that are shown as the least similar ones."""
ROWS_SHOWN = 2
"""Rows that are shown of each item."""
WHY = {
    "equal": Text("the same question", "同一问题"),
    "contains": Text("holds the test question", "含测试题"),
    "part": Text("is a part of the test question", "是测试题的一部分"),
    "renamed": Text("the same with other names", "换了名称的同一题"),
    "passage": Text("rests on the same passage", "依据同一段文字"),
    "answer": Text("holds the test answer", "含测试题的答案"),
}
"""Why a row is a leak, as in removed.jsonl."""
REJECT_SHOWN = 160
"""Characters of a rejected text that are shown."""


def data_report(
    counts: dict[str, Any], summary: Summary, preview: Preview, prompter: Prompter, tokenizer: Any,
    rejects: Path, removed: Path,
) -> str:  # fmt: skip
    """The page as HTML. `counts` is metrics/convert_details.json; the two files are convert's."""
    most = max((row["items"] for row in counts["sources"].values()), default=1)
    return render(
        Path(__file__).with_name("report.html.jinja"),
        title=Text("Data report", "数据报告"),
        columns=COLUMNS,
        names=NAMES,
        counted=COUNTED,
        faults=FAULTS,
        terms=TERMS,
        sources=counts["sources"],
        total=counts["total"],
        bars={name: _bar(row, most) for name, row in counts["sources"].items()},
        unused=_unused(counts["sources"]),
        noticed=_noticed(counts["sources"]),
        rejects=_rejects(rejects, counts["sources"]),
        leaks=_leaks_by_item(removed),
        least_similar=_least_similar(removed),
        why=WHY,
        tokens=summary.counts(),
        histograms=_histograms(summary.lengths),
        preview=_by_source(preview, prompter, tokenizer),
    )


def _by_source(preview: Preview, prompter: Prompter, tokenizer: Any) -> list[list[dict[str, Any]]]:
    """The rows that are shown, those of a source together."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for name, source, row in preview.rows:
        groups.setdefault(source, []).append({"id": name, "tokens": mask_preview(row, prompter, tokenizer)})
    return list(groups.values())


def mask_preview(row: Encoded, prompter: Prompter, tokenizer: Any) -> list[dict[str, Any]]:
    """Every token of a row as text, with whether it is supervised and whether it is a control token."""
    tokens: list[dict[str, Any]] = []
    group: list[int] = []
    for token, label in zip(row.input_ids, row.labels, strict=True):
        # A character may take several byte tokens: hold them until they decode to whole text.
        group.append(token)
        text = tokenizer.decode(group)
        if "\ufffd" in text and token not in prompter.control:
            continue
        identifiers = " ".join(map(str, group))
        supervised, control = label != IGNORE_INDEX, token in prompter.control
        tokens.append({"id": identifiers, "text": text, "supervised": supervised, "control": control})
        group = []
    return tokens


def _bar(row: dict[str, Any], most: int) -> list[dict[str, Any]]:
    """Parts of a stacked bar, in percent of the largest source."""
    parts, left = [], 0.0
    for term in TERMS:
        width = 100 * row[term] / most
        parts.append({"term": term, "x": round(left, 3), "width": round(width, 3), "count": row[term]})
        left += width
    return parts


def _unused(sources: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Fields that nothing reads, those of most items first."""
    rows = [
        {"source": source, "field": path, "count": count, "share": count / max(1, counts["items"])}
        for source, counts in sources.items()
        for path, count in counts.get("unused", {}).items()
    ]
    return sorted(rows, key=lambda row: (-row["count"], row["source"], row["field"]))


def _noticed(sources: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"source": source, "name": NOTICED.get(name, Text(name, name)), "count": count}
        for source, counts in sources.items()
        for name, count in counts.get("noticed", {}).items()
    ]


def _rejects(path: Path, sources: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rejects by source and reason: how many, and the first one."""
    first: dict[tuple[str, str], dict[str, str]] = {}
    for line in read_rows(path, {"source": str, "reason": str, "origin": str, "raw": str}, "convert"):
        first.setdefault((line["source"], line["reason"]), line)
    return [
        {"source": source, "reason": reason, "count": sources[source]["reasons"][reason],
         "origin": line["origin"], "raw": " ".join(line["raw"][: 4 * REJECT_SHOWN].split())[:REJECT_SHOWN]}
        for (source, reason), line in first.items()
    ]  # fmt: skip


def _leaks_by_item(path: Path) -> list[dict[str, Any]]:
    """The held-out items that remove most rows: how many, and the rows least like them."""
    counts: Counter[str] = Counter()
    rows: dict[str, list[dict[str, Any]]] = {}
    for line in _leaks(path):
        counts[line["of"]] += 1
        rows[line["of"]] = sorted([*rows.get(line["of"], []), line], key=_likeness)[:ROWS_SHOWN]
    shown = sorted(counts, key=lambda item: (-counts[item], item))[:LEAKS_SHOWN]
    return [{"item": item, "count": counts[item], "rows": rows[item]} for item in shown]


def _least_similar(path: Path) -> list[dict[str, Any]]:
    """The leaks of the lowest similarity: innocent rows would be among them."""
    return heapq.nsmallest(LEAKS_SHOWN, _leaks(path), key=_likeness)


def _likeness(leak: dict[str, Any]) -> tuple[float, str]:
    return leak["similarity"], leak["id"]


def _leaks(path: Path) -> Iterator[dict[str, Any]]:
    lines = read_rows(path, {"id": str, "source": str, "origin": str, "why": str}, "convert")
    yield from (line for line in lines if "of" in line)


def _histograms(lengths: Mapping[str, Counter[int]]) -> list[dict[str, Any]]:
    """For all sources together (without a name) and for each, bars over the same bins."""
    total = sum(lengths.values(), Counter[int]())
    used = max(total, default=0) + 1
    merged = max(1, -(-used // BINS))
    bins = max(FEWEST_BINS, -(-used // merged))
    named = [("", total), *lengths.items()] if len(lengths) > 1 else list(lengths.items())
    return [{"name": name, "bars": _bars(steps, merged, bins)} for name, steps in named]


def _bars(steps: Counter[int], merged: int, bins: int) -> list[dict[str, Any]]:
    counts = [0] * bins
    for step, count in steps.items():
        counts[step // merged] += count
    tallest, width, pitch = max(counts), merged * STEP, 640 / bins
    return [
        {
            "x": round(pitch * place, 1),
            "width": round(0.9 * pitch, 1),
            "height": round(80 * count / tallest, 1),
            "count": count,
            "begin": place * width,
            "label": f"{place * width}–{(place + 1) * width - 1}",
        }
        for place, count in enumerate(counts)
    ]
