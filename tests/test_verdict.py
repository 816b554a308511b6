"""The verdict of an evaluation: its words follow from the figures, and from nothing else."""

import pytest

from tests.helpers.evaluated import evaluated, facts, metrics_of
from tuneline.evaluate.checks import checks, level
from tuneline.evaluate.page.figures import chance, number, p_value, shown, signed, spaced
from tuneline.evaluate.page.glossary import METRIC_ENTRIES
from tuneline.evaluate.tasks import TaskResult, chosen, item_score, most_frequent_share, results_by_task
from tuneline.evaluate.thresholds import CUT_OFF, FORGETTING, LOOPS
from tuneline.evaluate.verdict import headline, measured, outcome, tone, trained, verdict
from tuneline.formats.metrics import METRICS
from tuneline.formats.model_names import model_name


def delta(value=10.0, low=5.0, high=15.0, p=0.001):
    return {"value": value, "low": low, "high": high, "p": p}


def result(task="qa", metric="rouge_l", items=50, repetition=0.0, ended=100.0, **of_delta):
    """A task's result with only what the verdict reads."""
    difference = delta(**of_delta)
    sides = {
        side: {metric: {"value": value}, "repetition": {"value": loops}, "eos_rate": {"value": share}}
        for side, value, loops, share in (
            ("base", 20.0, 60.0, 0.0), ("tuned", 20.0 + difference["value"], repetition, ended),
        )
    }  # fmt: skip
    return TaskResult(task, items, metric, sides | {"delta": {metric: difference}})


def checked(*results, change=0.1, low=None, sources=None):
    """Checks of results, each of which stands for the whole set where all are alike."""
    general = {"base": {"value": 0.3}, "tuned": {"value": 0.3 + change}}
    general["delta"] = {"value": change, "low": change / 2 if low is None else low, "high": 2 * change}
    metrics = results[0].figures | {"items": results[0].items, "general": {"nll_per_token": general}}
    return checks(metrics, results, sources or {})


def said(*results, **how):
    found = checked(*results, **how)
    outcomes = {one.task: outcome(one.metric, one.delta) for one in results}
    return tone(list(outcomes.values()), found), headline(outcomes, found)


@pytest.mark.parametrize(
    ("metric", "of_delta", "expected"),
    [
        ("rouge_l", {}, "better"),
        ("rouge_l", {"p": 0.05}, "unclear"),
        ("rouge_l", {"p": 0.049}, "better"),
        ("rouge_l", {"low": -0.1}, "unclear"),
        ("rouge_l", {"low": 0.0}, "unclear"),
        ("rouge_l", {"value": -10.0, "low": -15.0, "high": -5.0}, "worse"),
        ("nll_per_char", {"value": -1.0, "low": -2.0, "high": -0.5}, "better"),
        ("nll_per_char", {}, "worse"),
    ],
)
def test_an_outcome_needs_a_low_p_and_an_interval_beyond_zero(metric, of_delta, expected):
    assert outcome(metric, delta(**of_delta)) == expected


WORSE = {"value": -10.0, "low": -15.0, "high": -5.0}
UNCLEAR = {"p": 0.5}


@pytest.mark.parametrize(
    ("results", "how", "tone", "en", "zh"),
    [
        ([result()], {}, "good", "Better than the base.", "微调后比基座更好。"),
        ([result(**WORSE)], {}, "bad", "Worse than the base.", "微调后比基座更差。"),
        ([result(**UNCLEAR)], {}, "mixed", "No clear difference.", "无明显差别。"),
        (
            [result()], {"change": 0.5}, "mixed",
            "Better than the base, but it forgot some of what the base knew.", "微调后比基座更好，但遗忘了部分原有能力。",
        ),
        (
            [result(repetition=79.0, ended=0.0)], {}, "bad",
            "Better scores than the base, but not usable yet: its answers loop and no answer ends by itself.",
            "微调后比基座得分更高，但尚不可用：回答反复说同样的话、回答都不能自行结束。",
        ),
        (
            [result(repetition=20.0, ended=80.0)], {"change": 2.0}, "mixed",
            "Better than the base, but it forgot much of what the base knew, some answers repeat themselves and "
            "some answers are cut off.",
            "微调后比基座更好，但遗忘了许多原有能力、部分回答有重复、部分回答被截断。",
        ),
        (
            [result(repetition=79.0, **UNCLEAR)], {}, "bad",
            "No clear difference, and not usable yet: its answers loop.", "无明显差别，且尚不可用：回答反复说同样的话。",
        ),
        (
            [result("label", "label_accuracy"), result()], {}, "good",
            "Better than the base at every task.", "各项任务均比基座更好。",
        ),
        (
            [result("label", "label_accuracy"), result(**UNCLEAR)], {}, "good",
            "Better than the base at labelling, no clear difference at question answering.", "分类比基座更好，问答无明显差别。",
        ),
        (
            [result("label", "label_accuracy"), result(**WORSE)], {}, "mixed",
            "Better than the base at labelling, worse at question answering.", "分类比基座更好，问答更差。",
        ),
        (
            [result("label", "label_accuracy"), result(ended=0.0)], {}, "bad",
            "Better scores than the base at every task, but not usable yet: no answer to the question answering items ends by "
            "itself.",
            "各项任务均比基座得分更高，但尚不可用：问答题的回答都不能自行结束。",
        ),
    ],
)  # fmt: skip
def test_the_headline_says_better_or_worse_and_what_is_wrong(results, how, tone, en, zh):
    assert said(*results, **how) == (tone, (en, zh))


