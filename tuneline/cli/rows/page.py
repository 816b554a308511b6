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
        Text("Nats per supervised token under the base.", "基座对计入损失的词元的平均 NLL（奈特）。"),
    ),
    "tuned_nll_per_token": Entry(
        Text("tuned NLL", "微调后 NLL"),
        Text("The same under the tuned model.", "同上，用微调后的模型计算。"),
    ),
    "information": Entry(
        Text("information", "问题信息量"),
        Text(
            "Nats that the question tells the base about the answer. Below 0, the answer is likelier without it.",
            "问题给出之后，基座对回答的 NLL 降低了多少（奈特）；小于 0 表示不给问题时这个回答反而更可能。",
        ),
    ),
    "odds": Entry(
        Text("odds", "对数几率"),
        Text(
            "Log-odds that the answer belongs to its question. Below 0, it looks like the answer of another row. Sources with "
            "fewer than 20 comparable rows and rare labels have none.",
            "回答属于这个问题的对数几率；小于 0 表示它更像其他问题的回答。可比数据不足 20 条的来源和罕见标签没有此值。",
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
            Text("Answer of another question?", "别的问题的回答？"),
            Text(
                f"The {share:.0%} of all rows whose answers are least likely to belong to their questions (odds): swapped, "
                "shifted by a line, pasted twice. Rows without odds are never among them.",
                f"对数几率最低的 {share:.0%}，即回答很可能是别的问题的：回答互换、错行或重复粘贴；没有对数几率的不计入。",
            ),
        ),
        Entry(
            Text("Doubtful label", "可疑标签"),
            Text(
                "A classifier that has not seen the row contradicts its label (confident learning, cleanlab).",
                "没有学过这一条的分类器给出了不同的标签（置信学习，cleanlab）。",
            ),
        ),
        Entry(
            Text("Conflict", "冲突"),
            Text("Another row has the same question and another answer.", "有另一条数据，问题相同，回答不同。"),
        ),
        Entry(
            Text("Unlikely", "低似然"),
            Text(
                "The tuned model finds the answer far less likely than others of its source.",
                "在微调后的模型看来，这个回答的可能性远低于同一来源的其他回答。",
            ),
        ),
        Entry(
            Text("Outlier", "离群"),
            Text(
                "Question and answer are unlike all others, or the base finds the text far less likely than others of its "
                "source. A rare row may well be right, so this reason alone does not tick it.",
                "问题与回答同其他条目都不相似，或者在基座看来，文字的可能性远低于同一来源的其他条目。罕见的不一定是错的，所以不因此勾选。",
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
