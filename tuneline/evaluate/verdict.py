"""The verdict of an evaluation in words: what was trained on what, better or not, by how much, how sure, what is wrong.

Every word follows from figures by the rules here and the thresholds of tuneline.evaluate.thresholds.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from tuneline.evaluate.checks import Check, checks
from tuneline.evaluate.page.absolute import absolute
from tuneline.evaluate.page.figures import chance, difference, shown, signed, spaced
from tuneline.evaluate.page.glossary import METRIC_ENTRIES, method_name, task_name
from tuneline.evaluate.tasks import TaskResult
from tuneline.evaluate.thresholds import SURE, VERY_SURE
from tuneline.formats.html import Text
from tuneline.formats.metrics import METRICS, Metric

Outcome = Literal["better", "worse", "unclear"]
OUTCOMES: dict[Outcome, Text] = {
    "better": Text("better", "更好"),
    "worse": Text("worse", "更差"),
    "unclear": Text("no clear difference", "无明显差别"),
}


class Verdict(NamedTuple):
    tone: Literal["good", "mixed", "bad"]
    headline: Text
    trained: Text
    absolute: list[Text]
    """A sentence for each task: how good its answers are in themselves."""
    measured: list[Text]
    """A sentence for each task: by how much it changed."""
    checks: list[Check]


def verdict(metrics: dict[str, Any], results: Sequence[TaskResult], base: str, facts: Any) -> Verdict:
    """`results` are those of results_by_task, `base` the base's name, `facts` a tuneline.evaluate.report.Facts."""
    outcomes = {result.task: outcome(result.metric, result.delta) for result in results}
    found = checks(metrics, results, facts.counts["sources"])
    return Verdict(
        tone(list(outcomes.values()), found),
        headline(outcomes, found),
        trained(base, facts.params["tune"]["method"], facts.training, facts.counts["sources"], metrics["items"]),
        [absolute(result) for result in results],
        [measured(result, alone=len(results) == 1) for result in results],
        found,
    )


def outcome(metric: str, delta: Mapping[str, Any], known: Mapping[str, Metric] = METRICS) -> Outcome:
    """Better or worse where chance is an unlikely cause, and the interval of the difference lies beyond 0."""
    if delta["p"] >= SURE or delta["low"] <= 0 <= delta["high"]:
        return "unclear"
    return "better" if (delta["value"] > 0) == known[metric].higher_is_better else "worse"


def tone(outcomes: Sequence[Outcome], found: Sequence[Check]) -> Literal["good", "mixed", "bad"]:
    if any(check.unusable for check in found) or ("worse" in outcomes and "better" not in outcomes):
        return "bad"
    clean = all(check.level == "ok" for check in found)
    return "good" if clean and "better" in outcomes and "worse" not in outcomes else "mixed"


def headline(outcomes: Mapping[str, Outcome], found: Sequence[Check]) -> Text:
    """Better, worse or no clear difference, by task where they differ; and what is wrong, the worst first."""
    said = _said(outcomes)
    wrong = sorted((check for check in found if check.level != "ok"), key=lambda check: check.level != "severe")
    if not wrong:
        return Text(f"{said.en}.", f"{said.zh}。")
    clauses = Text(_listed([check.clause.en for check in wrong]), "、".join(check.clause.zh for check in wrong))
    better = "better" in outcomes.values()
    joint = Text(", but " if better else ", and ", "，但" if better else "，且")
    if any(check.unusable for check in wrong):
        # High scores of such answers say little: the headline must not begin with a praise of the model.
        said = Text(said.en.replace("Better", "Better scores", 1), said.zh.replace("更好", "得分更高", 1))
        return Text(f"{said.en}{joint.en}not usable yet: {clauses.en}.", f"{said.zh}{joint.zh}尚不可用：{clauses.zh}。")
    return Text(f"{said.en}{joint.en}{clauses.en}.", f"{said.zh}{joint.zh}{clauses.zh}。")