def test_levels_begin_at_their_thresholds():
    for threshold in (LOOPS, CUT_OFF, FORGETTING):
        assert threshold.noted < threshold.severe
        around = (threshold.noted - 0.01, threshold.noted, threshold.severe - 0.01, threshold.severe)
        assert [level(value, threshold) for value in around] == ["ok", "noted", "noted", "severe"]


def test_what_was_forgotten_counts_only_where_its_interval_is_above_zero():
    *_, sure = checked(result(), change=2.0)
    *_, unsure = checked(result(), change=2.0, low=-0.1)
    assert (sure.level, unsure.level) == ("severe", "ok")
    assert "from 0.30 to 2.30 (+2.00 nats per token)" in sure.finding.en
    assert sure.remedy.en and not unsure.remedy.en


def test_a_test_set_that_leaked_is_a_severe_finding():
    assert [check.name for check in checked(result(), sources={"s": {"leaks_kept": 0}})] == [
        "loops", "cut_off", "forgetting",
    ]  # fmt: skip
    *_, leaks = checked(result(), sources={"s": {"leaks_kept": 3}, "t": {}})
    assert (leaks.name, leaks.level) == ("leaks", "severe")
    assert "3 rows of the training set" in leaks.finding.en


def test_by_how_much_and_how_sure_is_said_in_a_sentence():
    text = measured(
        result(value=46.8, low=31.9, high=61.7, p=0.0001, metric="label_accuracy", task="label"), alone=True
    )
    assert text.en == (
        "Accuracy rose from 20.0\u00a0% to 66.8\u00a0%: +46.8 points (95 % interval +31.9 … +61.7). "
        "Sure that it is better than the base: equal models would differ as much in fewer than 1 in 1,000 cases."
    )
    assert text.zh.startswith(
        "准确率由 20.0\u00a0% 升至 66.8\u00a0%：+46.8 个百分点（95 % 区间 +31.9 … +61.7）。确定比基座好"
    )
    assert measured(result(p=0.02), alone=True).en.endswith(
        "Fairly sure that it is better than the base: equal models would differ as much in 2 % of cases."
    )
    assert measured(result(p=0.4), alone=False).en.startswith("ROUGE-L on the 50 question answering items went from")
    assert measured(result(p=0.4), alone=True).en.endswith(
        "Not sure that it differs from the base: equal models would differ as much in 40 % of cases."
    )
    assert measured(result(low=-1.0), alone=True).en.endswith(
        "Not sure that it differs from the base: the interval includes 0."
    )
    assert " fell from 20.0 to 10.0: −10.0 points" in measured(result(**WORSE), alone=True).en


def test_what_was_trained_on_what_names_the_rows_seen():
    sources = {"triage": {"train": 456}, "medical": {"train": 64}, "unused": {"train": 0}}
    few = trained("Gemma 3 270M", "lora", {"rows_seen": 64, "steps": 16}, sources, 50)
    assert few.en == (
        "Gemma 3 270M was fine-tuned (LoRA) on triage and medical: 64 rows seen in 16 steps, of a training set of 520. "
        "Both models answered the same 50 held-out test items."
    )
    many = trained("Gemma 3 270M", "full", {"rows_seen": 1040, "steps": 130}, sources, 50)
    assert "1,040 rows seen in 130 steps, of a training set of 520, 2.0 passes" in many.en
    assert "训练集 520 行，共 2.0 轮" in many.zh


