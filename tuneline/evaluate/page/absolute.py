"""What a reader must know before any comparison: how many answers are right, and which labels there are to answer."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tuneline.evaluate.compare import Row
from tuneline.evaluate.page.figures import number, shown, spaced
from tuneline.evaluate.page.glossary import task_name
from tuneline.evaluate.page.urgency import warns
from tuneline.evaluate.tasks import TaskResult
from tuneline.formats.html import Text
from tuneline.formats.records import normalise

MOST = 12
"""Labels that are named; of more, their number is said, too."""


class Answerable(NamedTuple):
    before: Text
    names: str
    """As they are written, in either language."""
    after: Text


def absolute(result: TaskResult) -> Text:
    """How good a task's answers are in themselves, whatever the base does."""
    task, name = task_name(result.task), result.metric
    value = result.figures["tuned"][name]["value"]
    opening = Text(f"{task.en[0].upper()}{task.en[1:]}: ", f"{task.zh}：")
    if name == "rouge_l":
        said = Text("whether the answers are correct was not measured.", "没有检查回答是否正确。")
    elif name == "label_accuracy":
        right = round(value * result.items / 100)
        said = Text(f"{right} of {result.items} right.", f"{result.items} 题答对 {right} 题。")
    elif name == "tools_exact_match":
        said = Text(f"calls all right in {shown(name, value)}.", f"调用完全正确的占 {shown(name, value)}。")
    else:
        figure = number(name, value)
        said = Text(
            f"F1 {figure} of 100 (100: all of it right, nothing missing).",
            f"F1 {figure}（满分 100：全部正确，没有遗漏）。",
        )
    return Text(opening.en + said.en, spaced(opening.zh + said.zh))


def words_shared(results: Sequence[TaskResult]) -> Text | None:
    """What ROUGE-L says of text answers, and what it does not; None without any."""
    values = [number("rouge_l", one.figures["tuned"]["rouge_l"]["value"]) for one in results if one.metric == "rouge_l"]
    if not values:
        return None
    return Text(
        f"Text answers are only measured by how many words they share with the reference (ROUGE-L {values[0]} of 100), "
        "which tells nothing of whether an answer is right or safe.",
        f"文字回答只统计与参考答案有多少相同的词（ROUGE-L {values[0]}，满分 100），不判断回答是否正确、安全。",
    )


def answerable(rows: Sequence[Row], constrain: Mapping[str, Sequence[str]] | None) -> Answerable | None:
    """The labels that the model can name, and that it names one of them whatever it is asked; None without labels.

    Those that answers were constrained to, else the test set's, the most frequent first.
    """
    actual = [row["references"][0].strip() for row in rows if row["task"] == "label"]
    if not actual:
        return None
    counts, written = Counter(map(normalise, actual)), {normalise(label): label for label in reversed(actual)}
    given = (constrain or {}).get("label")
    names = list(given or [written[label] for label in sorted(counts, key=lambda label: (-counts[label], label))])
    before = Text("It can only answer", "只会回答")
    if not given:
        before = Text(f"{before.en} what it was trained on, in the test set", f"{before.zh}训练过的标签，测试集中有")
    if len(names) > MOST:
        before = Text(f"{before.en} {len(names)} labels, among them", f"{before.zh} {len(names)} 个，如")
    # Where there is a label for it, an emergency is no example of what can't be answered.
    example = Text("", "") if any(map(warns, names)) else Text(", an emergency, say,", "（例如急症）")
    return Answerable(
        Text(f"{before.en}: ", before.zh + ("" if len(names) > MOST else "：")),
        "、".join(names[:MOST]),
        Text(
            f". What belongs to none of them{example.en} it can't answer: it names one of them all the same.",
            f"。不属于其中任何一个的情况{example.zh}，它答不出来，仍会从中给出一个。",
        ),
    )


def without_warning(should: int, missing: int) -> Text | None:
    """How many answers lack the reference's warning; None where all have it."""
    if not missing:
        return None
    return Text(
        f"In {missing} of the {should} text answers whose reference says that something is urgent, the tuned model "
        "says nothing of the kind. This is a search for words: it finds answers to read, and is no safety test.",
        f"参考答案提示情况紧急的文字题有 {should} 道，其中 {missing} 道的回答没有这类提示。"
        "这里只按字词查找，用来挑出该读的回答，不是安全测试。",
    )