def _said(outcomes: Mapping[str, Outcome]) -> Text:
    kinds = [kind for kind in OUTCOMES if kind in outcomes.values()]
    if len(kinds) == 1:
        word, several = OUTCOMES[kinds[0]], len(outcomes) > 1
        if kinds[0] == "unclear":
            return (
                Text("No clear difference at any task", "各项任务均无明显差别")
                if several
                else Text("No clear difference", "无明显差别")
            )
        where = Text(" at every task", "各项任务均") if several else Text("", "微调后")
        return Text(f"{word.en.capitalize()} than the base{where.en}", f"{where.zh}比基座{word.zh}")
    parts = []
    for kind in kinds:
        names = [task_name(task) for task, one in outcomes.items() if one == kind]
        word, first = OUTCOMES[kind], kind == kinds[0]
        tasks = Text(_listed([name.en for name in names]), "、".join(name.zh for name in names))
        # Of several outcomes the first is better or worse, and says than what.
        than = Text(" than the base", "比基座") if first else Text("", "")
        parts.append(Text(f"{word.en}{than.en} at {tasks.en}", f"{tasks.zh}{than.zh}{word.zh}"))
    en = ", ".join(part.en for part in parts)
    return Text(en[0].upper() + en[1:], "，".join(part.zh for part in parts))


def measured(result: TaskResult, alone: bool) -> Text:
    """By how much a task's own metric changed, and how sure that is."""
    name, delta = result.metric, result.delta
    title, task, kind = METRIC_ENTRIES[name].title, task_name(result.task), outcome(name, delta)
    before, after = (shown(name, result.figures[side][name]["value"]) for side in ("base", "tuned"))
    by, low, high = difference(name, delta["value"]), signed(name, delta["low"]), signed(name, delta["high"])
    verb = Text("went from", "变为")
    if kind != "unclear":
        verb = Text("rose from", "升至") if delta["value"] > 0 else Text("fell from", "降至")
    # The whole test set needs no name.
    where = (
        Text("", "") if alone else Text(f" on the {result.items} {task.en} items", f"{result.items} 道{task.zh}题的")
    )
    sure = _sure(delta["p"], kind)
    return Text(
        f"{title.en}{where.en} {verb.en} {before} to {after}: {by.en} (95 % interval {low} … {high}). {sure.en}",
        spaced(f"{where.zh}{title.zh}由 {before} {verb.zh} {after}：{by.zh}（95 % 区间 {low} … {high}）。{sure.zh}"),
    )


def _sure(p: float, kind: Outcome) -> Text:
    often = chance(p)
    if kind == "unclear" and p < SURE:
        return Text(
            "Not sure that it differs from the base: the interval includes 0.", "不能确定与基座有差别：区间包含 0。"
        )
    if kind == "unclear":
        return Text(
            f"Not sure that it differs from the base: equal models would differ as much in {often.en}.",
            f"不能确定与基座有差别：即使没有差别，{often.zh}下也会出现这么大的差异。",
        )
    word = Text("Sure", "确定") if p < VERY_SURE else Text("Fairly sure", "比较确定")
    than = Text(f" that it is {kind} than the base", "比基座好" if kind == "better" else "比基座差")
    return Text(
        f"{word.en}{than.en}: equal models would differ as much in {often.en}.",
        f"{word.zh}{than.zh}：若两个模型没有差别，{often.zh}下才会出现这么大的差异。",
    )


def trained(base: str, method: str, training: Mapping[str, Any], sources: Mapping[str, Any], items: int) -> Text:
    """What was trained on what, and tested on what."""
    if "imported" in training:
        return Text(
            f"{base} with an adapter from elsewhere ({training['imported']}), not trained here. "
            f"Both models answered the same {items:,} held-out test items.",
            spaced(
                f"{base} 加上别处训练的适配器（{training['imported']}），不是由本流水线训练的。"
                f"两个模型回答同样的 {items:,} 道留出测试题。"
            ),
        )
    used = {name: row["train"] for name, row in sources.items() if row["train"]}
    rows, seen, steps, name = sum(used.values()), training["rows_seen"], training["steps"], method_name(method)
    passes = Text("", "") if seen <= rows else Text(f", {seen / rows:.1f} passes", f"，共 {seen / rows:.1f} 轮")
    return Text(
        f"{base} was fine-tuned ({name.en}) on {_listed(list(used))}: {seen:,} rows seen in {steps:,} steps, "
        f"of a training set of {rows:,}{passes.en}. Both models answered the same {items:,} held-out test items.",
        spaced(
            f"{base} 经微调（{name.zh}），数据为{'、'.join(used)}：{steps:,} 步共学习 {seen:,} 行"
            f"（训练集 {rows:,} 行{passes.zh}）。两个模型回答同样的 {items:,} 道留出测试题。"
        ),
    )


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
