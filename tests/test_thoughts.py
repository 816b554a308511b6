"""Thoughts before answers: a base with its own prompt from end to end, scores after thoughts, thoughts without an end."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.chat_templates import template_tokenizer
from chat.engine import Constrain, check_params
from chat.openai.schema import ChatRequest
from tests.helpers.chat_templates import FOLLOWED, FORGETS, HYBRID
from tests.helpers.families import train_a_little
from tests.helpers.methods import method
from tests.helpers.tiny_models import base_section
from tuneline.base.canonicalize import canonicalize
from tuneline.evaluate.config import Evaluate
from tuneline.evaluate.predict import Model, predict
from tuneline.evaluate.results import count_thoughts, prediction_rows
from tuneline.export.folder import merge_into
from tuneline.formats.extraction import ENDS
from tuneline.models.chat_format import load_prompter
from tuneline.models.config import Base
from tuneline.models.constrained_decoding import Constrainer, Constraint
from tuneline.models.loading import load_model, load_tokenizer
from tuneline.models.thoughts import Said, ThoughtMarks, in_answer
from tuneline.train import methods
from tuneline.train.run import prepare_model

PARAMS = Evaluate(max_new_tokens=12, max_thinking_tokens=10, batch_size=3, dtype="float32", constrain=None)
GPT = ThoughtMarks("<|channel|>analysis", "<|end|><|channel|>final", "<|channel|>final", ("<|channel|>", "<|end|>"))

LORA = method(lora={"r": 4, "alpha": 16, "dropout": 0.0})


def instruct_base(folder: Path, template: str) -> Path:
    """A tiny random Llama with the template, as the base stage writes it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = template_tokenizer(template)
    shape = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=512, tie_word_embeddings=False, **shape, **ends
    )
    LlamaForCausalLM(config).save_pretrained(folder / "source")
    tokenizer.save_pretrained(folder / "source")
    params = Base.model_validate(base_section(folder / "source") | {"dtype": "float32"})
    prompt = canonicalize(folder / "source", None, params, folder / "base").prompt
    assert prompt.chat_template == "own"
    return folder / "base"


def model_of(base: Path) -> Model:
    return Model(load_model(base, torch.float32), load_tokenizer(base), {})


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory) -> Path:
    return instruct_base(tmp_path_factory.mktemp("hybrid"), HYBRID)


def item(number: int, question: str, answer: str, reasoning: str = "") -> dict:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    if reasoning:
        messages[1]["reasoning"] = reasoning
    return {"id": f"s:{number}", "source": "s", "origin": "f", "task": "qa", "messages": messages}


def teach(network, rows) -> None:
    optimizer = torch.optim.AdamW(network.requires_grad_(True).parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        for row in rows:
            network(input_ids=torch.tensor([row.input_ids]), labels=torch.tensor([row.labels])).loss.backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("marks", "opened", "text", "said"),
    [
        (ThoughtMarks(), False, "多休息", Said("多休息")),
        (ThoughtMarks(), False, "<think>\n想\n</think>\n\n多休息", Said("多休息", "想")),
        (ThoughtMarks(), True, "想\n</think>\n\n多休息", Said("多休息", "想")),
        (ThoughtMarks(), True, "\n</think>\n\n多休息", Said("多休息", "")),
        (ThoughtMarks(), True, "想啊想", Said("", "想啊想", True)),
        (ThoughtMarks(), False, "<think>想", Said("", "想", True)),
        (ThoughtMarks(), False, "a</think>b", Said("a</think>b")),
        (GPT, False, "<|channel|>final多休息", Said("多休息")),
        (GPT, False, "<|channel|>analysis想<|end|><|channel|>final多休息", Said("多休息", "想")),
    ],
)
def test_thoughts_and_answer_are_told_apart(marks, opened, text, said):
    assert marks.split(text, opened) == said


def test_thoughts_within_an_answers_text():
    assert in_answer("<think>\n想\n</think>\n\n多休息") == ("想", "多休息")
    assert in_answer("<think>没完") == ("", "<think>没完")
    assert in_answer("多</think>休息") == ("", "多</think>休息")


def test_the_base_keeps_its_template_and_ends_where_it_ended(hybrid):
    assert (hybrid / "chat_template.jinja").read_text() == HYBRID
    stops = json.loads((hybrid / "generation_config.json").read_text())["eos_token_id"]
    prompter = load_prompter(load_tokenizer(hybrid))
    assert sorted(stops) == prompter.stop_ids
    assert (prompter.opens_thoughts(True), prompter.opens_thoughts(False)) == (False, False)


def test_a_base_says_what_transformers_alone_lets_it_say(hybrid):
    model = model_of(hybrid)
    questions = ["感冒了怎么办？", "Hello world", "1234 3.14", "多休息吗", "a"]
    records = [item(number, question, "x") for number, question in enumerate(questions)]
    answers = predict(model, records, PARAMS, "test").answers
    alone = []
    for question in questions:
        ids = model.tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, enable_thinking=False, return_tensors="pt",
        )  # fmt: skip
        ids = ids["input_ids"] if not isinstance(ids, torch.Tensor) else ids
        output = model.network.generate(ids, do_sample=False, max_new_tokens=PARAMS.max_new_tokens)
        alone.append(model.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True).strip())
    assert [answer["prediction"] for answer in answers] == [text.rstrip("\ufffd") for text in alone]
    assert len(set(alone)) > 1


