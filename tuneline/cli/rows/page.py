"""The page of rows to read: reasons and scores of each, and the ids to leave out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tuneline.cli.rows.findings import KINDS
from tuneline.formats.html import Text, render


class Entry(NamedTuple):
    """A term, and what it means."""

    title: Text
    meaning: Text


SCORES = {
    "base_nll_per_token": Entry(
        Text("base NLL", "基座 NLL"),
        Text("Nats per supervised token under the base.", "基座模型对参与学习的词元的平均 NLL（纳特）。"),
    ),
    "tuned_nll_per_token": Entry(
        Text("tuned NLL", "微调后 NLL"),
        Text("The same under the tuned model.", "微调模型下的同一数值。"),
    ),
    "information": Entry(
        Text("information", "问题信息量"),
        Text(
            "Nats that the question tells the base of its answer: below 0 the answer is likelier without it.",
            "问题为基座模型预测回答所提供的信息（纳特）；小于 0 表示没有问题时回答反而更可能。",
        ),
    ),
    "odds": Entry(
        Text("odds", "对数几率"),
        Text(
            "Log-odds that the answer is its question's: below 0 it looks like the answer of another row. None in a source of "
            "fewer than 20 comparable rows, and for a rare label.",
            "回答属于本问题的对数几率；小于 0 表示它更像其他条目的回答。可比条目不足 20 的来源和罕见标签没有此值。",
        ),
    ),
    "label_quality": Entry(
        Text("label quality", "标签质量"),
        Text("cleanlab's score of the label, from 0 to 1.", "cleanlab 给出的标签得分，0 到 1。"),
    ),
}


def kinds(share: float) -> dict[str, Entry]:
    """What each reason means."""
    entries = (
        Entry(
            Text("Answer of another question?", "答非所问？"),
            Text(
                f"The {share:.0%} of all rows whose answer is least likely to be its question's (odds): swapped, shifted by a "
                "line, pasted twice. Rows without odds are never among them.",
                f"对数几率最低的 {share:.0%}，即回答最不像属于本问题的条目：答案互换、错行或重复粘贴；没有对数几率的不计入。",
            ),
        ),
        Entry(
            Text("Doubtful label", "可疑标签"),
            Text(
                "A classifier that has not seen the row contradicts its label (confident learning, cleanlab).",
                "未见过该条的分类器与其标签相矛盾（置信学习，cleanlab）。",
            ),
        ),
        Entry(
            Text("Conflict", "冲突"),
            Text("Another row asks the same, and answers otherwise.", "另一条问题相同而回答不同。"),
        ),
        Entry(
            Text("Unlikely", "低似然"),
            Text(
                "The tuned model finds the answer far less likely than others of its source.",
                "在同一来源中，微调模型认为该回答的可能性远低于其他回答。",
            ),
        ),
        Entry(
            Text("Outlier", "离群"),
            Text(
                "Question and answer are unlike all others', or the base finds the text far less likely than others of its "
                "source. What is rare may well be right, so it is not ticked for that.",
                "问答与其他条目都不相似，或基座认为其文本的可能性远低于同源条目。罕见不等于错误，故不因此勾选。",
            ),
        ),
    )
    return dict(zip(KINDS, entries, strict=True))


def page(shown: Sequence[dict[str, Any]], lines: Sequence[dict[str, Any]], share: float, exclude: str) -> str:
    """Self-contained HTML of the rows that `listed` gave; `lines` are all, and `exclude` a file's name below data/raw."""
    return render(
        Path(__file__).with_name("rows.html.jinja"),
        title=Text("Rows that may hurt", "可能有害的数据"),
        rows=shown,
        total=len(lines),
        reasoned=sum(bool(line["reasons"]) for line in lines),
        counts={kind: sum(kind in line["reasons"] for line in lines) for kind in KINDS},
        kinds=kinds(share),
        scores=SCORES,
        exclude=exclude,
    )
