"""The model card: the report's headline with its items, limits first, what is not known, in both languages."""

import json
from pathlib import Path

import pytest

from tests.helpers.evaluated import evaluated, facts, metrics_of
from tests.helpers.workspace import shipped_sections
from tuneline.cli.push.rows import held_rows
from tuneline.evaluate.tasks import results_by_task
from tuneline.evaluate.verdict import verdict
from tuneline.export.card_figures import figure_lines
from tuneline.export.model_card import LABELS_SHOWN, card, known_labels

DEPARTMENTS = {"label": ["骨科", "眼科"]}
BASE = {"source": "google/gemma-3-270m", "revision": None}
EXPORT = {"tokens": 9, "delta_nll": 0.0, "max_logit_difference": 0.0, "greedy_agreement": 1.0}


def sample(kind: str = "learned", change: float = 0.1, classes: dict = DEPARTMENTS, **more) -> tuple[str, dict]:
    """A card, and what it was made of: 50 items, of which 24 are one-word labels."""
    rows, told = evaluated(kind), facts(change)
    training = told.training | {"supervised_tokens": 9, "first_loss": 3.0, "last_loss": 1.0} | more.pop("training", {})
    counts = told.counts | {"total": {"train": 640}}
    read = {
        "eval": metrics_of(rows, told) | more,
        "rows": rows,
        "train": training,
        "convert": counts,
        "classes": classes,
    }
    lineage = {"params": shipped_sections(), "base_sums": "0" * 64}
    if "imported" in training:
        lineage["imported"] = {"name": training["imported"], "files": {}, "base_model_name_or_path": None}
    return card(lineage, read | {"export": EXPORT}, BASE, ""), read


def test_its_headline_is_that_of_the_report_with_the_items_of_each_task():
    text, read = sample()
    results = results_by_task(read["eval"], read["rows"])
    said = verdict(read["eval"], results, "base", facts())
    assert len(said.measured) == 2
    for sentence in (said.headline.en, said.headline.zh, *(one.zh for one in said.measured)):
        assert sentence in text
    first, second, *others = figure_lines(read["eval"], results)
    assert (first.title, first.items) == ("Accuracy", "24 items (labelling)")
    assert (second.title, second.items) == ("ROUGE-L", "26 items (question answering)")
    assert f"| ROUGE-L | {second.items} | {second.base} | {second.tuned} | {second.difference} |" in text
    # One-word labels would raise the figures of text.
    whole = read["eval"]["tuned"]
    assert second.tuned != f"{whole['rouge_l']['value']:.1f}"
    assert [one.title for one in others].count("ROUGE-L") == 0
    assert {one.items for one in others if one.title in ("BLEU-4", "chrF", "Exact match")} == {second.items}
    assert {one.items for one in others if one.title in ("Stopped at EOS", "Repeated 4-grams")} == {"50 items"}


def test_a_single_task_has_each_metric_once():
    rows, told = [row for row in evaluated() if row["task"] == "qa"], facts()
    metrics = metrics_of(rows, told)
    lines = figure_lines(metrics, results_by_task(metrics, rows))
    assert lines[0].title == "ROUGE-L"
    assert sorted(line.title for line in lines) == sorted({line.title for line in lines})
    assert len(lines) == len(metrics["delta"])


def test_a_metric_of_the_users_own_says_how_many_items_it_is_of():
    rows, told = evaluated(), facts()
    metrics = metrics_of(rows, told)
    own = {"title": "Refers", "version": "a" * 12, "higher_is_better": True, "unit": "%", "corpus": False, "items": 7}
    metrics["own"] = {"refers": own}
    for side in ("base", "tuned", "delta"):
        metrics[side]["refers"] = metrics[side]["eos_rate"]
    (line,) = [one for one in figure_lines(metrics, results_by_task(metrics, rows)) if one.title == "Refers"]
    assert line.items == "7 items"


