"""Answers and scores: batched as single, paired by id."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import stages.evaluate
from tests.helpers.paths import FIXTURES
from tests.helpers.stages import run_main
from tuneline.evaluate.compare import change_on_general, compare
from tuneline.evaluate.config import Evaluate
from tuneline.evaluate.figures import figures
from tuneline.evaluate.general_prompts import PROMPTS, predict_general
from tuneline.evaluate.predict import Model, pair, predict
from tuneline.evaluate.results import prediction_rows
from tuneline.models.chat_format import load_prompter
from tuneline.models.decoding.generate import greedy, plan_batches
from tuneline.models.likelihood import answer_nll, answer_nlls
from tuneline.models.loading import load_model, load_tokenizer

PARAMS = Evaluate(max_new_tokens=12, max_thinking_tokens=8, batch_size=3, dtype="float32", constrain=None)


@pytest.fixture(scope="module")
def tiny(canonical_base):
    return Model(load_model(canonical_base, torch.float32), load_tokenizer(canonical_base), {})


@pytest.fixture(scope="module")
def records():
    rows = [json.loads(line) for line in (FIXTURES / "consultation.jsonl").read_text(encoding="utf-8").splitlines()[:7]]
    chats = [
        [{"role": "user", "content": row["query"]}, {"role": "assistant", "content": row["response"]}] for row in rows
    ]
    return [
        {"id": f"s:{number}", "source": "s", "origin": "f", "task": "qa", "messages": chat}
        for number, chat in enumerate(chats)
    ]


def generate(model, tokenizer, prompts, batch_size):
    prompter = load_prompter(tokenizer)
    options = {"stop_ids": prompter.stop_ids, "pad_id": tokenizer.pad_token_id, "max_new_tokens": 12, "label": "test"}
    answers, times = greedy(model, prompts, batch_size=batch_size, decode=tokenizer.decode, **options)
    assert sum(one.items for one in times) == len(prompts)
    assert sum(one.tokens for one in times) == sum(one.tokens for one in answers)
    return [(one.text, one.stopped_at_eos) for one in answers]


def test_batches_are_longest_first_and_cover_every_item():
    assert plan_batches([3, 9, 9, 1], 2) == [[1, 2], [0, 3]]


def test_a_left_padded_batch_says_what_single_prompts_say(tiny, records):
    model, tokenizer, _ = tiny
    prompts = [load_prompter(tokenizer).generation_prompt(record["messages"][:1]) for record in records]
    assert len({len(prompt) for prompt in prompts}) > 3
    single = [generate(model, tokenizer, [prompt], 1)[0] for prompt in prompts]
    assert generate(model, tokenizer, prompts, 4) == single


def test_an_answer_ends_at_its_stop_token_and_says_so(tiny, monkeypatch):
    model, tokenizer, _ = tiny
    (stop,) = load_prompter(tokenizer).closing
    monkeypatch.setattr(model, "generate", lambda input_ids, **_: [[60, 61, stop]])
    ((text, finished),) = generate(model, tokenizer, [[5, 6]], 1)
    assert (text, finished) == (tokenizer.decode([60, 61]).strip(), True)
    monkeypatch.setattr(model, "generate", lambda input_ids, **_: [[60, 61]])
    assert generate(model, tokenizer, [[5, 6]], 1)[0][1] is False


def test_nll_equals_that_of_the_models_own_logits(tiny, records):
    model, tokenizer, _ = tiny
    row = load_prompter(tokenizer).training_row(records[0]["messages"])
    logits = model(input_ids=torch.tensor([row.input_ids])).logits[0, :-1].log_softmax(-1)
    labels = torch.tensor(row.labels[1:])
    expected = -logits[labels != -100].gather(1, labels[labels != -100][:, None])[:, 0]
    torch.testing.assert_close(answer_nll(model, row), expected, atol=1e-4, rtol=1e-4)


def test_rows_of_a_group_are_computed_together_and_give_what_each_gives_alone(tiny, records):
    model, tokenizer, _ = tiny
    prompter, widths = load_prompter(tokenizer), []
    rows = [prompter.training_row(record["messages"]) for record in records]
    alone = [answer_nll(model, row) for row in rows]
    hook = model.model.register_forward_pre_hook(
        lambda _, args, options: widths.append(options["input_ids"].shape), with_kwargs=True
    )
    together = answer_nlls(model, rows, [0, 0, 1, 0, 1, 1, 0], "test")
    hook.remove()
    for one, single in zip(together, alone, strict=True):
        torch.testing.assert_close(one, single, atol=1e-5, rtol=1e-5)
    assert sum(count for count, _ in widths) == len(rows)
    assert any(count > 1 for count, _ in widths)
    assert all(count * width <= 1024 or count == 1 for count, width in widths)


def test_answers_are_in_order_and_the_same_every_time(tiny, records):
    first, speed = predict(tiny, records, PARAMS, "test")
    assert first == predict(tiny, records, PARAMS, "test").answers
    assert [entry["id"] for entry in first] == [record["id"] for record in records]
    assert first[0]["characters"] == len(records[0]["messages"][-1]["content"])
    assert all(entry["nll"] > 0 for entry in first)
    assert [len([entry for entry in first if entry["batch"] == number]) for number in range(3)] == [3, 3, 1]
    assert [batch["items"] for batch in speed["batches"]] == [3, 3, 1]
    assert speed["new_tokens_per_second"] > 0


def test_the_nll_of_an_empty_answer_is_that_of_its_end(tiny):
    model, tokenizer, _ = tiny
    turns = [{"role": "user", "content": "抽取三元组：今天下雨。"}, {"role": "assistant", "content": ""}]
    record = {"id": "s:0", "source": "s", "origin": "f", "task": "triples", "messages": turns}
    ((entry,), _) = predict(tiny, [record], PARAMS, "test")
    end = answer_nll(model, load_prompter(tokenizer).training_row(turns))
    assert len(end) == entry["tokens"] == entry["characters"] == 1
    assert entry["nll"] == pytest.approx(float(end[0]), abs=1e-5)


def test_general_prompts_measure_written_answers_without_their_end(tiny):
    model, tokenizer, _ = tiny
    base = predict_general(tiny, PARAMS, "test")
    assert [entry["id"] for entry in base] == list(PROMPTS)
    assert len(PROMPTS) == 20
    for entry in base:
        question, answer = PROMPTS[entry["id"]]
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        with_end = answer_nll(model, load_prompter(tokenizer).training_row(turns, "last_answer"))
        assert entry["tokens"] == len(with_end) - 1 > 0
        assert entry["nll"] == pytest.approx(float(with_end[:-1].sum()), rel=1e-5)
    change = change_on_general(base, [entry | {"nll": entry["nll"] + 2 * entry["tokens"]} for entry in base])
    assert (change["prompts"], change_on_general(base[:3], base[:3])["prompts"]) == (20, 3)
    figures = change["nll_per_token"]
    assert figures["delta"]["value"] == pytest.approx(2, abs=1e-4)
    assert (figures["delta"]["wins"], figures["delta"]["losses"]) == (0, 20)


def test_pairing_is_by_id_and_complete(records):
    answers = [{"id": record["id"]} for record in records]
    assert pair(records, reversed(answers)) == answers
    with pytest.raises(ValueError, match="base answers and held-out items differ"):
        pair(records, answers[1:])
    with pytest.raises(ValueError, match="run `dvc repro predict_base`"):
        pair(records, [*answers, {"id": "another"}])


def rows(records) -> list[dict]:
    common = {"stopped_at_eos": False, "nll": 90.0, "tokens": 20, "batch": 0}
    base = [{"id": r["id"], "prediction": "", "characters": 30 + n} | common for n, r in enumerate(records)]
    tuned = [
        entry | {"prediction": r["messages"][-1]["content"], "nll": 60.0, "stopped_at_eos": True}
        for entry, r in zip(base, records, strict=True)
    ]
    return prediction_rows(records, base, tuned)


EVERY = {
    "rouge_1", "rouge_2", "rouge_l", "bleu_4", "chrf", "exact_match", "nll_per_char", "nll_per_token", "length_ratio",
    "distinct_2", "repetition", "eos_rate",
}  # fmt: skip


def test_the_shape_of_eval_details_and_predictions(records):
    lines = rows(records)
    assert set(lines[0]) == {
        "id", "task", "question", "references", "base", "tuned", "stopped_at_eos", "batch", "scores",
    }  # fmt: skip
    metrics = compare(lines)
    assert (metrics["items"], metrics["tasks"]) == (7, {"qa": 7})
    assert set(metrics["delta"]) == set(metrics["versions"]) == EVERY
    assert set(metrics["base"]["rouge_l"]) == {"value", "low", "high"}
    assert set(metrics["delta"]["rouge_l"]) == {"value", "low", "high", "p", "wins", "ties", "losses"}
    assert metrics["base"]["rouge_l"]["value"] == 0
    assert metrics["tuned"]["bleu_4"]["value"] == pytest.approx(100)
    assert metrics["tuned"]["exact_match"]["value"] == metrics["tuned"]["eos_rate"]["value"] == 100
    # Lower is better: the difference is negative and every item is a win. So is a length that comes nearer to 1.
    for name in ("nll_per_char", "nll_per_token"):
        assert metrics["delta"][name]["value"] < 0
        assert metrics["delta"][name]["wins"] == 7
    assert metrics["delta"]["length_ratio"]["wins"] == 7


def test_metrics_of_a_task_are_over_its_items_alone(records):
    lines = rows(records)
    lines[0] |= {
        "task": "triples",
        "references": ["甲_在_乙\n丙_在_丁"],
        "base": "甲_在_乙",
        "tuned": "甲_在_乙\n丙_在_丁",
    }
    lines[1] |= {"task": "label", "references": ["借贷"], "base": "婚姻", "tuned": "借贷"}
    metrics = compare(lines)
    assert metrics["tasks"] == {"label": 1, "qa": 5, "triples": 1}
    assert metrics["base"]["triples_f1"]["value"] == pytest.approx(100 * 2 / 3, abs=1e-4)
    assert metrics["base"]["triples_precision"]["value"] == 100
    assert metrics["delta"]["triples_recall"]["value"] == 50
    assert metrics["delta"]["label_accuracy"]["value"] == metrics["tuned"]["label_macro_f1"]["value"] == 100


def test_a_share_of_items_has_the_wilson_interval_and_a_mean_a_bootstrap(records):
    metrics = compare(rows(records))
    for name in ("exact_match", "eos_rate"):
        assert metrics["tuned"][name] == {"value": 100, "low": pytest.approx(64.567, abs=1e-3), "high": 100}
    # A mean whose items happen to be all 0 is no share, and neither is a difference.
    assert metrics["base"]["rouge_l"] == {"value": 0, "low": 0, "high": 0}
    assert (metrics["delta"]["exact_match"]["low"], metrics["delta"]["exact_match"]["high"]) == (100, 100)


def test_shares_of_a_task_are_of_its_items():
    lines = [
        {
            "task": task,
            "references": ["甲"],
            "base": "乙",
            "tuned": "甲" if n else "丙",
            "scores": {"base": NONE, "tuned": NONE},
        }
        for task in ("label", "labels")
        for n in range(26)
    ]
    metrics = compare(lines)
    for name in ("label_accuracy", "labels_exact_match"):
        assert metrics["base"][name] == {"value": 0, "low": 0, "high": pytest.approx(12.873, abs=1e-3)}
        assert metrics["tuned"][name] == {
            "value": pytest.approx(100 * 25 / 26, abs=1e-6),
            "low": pytest.approx(81.107, abs=1e-3),
            "high": pytest.approx(99.318, abs=1e-3),
        }
        assert metrics["delta"][name]["high"] == 100
    assert metrics["base"]["label_macro_f1"]["high"] == 0


NONE = dict.fromkeys(EVERY, None)
GENERAL = {"general": {"nll_per_token": {"delta": {"value": 0.5}}}}


def test_what_experiments_are_compared_by_is_the_tuned_models_and_flat(records):
    lines = rows(records)
    details = compare(lines) | GENERAL
    found = figures(details)
    assert list(found) == ["rouge_l", "general_nll_change", "nll_per_char", "eos_rate", "repetition", "items"]
    assert (found["items"], found["general_nll_change"]) == (7, 0.5)
    assert found["rouge_l"] == details["tuned"]["rouge_l"]["value"] == pytest.approx(100)


def test_each_task_has_its_main_figure_and_of_all_there_are_at_most_ten(records):
    lines = rows(records)
    for line, task in zip(lines, ("triples", "entities", "label"), strict=False):
        line |= {"task": task, "references": ["甲_在_乙"], "base": "", "tuned": "甲_在_乙"}
    found = figures(compare(lines) | GENERAL)
    assert {"triples_f1", "entities_f1", "label_accuracy", "rouge_l"} < set(found)
    assert len(found) <= 10
    # ROUGE-L says nothing that is not in the accuracy of labels.
    assert "rouge_l" not in figures(compare(lines[2:3]) | GENERAL)


def test_missing_inputs_name_what_makes_them(workspace, canonical_base):
    shutil.copytree(canonical_base, "models/base")
    with pytest.raises(ValueError, match="heldout.jsonl is missing: run `dvc repro convert`"):
        run_main(stages.evaluate)
    assert not Path("metrics").exists()


def test_the_head_is_fed_one_position_in_one_piece(tiny, records):
    model, tokenizer, _ = tiny
    prompts = [load_prompter(tokenizer).generation_prompt(record["messages"][:1]) for record in records]
    fed = []
    head = model.get_output_embeddings()
    spy = head.register_forward_hook(lambda _, states, __: fed.append((states[0].shape[1], states[0].is_contiguous())))
    try:
        generate(model, tokenizer, prompts, 4)
    finally:
        spy.remove()
    assert len(fed) > 2 and set(fed) == {(1, True)}
    assert not head._forward_pre_hooks
