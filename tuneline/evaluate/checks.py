"""Checks of the tuned model's answers: whether they loop or are cut off, and what the model forgot, by the thresholds."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from tuneline.evaluate.page.figures import number, shown, signed, spaced
from tuneline.evaluate.page.glossary import task_name
from tuneline.evaluate.tasks import TaskResult
from tuneline.evaluate.thresholds import CUT_OFF, FORGETTING, LOOPS, Threshold
from tuneline.formats.html import Text

Level = Literal["ok", "noted", "severe"]


class Check(NamedTuple):
    name: Literal["loops", "cut_off", "forgetting", "leaks"]
    level: Level
    clause: Text
    """For a headline, "its answers loop"; empty where all is well."""
    finding: Text
    """With its figures."""
    remedy: Text
    """Empty where all is well."""

    @property
    def unusable(self) -> bool:
        """Whether no reader would bear such answers, whatever other figures say."""
        return self.level == "severe" and self.name in ("loops", "cut_off")


def checks(metrics: dict[str, Any], results: Sequence[TaskResult], sources: Mapping[str, Any]) -> list[Check]:
    """All of them, in the order of the page; `sources` is the section of metrics/convert.json."""
    whole = TaskResult("", metrics["items"], results[0].metric, metrics)
    found = [
        _loops(_worst(results, _looping, LOOPS) or whole),
        _cut_off(_worst(results, _cut, CUT_OFF) or whole),
        *([_forgetting(general)] if (general := metrics["general"]["nll_per_token"]) else []),
    ]
    kept = sum(row.get("leaks_kept", 0) for row in sources.values())
    return found + ([_leaks(kept)] if kept else [])


def level(value: float, threshold: Threshold) -> Level:
    if value >= threshold.severe:
        return "severe"
    return "noted" if value >= threshold.noted else "ok"


def _looping(result: TaskResult) -> float:
    """Repeated 4-grams, in percent."""
    return float(result.figures["tuned"]["repetition"]["value"])


def _cut(result: TaskResult) -> float:
    """Answers that do not end by themselves, in percent."""
    return 100 - float(result.figures["tuned"]["eos_rate"]["value"])


def _worst(
    results: Sequence[TaskResult], value: Callable[[TaskResult], float], threshold: Threshold
) -> TaskResult | None:
    """The task with the worst answers; None where all are on one level, and the whole test set says it."""
    levels = {level(value(result), threshold) for result in results}
    return max(results, key=value) if len(levels) > 1 else None


def _of(result: TaskResult) -> Text:
    """Which items, where others are better."""
    if not result.task:
        return Text("", "")
    name = task_name(result.task)
    return Text(f" to the {name.en} items", f"{name.zh}题的")


def _loops(worst: TaskResult) -> Check:
    value, before = (worst.figures[side]["repetition"]["value"] for side in ("tuned", "base"))
    found, of = level(value, LOOPS), _of(worst)
    figures = Text(
        f"{shown('repetition', value)} of the 4-word sequences in answers{of.en} are repeats "
        f"(base: {shown('repetition', before)}).",
        f"{of.zh}回答中 {shown('repetition', value)} 的四词片段是重复（基座：{shown('repetition', before)}）。",
    )
    clause, opening = {
        "ok": (Text("", ""), Text("No loops.", "没有反复说同一句话。")),
        "noted": (
            Text("some answers repeat themselves", "部分回答有重复"),
            Text("Some answers repeat themselves.", "部分回答有重复。"),
        ),
        "severe": (Text("its answers loop", "回答反复说同样的话"), Text("Answers loop.", "回答反复说同样的话。")),
    }[found]
    remedy = Text(
        "What helps: more steps, shorter answers in the training set, or a larger base.",
        "可行的办法：增加步数、缩短训练集中的回答，或换更大的基座。",
    )
    return _check("loops", found, clause, opening, figures, remedy)


def _cut_off(worst: TaskResult) -> Check:
    ended, before = (round(worst.figures[side]["eos_rate"]["value"] * worst.items / 100) for side in ("tuned", "base"))
    found, of = level(_cut(worst), CUT_OFF), _of(worst)
    figures = Text(
        f"{ended} of {worst.items} answers{of.en} end by themselves (base: {before}).",
        f"{of.zh}{worst.items} 条回答中有 {ended} 条自行结束（基座：{before} 条）。",
    )
    most = Text(f"most answers{of.en} are cut off", f"{of.zh}多数回答被截断")
    if ended == 0:
        most = Text(f"no answer{of.en} ends by itself", f"{of.zh}回答都不能自行结束")
    clause, opening = {
        "ok": (Text("", ""), Text("Answers end by themselves.", "回答能自行结束。")),
        "noted": (
            Text("some answers are cut off", "部分回答被截断"),
            Text("Some answers are cut off.", "部分回答被截断。"),
        ),
        "severe": (most, Text("Answers are cut off.", "回答被截断。")),
    }[found]
    remedy = Text(
        "What helps: more steps, shorter answers in the training set, or a higher evaluate.max_new_tokens.",
        "可行的办法：增加步数、缩短训练集中的回答，或调高 evaluate.max_new_tokens。",
    )
    return _check("cut_off", found, clause, opening, figures, remedy)


def _forgetting(change: dict[str, Any]) -> Check:
    delta = change["delta"]
    found = level(delta["value"], FORGETTING) if delta["low"] > 0 else "ok"
    before, after = (number("nll_per_token", change[side]["value"]) for side in ("base", "tuned"))
    by = signed("nll_per_token", delta["value"])
    figures = Text(
        f"On general prompts that have nothing to do with the training set, the NLL of written answers (how "
        f"surprised the model is by them; lower is better) went from {before} to {after} ({by} nats per token).",
        f"在与训练集无关的通用题上，参考答案的 NLL（模型对它的意外程度，越低越好）"
        f"由 {before} 变为 {after}（每词元 {by} 奈特）。",
    )
    clause, opening = {
        "ok": (Text("", ""), Text("Little was forgotten.", "遗忘很少。")),
        "noted": (
            Text("it forgot some of what the base knew", "遗忘了部分原有能力"),
            Text("Some of what the base knew was forgotten.", "遗忘了部分原有能力。"),
        ),
        "severe": (
            Text("it forgot much of what the base knew", "遗忘了许多原有能力"),
            Text("Much of what the base knew was forgotten.", "遗忘了许多原有能力。"),
        ),
    }[found]
    remedy = Text(
        "What helps: general answers mixed into the training set, fewer steps, or a lower learning rate.",
        "可行的办法：在训练集中混入通用问答、减少步数，或降低学习率。",
    )
    return _check("forgetting", found, clause, opening, figures, remedy)


def _leaks(kept: int) -> Check:
    return _check(
        "leaks",
        "severe",
        Text("the test set leaked into the training set", "测试集泄漏到训练集"),
        Text("The test set leaked.", "测试集有泄漏。"),
        Text(f"{kept} rows of the training set give test items away.", f"训练集中有 {kept} 行含有测试题的内容。"),
        Text("What helps: data.leak_policy: remove.", "可行的办法：data.leak_policy: remove。"),
    )


def _check(name: Any, found: Level, clause: Text, opening: Text, figures: Text, remedy: Text) -> Check:
    finding = Text(f"{opening.en} {figures.en}", spaced(f"{opening.zh}{figures.zh}"))
    return Check(name, found, clause, finding, Text("", "") if found == "ok" else remedy)