def test_limits_come_first_then_chinese():
    text, _ = sample()
    assert text.startswith("---\nbase_model: google/gemma-3-270m\nlanguage: zh\nlibrary_name: transformers\n")
    assert [line for line in text.splitlines() if line.startswith("## ")][:3] == [
        "## Limits / 限制",
        "## 中文说明",
        "## Base",
    ]
    limits = text[text.index("## Limits") : text.index("## 中文说明")]
    for said in (
        "模型的回答不构成医疗或法律建议",
        "invents laws, doses and facts",
        "会编造法律、剂量和事实",
        "Not for patients",
        "不可直接给患者",
        "in no language other than that of these items",
        "其他语言也没有测过",
        "Not known: who wrote the data",
        "To judge it: `metrics/report.html`",
        "要自己判断：",
    ):
        assert said in limits
    chinese = text[text.index("## 中文说明") : text.index("## Base")]
    assert "triage 520 条、health 90 条、self_cognition 30 条" in chinese
    assert "基座的回答无一自行结束" in chinese
    assert "**尚不清楚**" in chinese


@pytest.mark.parametrize(
    ("kind", "change", "said", "unsaid"),
    [
        ("learned", 0.1, "**遗忘**：遗忘很少。", "**问题**"),
        ("learned", 0.9, "**遗忘**：遗忘了许多原有能力。", "**问题**"),
        ("looping", 0.1, "**问题**：回答反复说同样的话。", "遗忘了"),
    ],
)
def test_what_is_wrong_is_said_in_chinese(kind, change, said, unsaid):
    text, _ = sample(kind, change)
    assert said in text
    assert unsaid not in text


def test_forgetting_that_nobody_measured_is_said_to_be_so():
    text, _ = sample(general={"prompts": 3, "nll_per_token": None})
    assert "**遗忘**：没有测量。" in text
    assert "What it cost elsewhere" not in text


def test_labels_are_all_that_it_can_answer():
    text, _ = sample()
    assert "the 2 labels below are all that it learnt to answer" in text
    assert "an emergency for example, it can't be expected to notice" in text
    assert "能答的只有下面 2 个标签；不属于其中任何一个的情况（例如急症），不能指望它认出来" in text
    assert "Labels / 标签：`眼科` · `骨科`\n" in text
    text, _ = sample(classes={"label": ["急诊科", "骨科"]})
    assert "an emergency" not in text
    assert "急症" not in text
    text, _ = sample(classes={"triples": ["治疗"]})
    assert "Labelling" not in text
    assert "标签：" not in text


def test_many_labels_are_counted_and_none_leaves_its_quotes():
    found = known_labels({"labels": [f"{n:03}" for n in range(LABELS_SHOWN + 5)], "label": ["a`b\nc", "000"]})
    assert (found["count"], found["more"]) == (LABELS_SHOWN + 6, 6)
    assert found["listed"].count("`") == 2 * LABELS_SHOWN
    assert known_labels({"label": ["a`b\nc"]})["listed"] == "`a'b c`"
    text, _ = sample(classes={"label": [f"{n:03}" for n in range(LABELS_SHOWN + 5)]})
    assert " · 5 more / 另有 5 个\n" in text


def test_a_row_that_lists_the_labels_is_not_held_to_be_in_the_card(tmp_path):
    names = ["口腔科", "呼吸科", "心内科", "泌尿科", "消化科", "皮肤科", "神经科", "耳鼻喉科"]
    row = {"id": "s:1", "source": "s", "origin": "f:1", "task": "label"}
    row["messages"] = [
        {"role": "user", "content": f"从{'、'.join(names)}中选一个科室，病人说他的胳膊疼了三天，还一直发烧。"},
        {"role": "assistant", "content": "皮肤科"},
    ]
    (tmp_path / "data/processed").mkdir(parents=True)
    Path(tmp_path, "data/processed/train.jsonl").write_text(json.dumps(row) + "\n")
    text, _ = sample(classes={"label": names})
    assert list(held_rows({"README.md": text}, tmp_path)) == []
    listed = text + "、".join(names)
    assert list(held_rows({"README.md": listed}, tmp_path)) != [], "it would be found"


def test_of_an_adapter_from_elsewhere_nothing_is_said_of_training_data():
    text, _ = sample(training={"imported": "theirs"})
    assert "不是由本流水线训练的" in text
    for said in ("trained on, and on nothing", "与训练数据同类", "**训练数据**", "Labelling", "None"):
        assert said not in text


def test_the_same_inputs_give_the_same_card():
    assert sample()[0] == sample()[0]