def test_a_model_that_was_taught_to_think_is_scored_on_its_answer(hybrid):
    model = model_of(hybrid)
    records = [item(0, "感冒了怎么办？", "多休息。", "Hello 1234"), item(1, "Hello", "world")]
    prompter = load_prompter(model.tokenizer)
    teach(model.network, [prompter.training_row(record["messages"]) for record in records])
    longer = PARAMS.model_copy(update={"max_thinking_tokens": 40})
    thought, plain = predict(model, records, longer, "test").answers
    assert (thought["prediction"], thought["reasoning"]) == ("多休息。", "Hello 1234")
    assert (plain["prediction"], "reasoning" in plain) == ("world", False)
    assert thought["tokens"] == len(prompter.text("多休息。")), "the NLL is of the answer alone"
    rows = prediction_rows(records, [plain | {"prediction": "x"}, plain], [thought, plain])
    assert rows[0]["scores"]["tuned"]["exact_match"] == 100
    assert rows[0]["thoughts"] == {"base": "", "tuned": "Hello 1234"}
    assert "thoughts" not in rows[1]
    assert count_thoughts(rows)["thoughts"]["tuned"] == {"answers": 1, "unfinished": 0}


def test_a_thought_without_an_end_has_no_answer(tmp_path):
    model = model_of(instruct_base(tmp_path, FORGETS))
    prompter = load_prompter(model.tokenizer)
    assert prompter.opens_thoughts(False), "its generation prompt begins a thought"
    records = [item(0, "感冒了怎么办？", "多休息。", "想"), item(1, "Hello", "world")]
    answers, speed = predict(model, records, PARAMS, "test")
    assert speed["batches"][0]["tokens"] == 2 * PARAMS.max_thinking_tokens
    for answer in answers:
        assert answer["unfinished_thought"]
        assert (answer["prediction"], answer["stopped_at_eos"]) == ("", False)
        assert answer["reasoning"]
    rows = prediction_rows(records, answers, answers)
    assert count_thoughts(rows) == {"thoughts": {side: {"answers": 2, "unfinished": 2} for side in ("base", "tuned")}}


CONSTRAINED = {"triples": ["持股"]}


@pytest.mark.parametrize("template", [HYBRID, FORGETS], ids=["hybrid", "forgets"])
def test_a_constrained_answer_beside_thoughts_has_none_and_is_what_it_is_alone(tmp_path, template):
    """The others think on where it has come to its own limit."""
    model = model_of(instruct_base(tmp_path, template))
    records = [
        item(0, "工行的股东是安联集团", "工行_持股_安联") | {"task": "triples"},
        item(1, "工行的股东是运通", "运通_持股_工行", "想") | {"task": "triples"},
        item(2, "感冒了怎么办？", "多休息。", "想"),
    ]
    params = Evaluate(**PARAMS.model_dump() | {"max_thinking_tokens": 30, "constrain": CONSTRAINED})
    together = predict(model, records, params, "test", CONSTRAINED).answers
    alone = [predict(model, [one], params, "test", CONSTRAINED).answers[0] for one in records]
    for one, answer, single in zip(records, together, alone, strict=True):
        assert (answer["prediction"], answer["stopped_at_eos"]) == (single["prediction"], single["stopped_at_eos"])
        if one["task"] == "triples":
            asked = one["messages"][0]["content"]
            assert not answer.keys() & {"reasoning", "unfinished_thought"}
            for triple in filter(None, ENDS.split(answer["prediction"])):
                head, relation, tail = triple.split("_")
                assert (head in asked, relation, tail in asked) == (True, "持股", True)
            assert answer["reachable"]


@pytest.mark.parametrize("name", FOLLOWED)
def test_answers_can_be_constrained_with_every_template(name):
    tokenizer = template_tokenizer(FOLLOWED[name])
    constrainer = Constrainer(tokenizer, load_prompter(tokenizer))
    limits, label = Constraint("triples", "工行的股东是安联", ["持股"]), Constraint("label", "", ["骨科"])
    assert all(
        constrainer.allows(limits, answer) for answer in ("", "工行_持股_安联", "工行_持股_安联\n股东_持股_工行")
    )
    assert not any(constrainer.allows(limits, answer) for answer in ("工行", "建行_持股_安联", "工行_收购_安联"))
    assert constrainer.allows(label, "骨科") and not constrainer.allows(label, "外科")


def test_nobody_thought():
    row = {"id": "s:0", "scores": {}}
    assert count_thoughts([row]) == {}


def test_a_client_of_the_api_asks_for_thoughts_as_vllm_has_it():
    request = {"model": "base", "messages": [{"role": "user", "content": "x"}]}
    assert not ChatRequest.model_validate(request).sampling_params(0).thinking
    asked = ChatRequest.model_validate(request | {"chat_template_kwargs": {"enable_thinking": True}})
    assert asked.sampling_params(0).thinking
    constrained = asked.sampling_params(0)._replace(constrain=Constrain("label", ("骨科",)))
    check_params(constrained._replace(thinking=False))
    with pytest.raises(ValueError, match="thinking is on beside constrain, expected one of them"):
        check_params(constrained)


def test_the_merged_folder_ships_the_bases_template(hybrid, tmp_path):
    network = prepare_model(load_model(hybrid, torch.float32), LORA, checkpointing=False)
    messages = item(0, "感冒了怎么办？", "多休息。", "想")["messages"]
    train_a_little(network, load_prompter(load_tokenizer(hybrid)).training_row(messages), 3)
    methods.save(network, LORA, tmp_path / "adapter")
    (tmp_path / "adapter/lineage.json").write_text("{}")
    merge_into(tmp_path / "merged", hybrid, tmp_path / "adapter", "float32")
    for name in ("chat_template.jinja", "generation_config.json", "tokenizer.json"):
        assert (tmp_path / "merged" / name).read_bytes() == (hybrid / name).read_bytes()
    rows = [load_prompter(load_tokenizer(folder)).training_row(messages) for folder in (hybrid, tmp_path / "merged")]
    assert rows[0] == rows[1]