@pytest.fixture(scope="module")
def learned():
    return evaluated()


def test_the_verdict_of_a_whole_evaluation(learned):
    told = facts(change=0.1)
    metrics = metrics_of(learned, told)
    results = results_by_task(metrics, learned)
    assert [(one.task, one.items, one.metric) for one in results] == [
        ("label", 24, "label_accuracy"), ("qa", 26, "rouge_l"),
    ]  # fmt: skip
    assert results[0].delta == metrics["delta"]["label_accuracy"]
    assert results[1].figures["tuned"]["rouge_l"] != metrics["tuned"]["rouge_l"]
    found = verdict(metrics, results, "Gemma 3 270M", told)
    assert (found.tone, found.headline.en) == ("good", "Better than the base at every task.")
    assert [check.level for check in found.checks] == ["ok"] * 3
    assert found.checks[1].finding.en == "Answers end by themselves. 50 of 50 answers end by themselves (base: 0)."


def test_best_median_and_worst_are_chosen_by_score_then_nll_then_id(learned):
    found = chosen([row for row in learned if row["task"] == "label"])
    assert [item_score(found[name], "tuned") for name in found] == [0, 100, 100]
    assert list(found) == ["worst", "median", "best"]
    of_task = [row for row in learned if row["task"] == "qa"]
    scores = sorted((item_score(row, "tuned") for row in of_task), reverse=True)
    places = {name: item_score(row, "tuned") for name, row in chosen(of_task).items()}
    assert places == {"best": scores[0], "median": scores[12], "worst": scores[25]}
    assert chosen(of_task) == chosen(of_task[::-1])
    lower = {
        **of_task[0],
        "scores": {**of_task[0]["scores"], "tuned": {**of_task[0]["scores"]["tuned"], "nll_per_char": 0.0}},
    }
    assert chosen([of_task[0], lower]) == {"best": lower, "worst": of_task[0]}
    assert list(chosen(learned[:1])) == ["only"]


def test_an_item_is_worth_what_its_tasks_own_metric_says(learned):
    triples = {
        "task": "triples",
        "references": ["甲_在_乙\n丙_在_丁"],
        "base": "甲_在_乙",
        "tuned": "丙_在_丁\n甲_在_乙",
    }
    assert item_score(triples, "base") == pytest.approx(200 / 3)
    assert item_score(triples, "tuned") == 100
    assert item_score({"task": "triples", "references": [""], "base": ""}, "base") == 100
    assert item_score(learned[-1], "tuned") == learned[-1]["scores"]["tuned"]["rouge_l"]


def test_naming_one_label_every_time_is_right_as_often_as_it_is_there(learned):
    assert most_frequent_share(learned) == pytest.approx(100 * 3 / 24)


def test_figures_have_digits_that_say_something():
    assert [shown("label_accuracy", value) for value in (0.0, 46.8085, 100.0)] == [
        "0\u00a0%",
        "46.8\u00a0%",
        "100\u00a0%",
    ]
    assert (number("nll_per_char", 2.169), number("rouge_l", 10.46)) == ("2.17", "10.5")
    assert [signed("rouge_l", value) for value in (3.16, -3.16, -0.01, 0.0)] == ["+3.2", "−3.2", "0.0", "0.0"]
    assert [p_value(p) for p in (0.0001, 0.001, 0.25)] == ["< 0.001", "0.001", "0.250"]
    assert [chance(p).en for p in (0.0001, 0.0045, 0.13, 1.0)] == [
        "fewer than 1 in 1,000 cases", "0.45 % of cases", "13 % of cases", "100 % of cases",
    ]  # fmt: skip
    assert spaced("题的ROUGE-L由3升至5。") == "题的 ROUGE-L 由 3 升至 5。"


def test_every_metric_has_a_name_and_a_meaning_in_both_languages():
    assert set(METRIC_ENTRIES) == set(METRICS)
    assert all(all(entry.title) and all(entry.meaning) for entry in METRIC_ENTRIES.values())


def test_a_base_has_the_name_that_people_know():
    gemma = {"model_type": "gemma3_text", "num_hidden_layers": 18, "hidden_size": 640}
    assert model_name(gemma, 271_895_168) == "Gemma 3 270M"
    assert model_name(gemma | {"hidden_size": 2560}, 3_880_000_000) == "Gemma 3 (3.88B)"
    assert model_name({"model_type": "new_kind_text"}, 1500) == "New kind (1.5k)"
    assert model_name({"model_type": "llama"}) == "Llama"
