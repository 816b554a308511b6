"""Answers, scores and the report: batched as single, paired by id, nothing unescaped."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

import stages.evaluate
from tests.conftest import FIXTURES
from tuneline.answers import ask, pair
from tuneline.generation import greedy, plan_batches
from tuneline.model import load_model, load_tokenizer
from tuneline.nll import answer_nll
from tuneline.prompt import Prompter
from tuneline.report import report
from tuneline.sections.evaluate import Evaluate

PARAMS = Evaluate(max_new_tokens=12, batch_size=3, dtype="float32")


@pytest.fixture(scope="module")
def tiny(canonical_base):
    return load_model(canonical_base, torch.float32), load_tokenizer(canonical_base)


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
    prompter = Prompter(tokenizer)
    options = {"stop_ids": prompter.stop_ids, "pad_id": tokenizer.pad_token_id, "max_new_tokens": 12, "label": "test"}
    return greedy(model, prompts, batch_size=batch_size, decode=tokenizer.decode, **options)


def test_batches_are_longest_first_and_cover_every_item():
    assert plan_batches([3, 9, 9, 1], 2) == [[1, 2], [0, 3]]


def test_a_left_padded_batch_says_what_single_prompts_say(tiny, records):
    model, tokenizer = tiny
    prompts = [Prompter(tokenizer).generation_prompt(record["messages"][:1]) for record in records]
    assert len({len(prompt) for prompt in prompts}) > 3
    single = [generate(model, tokenizer, [prompt], 1)[0] for prompt in prompts]
    assert generate(model, tokenizer, prompts, 4) == single


def test_an_answer_ends_at_its_stop_token_and_says_so(tiny, monkeypatch):
    model, tokenizer = tiny
    (stop,) = Prompter(tokenizer).closing
    monkeypatch.setattr(
        model, "generate", lambda input_ids, **_: torch.cat([input_ids, torch.tensor([[60, 61, stop, 62]])], 1)
    )
    ((text, finished),) = generate(model, tokenizer, [[5, 6]], 1)
    assert (text, finished) == (tokenizer.decode([60, 61]).strip(), True)
    monkeypatch.setattr(model, "generate", lambda input_ids, **_: torch.cat([input_ids, torch.tensor([[60, 61]])], 1))
    assert generate(model, tokenizer, [[5, 6]], 1)[0][1] is False


def test_nll_equals_that_of_the_models_own_logits(tiny, records):
    model, tokenizer = tiny
    row = Prompter(tokenizer).training_row(records[0]["messages"])
    logits = model(input_ids=torch.tensor([row.input_ids])).logits[0, :-1].log_softmax(-1)
    labels = torch.tensor(row.labels[1:])
    expected = -logits[labels != -100].gather(1, labels[labels != -100][:, None])[:, 0]
    torch.testing.assert_close(answer_nll(model, row), expected, atol=1e-4, rtol=1e-4)


def test_answers_are_in_order_and_the_same_every_time(tiny, records):
    first = ask(*tiny, records, PARAMS, "test")
    assert first == ask(*tiny, records, PARAMS, "test")
    assert [entry["id"] for entry in first] == [record["id"] for record in records]
    assert first[0]["characters"] == len(records[0]["messages"][-1]["content"])
    assert all(entry["nll"] > 0 for entry in first)


def test_pairing_is_by_id_and_complete(records):
    answers = [{"id": record["id"]} for record in records]
    assert pair(records, reversed(answers)) == answers
    with pytest.raises(ValueError, match="base answers and held-out items differ"):
        pair(records, answers[1:])
    with pytest.raises(ValueError, match="run `dvc repro predict_base`"):
        pair(records, [*answers, {"id": "another"}])


def rows(records) -> list[dict]:
    base = [
        {"id": r["id"], "prediction": "", "finished": False, "nll": 90.0, "characters": 30 + n}
        for n, r in enumerate(records)
    ]
    tuned = [
        entry | {"prediction": r["messages"][-1]["content"], "nll": 60.0}
        for entry, r in zip(base, records, strict=True)
    ]
    return [stages.evaluate.predicted(*item) for item in zip(records, base, tuned, strict=True)]


def test_the_shape_of_eval_json_and_predictions(records):
    lines = rows(records)
    assert set(lines[0]) == {"id", "task", "question", "references", "base", "tuned", "finished", "scores"}
    metrics = stages.evaluate.compare(lines)
    assert metrics["items"] == 7
    assert set(metrics["delta"]) == {"rouge_1", "rouge_2", "rouge_l", "bleu_4", "nll_per_char"}
    assert set(metrics["base"]["rouge_l"]) == {"value", "low", "high"}
    assert set(metrics["delta"]["rouge_l"]) == {"value", "low", "high", "p", "wins", "ties", "losses"}
    assert metrics["base"]["rouge_l"]["value"] == 0
    assert metrics["tuned"]["bleu_4"]["value"] == pytest.approx(100)
    # Lower is better: the difference is negative and every item is a win.
    assert metrics["delta"]["nll_per_char"]["value"] < 0
    assert metrics["delta"]["nll_per_char"]["wins"] == 7


def test_the_report_shows_every_item_and_escapes_what_people_wrote(records):
    lines = rows(records)
    lines[0]["question"] = "<script>alert(1)</script>"
    total = {"items": 7, "heldout": 7, "duplicates": 0, "leaks": 0, "rejected": 0}
    facts = {"train": {"steps": 2}, "convert": {"total": total}}
    page = report(stages.evaluate.compare(lines), lines, [(1, 3.0), (2, 2.5)], facts)
    assert page.count("<article>") == 7
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)


def test_missing_inputs_name_what_makes_them(workspace, canonical_base):
    shutil.copytree(canonical_base, "models/base")
    with pytest.raises(ValueError, match="heldout.jsonl is missing: run `dvc repro convert`"):
        stages.evaluate.main()
    assert not Path("metrics").exists()


def test_the_head_is_fed_one_position_in_one_piece(tiny, records):
    model, tokenizer = tiny
    prompts = [Prompter(tokenizer).generation_prompt(record["messages"][:1]) for record in records]
    fed = []
    head = model.get_output_embeddings()
    spy = head.register_forward_hook(lambda _, states, __: fed.append((states[0].shape[1], states[0].is_contiguous())))
    try:
        generate(model, tokenizer, prompts, 4)
    finally:
        spy.remove()
    assert len(fed) > 2 and set(fed) == {(1, True)}
    assert not head._forward_pre_hooks
