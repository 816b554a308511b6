"""Training rows that may hurt: what is measured of them, what is found, the page, and the command on a tiny project."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from benchmarks.rows.swaps import recall_rows, swap_answers
from tests.helpers.paths import ROOT
from tests.helpers.workspace import make_trained, write_records
from tuneline.cli.app import app
from tuneline.cli.rows import measure, passes
from tuneline.cli.rows.features import Evidence, odds_of
from tuneline.cli.rows.findings import Measured, beyond_fence, find_conflicts, findings
from tuneline.cli.rows.items import answer_begin, last_answer_alone, read_items, under_other_prompt
from tuneline.cli.rows.label_features import label_features, label_set_features
from tuneline.cli.rows.label_issues import label_issues, label_set_issues
from tuneline.cli.rows.listing import as_lines, listed
from tuneline.cli.rows.odds import own_odds
from tuneline.cli.rows.page import page
from tuneline.cli.rows.pairs import LARGEST, MIXED, partners, parts
from tuneline.cli.rows.similarity import above_others, shares, similarities
from tuneline.formats.example import Encoded
from tuneline.formats.token_file import write_tokens
from tuneline.models.chat_format import load_prompter
from tuneline.models.likelihood import answer_nll
from tuneline.models.loading import load_model, load_tokenizer
from tuneline.runtime.params import load
from tuneline.tokenize.config import Tokenize

LABELS = ("内科", "外科", "眼科", "儿科")


def record(number: int, question: str, answer: str, task: str = "qa", source: str = "s") -> dict:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    name = f"{source}:{number:03}"
    return {"id": name, "source": source, "origin": f"{source}.csv:{number}", "task": task, "messages": messages}


def of_classes(rows: int = 80, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Labels [rows] by number, and states [rows, 12] that tell them."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, len(LABELS), rows)
    states = draw.normal(size=(rows, 12)).astype(np.float32)
    states[np.arange(rows), labels] += 6
    return labels, states


def plain(rows: int, **changes: np.ndarray) -> Measured:
    """Rows of which nothing is remarkable."""
    even = np.linspace(1, 2, rows)
    states = np.random.default_rng(3).normal(size=(2, rows, 4)).astype(np.float32)
    values = {"base_nll": even, "tuned_nll": even, "information": even, "odds": even}
    return Measured(**(values | {"prompt": states[0], "answer": states[1]} | changes))


@pytest.fixture(scope="module")
def rows(canonical_base) -> list[Encoded]:
    prompter = load_prompter(load_tokenizer(canonical_base))
    texts = [("感冒怎么办", "多休息。"), ("头痛三天了", "请到医院检查，多喝水。"), ("牙痛", "看牙")]
    earlier = [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "你好！"}]
    return [
        prompter.training_row([*earlier * (number == 1), *record(0, question, answer)["messages"]])
        for number, (question, answer) in enumerate(texts)
    ]


def test_a_pass_gives_what_each_row_alone_gives_and_goes_on_where_it_was_killed(
    rows, canonical_base, tmp_path, monkeypatch
):
    model = load_model(canonical_base, torch.float32)
    monkeypatch.setattr(passes, "PART", 1)
    asked = []

    def get():
        asked.append(1)
        if len(asked) > stop:
            raise KeyboardInterrupt
        return model

    stop = 2
    with pytest.raises(KeyboardInterrupt):
        passes.nll_pass(get, rows, 64, tmp_path / "parts", "rows", pooled=True)
    asked, stop = [], 1
    found = passes.nll_pass(get, rows, 64, tmp_path / "parts", "rows", pooled=True)
    asked, stop = [], 0
    again = passes.nll_pass(get, rows, 64, tmp_path / "parts", "rows", pooled=True)
    assert all(np.array_equal(found[name], again[name]) for name in ("nll", "last", "prompt", "answer"))
    alone = [float(answer_nll(model, row).sum()) for row in rows]
    last = [float(answer_nll(model, last_answer_alone(row)).sum()) for row in rows]
    np.testing.assert_allclose(found["nll"], alone, rtol=1e-4)
    np.testing.assert_allclose(found["last"], last, rtol=1e-4)
    assert last[1] < alone[1] and last[0] == pytest.approx(alone[0])
    row = rows[2]
    with torch.inference_mode():
        hidden = model.base_model(input_ids=torch.tensor([row.input_ids])).last_hidden_state[0]
    begin = answer_begin(row)
    np.testing.assert_allclose(found["prompt"][2], hidden[:begin].mean(0), atol=1e-4)
    np.testing.assert_allclose(found["answer"][2], hidden[begin:].mean(0), atol=1e-4)


def test_an_answer_under_another_prompt_keeps_its_tokens_alone(rows):
    begin = answer_begin(rows[1])
    moved = under_other_prompt(rows[1], [7, 8])
    assert moved.input_ids == [7, 8, *rows[1].input_ids[begin:]]
    assert moved.labels == [-100, -100, *rows[1].labels[begin:]]
    assert rows[1].labels[begin - 1] == -100 != rows[1].labels[begin]
    assert last_answer_alone(rows[1]).labels[:begin] == [-100] * begin
    assert any(label != -100 for label in rows[1].labels[:begin])


def test_conflicts_ask_the_same_after_normalisation_and_answer_otherwise():
    records = [
        record(0, "感冒怎么办？", "多喝水"), record(1, "感冒怎么办?", "多喝水 "), record(2, "感冒怎么办？ ", "吃药"),
        record(3, "头痛", "休息"), record(4, "头痛", "休息"),
    ]  # fmt: skip
    assert find_conflicts(records) == {0: [2], 1: [2], 2: [0, 1]}


def test_what_like_questions_lead_to_tells_a_swapped_answer():
    draw = np.random.default_rng(2)
    prompt = draw.normal(size=(120, 20))
    answer = prompt @ draw.normal(size=(20, 20)) + draw.normal(size=(120, 20))
    swapped = [5, 40, 77, 101]
    answer[swapped] = answer[[*swapped[1:], swapped[0]]]
    texts = [f"{row}" for row in range(120)]
    *_, there, back = similarities(texts, texts, prompt, answer)
    for similarity in (there, back.T):
        assert set(swapped) <= set(np.argsort(np.diag(above_others(similarity)))[:6].tolist())
        assert abs(similarity).max() < 1 + 1e-9


def test_an_answer_takes_up_what_its_own_question_says():
    people = ["张某某", "李某", "王五", "赵六", "周七", "吴八"]
    questions = [f"被告人{name}偷走{number}部手机。" for number, name in enumerate(people)]
    answers = [f"嫌疑人:{name}" for name in people]
    answers[1], answers[4] = answers[4], answers[1]
    found = shares([*questions, "无"], [*answers, " "])
    assert found.argmax(0)[:6].tolist() == [0, 4, 2, 3, 1, 5] and found[6].max() == 0 == found[:, 6].max()


def test_a_row_is_compared_with_one_of_its_part_that_asks_and_answers_otherwise():
    answers = ["甲", "乙"] * 30
    questions = [*range(59), 0]
    found = {}
    for part in parts([list(range(60)), [60]]):
        within = partners(part, [*questions, "?"], [*answers, "甲"])
        found |= dict(zip(part.tolist(), part[within].tolist(), strict=True))
    assert found.pop(60) == 60 and len(found) == 60
    assert all(answers[row] != answers[other] and questions[row] != questions[other] for row, other in found.items())
    assert partners(np.arange(9), range(9), ["甲"] * 9).tolist() == list(range(9))
    assert (partners(np.arange(LARGEST), range(LARGEST), range(LARGEST)) != np.arange(LARGEST)).sum() == MIXED
    assert [len(part) for part in parts([range(2 * LARGEST + 1)])] == [1334, 1334, 1333]


def test_odds_are_learnt_from_positive_and_negative_pairs():
    draw = np.random.default_rng(4)
    telling, vague, blind = (draw.normal(size=(200, 2)) for _ in range(3))
    telling[:, 0] += 4
    telling[7, 0] = -1
    comparable = np.ones(200, dtype=bool)
    told = own_odds(np.stack([telling, vague], 2), comparable)
    assert told.argmin() == 7 and told[7] < -2 and np.median(told) > 3
    # Where nothing tells, no row is suspicious; where no rows are comparable, nothing is known.
    assert abs(own_odds(np.stack([blind, vague], 2), comparable)).max() < 1
    assert np.isnan(own_odds(np.stack([telling, vague], 2), np.arange(200) < 9)).all()


@pytest.mark.parametrize("task", ["qa", "label", "labels"])
def test_rows_of_every_task_are_ranked_by_what_does_not_belong(task):
    numbers, states = of_classes(120)
    given = [LABELS[number] for number in numbers]
    swapped = [3, 30, 77]
    for row in swapped:
        given[row] = LABELS[(numbers[row] + 1) % len(LABELS)]
    given_states = np.eye(12, dtype=np.float32)[[LABELS.index(label) for label in given]] * 6
    records = [record(row, f"第{row}问", label, task) for row, label in enumerate(given)]
    others = partners(np.arange(120), range(120), given)
    nothing = np.ones((120, 2))
    found = odds_of(records, Evidence(states, given_states, nothing, nothing), others)
    assert set(np.argsort(found)[:3].tolist()) == set(swapped) and found[swapped].max() < 0 < np.median(found)
    # Likelihood alone tells, too, and here for an answer that text and states are content with.
    information = np.stack([np.where(np.arange(120) == 50, -40.0, 9.0), np.zeros(120)], 1)
    information += np.random.default_rng(5).normal(size=(120, 2))
    assert odds_of(records, Evidence(states, given_states, information, nothing), others).argmin() == 50


def test_a_label_is_weighed_against_how_often_it_stands_and_a_rare_one_not_at_all():
    numbers, states = of_classes()
    given = [*(LABELS[number] for number in numbers), "皮肤科"]
    features = np.concatenate([states, states[:1]]).astype(np.float64) / 6
    others = partners(np.arange(81), range(81), given)
    found = label_features(given, features, others)
    assert found[:80, 0].min() > 0 > found[:79, 1].max()
    assert found[80].tolist() == [0, 0] and found[79, 1] == 0 == (given[others[79]] != "皮肤科")
    sets = label_set_features([f"{label}、急" for label in given], features, others)
    assert sets[:80, 0].min() > 0 > sets[:79, 1].max()
    assert label_features(["内科"] * 20, features[:20], np.arange(20)).tolist() == [[0, 0]] * 20


def test_labels_that_a_classifier_contradicts_are_doubtful():
    numbers, states = of_classes()
    given = [LABELS[number] for number in numbers]
    for row in (3, 20, 50):
        given[row] = LABELS[(numbers[row] + 1) % len(LABELS)]
    found = label_issues([*given, "皮肤科"], np.concatenate([states, states[:1]]))
    assert set(sorted(found, key=lambda row: found[row].quality)[:3]) == {3, 20, 50}
    # How many are doubtful goes by an estimate of how often labels are wrong.
    assert {20, 50} <= (doubtful := {row for row, issue in found.items() if issue.doubtful}) and len(doubtful) < 6
    assert [found[row].suggested for row in (3, 20, 50)] == [LABELS[numbers[row]] for row in (3, 20, 50)]
    assert found[3].quality < 0.3 < max(issue.quality for issue in found.values())
    # Of a label that stands once nothing can be learnt.
    assert sorted(found) == list(range(80))
    assert label_issues(["内科"] * 20, states[:20]) == {}


def test_sets_of_labels_are_judged_label_by_label():
    numbers, states = of_classes()
    given = [f"{LABELS[number]}、急" if number % 2 else LABELS[number] for number in numbers]
    row = int(np.flatnonzero(numbers == 0)[2])
    given[row] = "外科、急"
    found = label_set_issues(given, states)
    assert found[row].doubtful and found[row].suggested == "内科"
    assert len(found) == 80 and sum(issue.doubtful for issue in found.values()) < 12
    assert label_set_issues(["内科、外科"] * 20, states[:20]) == {}


def test_the_fence_is_tukeys_outer_one_of_each_source():
    values = np.array([*range(20), 60, *[1000.0] * 20])
    assert beyond_fence(values, [list(range(21)), list(range(21, 41))]) == {20}
    assert beyond_fence(np.array([0.0, 0, 0, 9]), [[0, 1, 2, 3]]) == set()


def test_findings_rank_each_row_once_and_say_why():
    numbers, states = of_classes(60)
    records = [record(row, f"问{row}", LABELS[number], "label") for row, number in enumerate(numbers)]
    records += [record(row, f"谈{row}", f"答{row}", source="t") for row in range(40)]
    records[61]["messages"][0]["content"] = "谈2"
    records[4]["messages"][1]["content"] = LABELS[(numbers[4] + 1) % 4]
    even = np.linspace(1, 2, 100)
    odds, likely = even.copy(), even.copy()
    odds[70], likely[80] = -30, 90
    measured = plain(100, odds=odds, tuned_nll=likely)
    measured = measured._replace(prompt=np.concatenate([states, states[:40] / 9]))
    found = findings(records, measured, 0.05)
    assert sorted(one.rank for one in found) == list(range(1, 101))
    assert found[70].rank == 1 and "mismatch" in found[70].reasons
    assert sum("mismatch" in one.reasons for one in found) == 5
    assert "label" in found[4].reasons and found[4].label.suggested == LABELS[numbers[4]]
    assert "conflict" in found[61].reasons and found[61].conflicts_with == [62]
    assert "unlikely" in found[80].reasons
    assert found[90].label is None


def test_rows_without_odds_come_last_and_are_no_mismatch():
    records = [record(row, f"问{row}", f"答{row}") for row in range(40)]
    records += [record(row, f"谈{row}", f"话{row}", source="small") for row in range(10)]
    odds = np.concatenate([np.linspace(1, 5, 40), np.full(10, np.nan)])
    measured = plain(50, odds=odds)
    found = findings(records, measured, 0.1)
    assert [row for row in range(50) if "mismatch" in found[row].reasons] == [0, 1, 2, 3, 4]
    assert sorted(one.rank for one in found[40:]) == list(range(41, 51))
    found = findings(records, measured, 1.0)
    assert sum("mismatch" in one.reasons for one in found) == 40
    lines = as_lines(records, measured, found)
    assert lines[-1]["odds"] is None and "对数几率</" not in page(
        listed(records, lines[-1:]), lines, 1.0, "exclude.txt"
    )


def test_a_rare_label_has_no_odds():
    numbers, states = of_classes(120)
    given = [LABELS[number] for number in numbers]
    given[5], given[60] = "病理科", "营养科"
    records = [record(row, f"第{row}问", label, "label") for row, label in enumerate(given)]
    others = partners(np.arange(120), range(120), given)
    found = odds_of(records, Evidence(states, states, np.ones((120, 2)), np.ones((120, 2))), others)
    assert np.flatnonzero(np.isnan(found)).tolist() == [5, 60]


def test_the_page_lists_reasons_and_proposes_what_to_leave_out(browser, tmp_path):
    records = [record(row, f"问题{row}", f"回答{row}") for row in range(30)]
    records[1] = record(1, "问题0", "<b>别的</b>")
    odds = np.linspace(5, 9, 30)
    odds[7], odds[1] = -9, 1
    measured = plain(30, odds=odds)
    lines = as_lines(records, measured, found := findings(records, measured, 1 / 30))
    assert [line["rank"] for line in lines] == list(range(1, 31))
    assert lines[0] == {
        "id": "s:007", "origin": "s.csv:7", "source": "s", "task": "qa", "rank": 1, "reasons": found[7].reasons,
        "base_nll_per_token": lines[0]["base_nll_per_token"], "tuned_nll_per_token": lines[0]["tuned_nll_per_token"],
        "information": lines[0]["information"], "odds": -9.0,
    }  # fmt: skip
    shown = listed(records, lines)
    proposed = [row["id"] for row in shown if row["proposed"]]
    # Of two that contradict each other the likelier stays.
    assert sorted(proposed) == ["s:001", "s:007"]
    text = page(shown, lines, 1 / 30, "exclude.txt")
    assert "<b>别的</b>" not in text and "&lt;b&gt;别的" in text
    (tmp_path / "rows.html").write_text(text, encoding="utf-8")
    tab = browser.new_page(viewport={"width": 390, "height": 800})
    tab.goto((tmp_path / "rows.html").as_uri())
    assert sorted(tab.inner_text("#exclude").split()) == sorted(proposed)
    tab.uncheck("input[value='s:007']")
    assert tab.inner_text("#exclude").split() == ["s:001"] and tab.inner_text("#count") == "1"
    tab.select_option("#kind", "conflict")
    assert tab.locator("article:visible .origin").all_inner_texts() == ["s.csv:1", "s.csv:0"]
    tab.select_option("#kind", "")
    tab.fill("#sought", "s.csv:7")
    assert tab.locator("article:visible").count() == 1
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    tab.click("button[value=zh]")
    assert tab.inner_text("h1") == "可能有害的数据"
    tab.close()


@pytest.fixture
def trained(tmp_path, canonical_base, monkeypatch) -> Path:
    """A tiny project of 30 rows, one of them too long for tokenize.max_tokens."""
    make_trained(tmp_path, canonical_base)
    chats = [record(row, f"第{row}个问题怎么办", f"第{row}个回答，多休息。")["messages"] for row in range(30)]
    chats[9] = record(9, "很长" * 400, "是")["messages"]
    write_records(tmp_path, chats)
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    shipped["evaluate"]["dtype"] = "float32"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(shipped, allow_unicode=True), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    prompter = load_prompter(load_tokenizer(canonical_base))
    kept = [prompter.training_row(chat) for row, chat in enumerate(chats) if row != 9]
    write_tokens(tmp_path / "data/processed/tokens.safetensors", kept)
    return tmp_path


def test_the_command_measures_once_and_again_only_when_an_input_changed(trained, monkeypatch):
    result = CliRunner().invoke(app, ["rows"])
    assert result.exit_code == 0, result.output
    assert "29 rows: 1 mismatch" in result.output and "data/raw/exclude.txt" in result.output
    lines = [json.loads(line) for line in Path("metrics/rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {line["origin"] for line in lines} == {f"f:{row}" for row in range(30)} - {"f:9"}
    assert all(line["base_nll_per_token"] != line["tuned_nll_per_token"] for line in lines)
    assert lines[0]["id"] in Path("metrics/rows.html").read_text(encoding="utf-8")
    # What was measured is all that stays.
    assert [path.name for path in measure.CACHE.glob("*/*") if path.suffix != ".lock"] == [measure.RESULT]
    with monkeypatch.context() as patch:
        patch.setattr(measure, "Models", None)
        assert CliRunner().invoke(app, ["rows", "--share", "0.1"]).output.startswith("29 rows: 3 mismatch")
    shutil.rmtree("models/adapter")
    result = CliRunner().invoke(app, ["rows"])
    assert isinstance(result.exception, (ValueError, SystemExit)) and result.exit_code == 1


def test_tokens_of_other_rows_are_refused(trained):
    tokenizer, params = load_tokenizer(Path("models/base")), load(Tokenize)
    train, tokens = Path("data/processed/train.jsonl"), Path("data/processed/tokens.safetensors")
    assert [item.number for item in read_items(train, tokens, tokenizer, params)] == [*range(9), *range(10, 30)]
    text = train.read_text(encoding="utf-8").splitlines(keepends=True)
    for changed in (text[1:], text[:-1], [text[1], text[0], *text[2:]]):
        train.write_text("".join(changed), encoding="utf-8")
        with pytest.raises(ValueError, match="holds other rows than .* run `dvc repro`"):
            read_items(train, tokens, tokenizer, params)


def test_the_benchmark_swaps_answers_that_differ_and_counts_what_is_found():
    rows = [{"response": LABELS[row % 4]} for row in range(40)]
    chosen = swap_answers(rows, 4, 3)
    assert len(set(chosen)) == 4 and all(rows[row]["response"] != LABELS[row % 4] for row in chosen)
    assert [row["response"] for row in rows if row["response"]].count(LABELS[0]) == 10
    ranked = [f"topics.jsonl:{row}" for row in range(20)] + [f"entities.jsonl:{row}" for row in range(20)]
    found = recall_rows(ranked, {"topics.jsonl:1", "entities.jsonl:0"})
    assert found[0] == ("all", 40, 2, 1, "0.50")
    assert ("topics", 20, 1, 0, "0.00") in found and ("entities", 20, 1, 1, "1.00") in found
