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
            "Nats that the question tells the tuned model of its answer: below 0 the answer is likelier without it.",
            "问题为微调模型预测回答所提供的信息（纳特）；小于 0 表示没有问题时回答反而更可能。",
        ),
    ),
    "fit": Entry(
        Text("fit", "契合度"),
        Text(
            "How far the answer is nearer than others to what such questions lead to, in standard deviations.",
            "与其他回答相比，该回答与此类问题所指向的内容接近多少（标准差）。",
        ),
    ),
    "overlap": Entry(
        Text("overlap", "重合度"),
        Text(
            "How much more of the answer's words stand in its question than in others, in standard deviations.",
            "与其他问题相比，回答的字词在其问题中出现得多多少（标准差）。",
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
                f"The {share:.0%} of all rows whose answer belongs to its question least, by information, fit and overlap, or "
                "of a label by its quality in place of overlap: swapped, shifted by a line, pasted twice.",
                f"按信息量、契合度与重合度（标签任务以标签质量代替重合度）排序，回答与问题最不相符的 {share:.0%}："
                "答案错位、错行或重复粘贴。",
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
