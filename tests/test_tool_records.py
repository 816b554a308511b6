"""Records with tools on their way: drawn, compared, cut at a call, fitted to the limits, answered and scored."""

import pytest
import torch

from benchmarks.chat_templates import template_tokenizer
from tests.helpers.reading import lines, section, write
from tests.helpers.tool_dialogues import MISTRAL, definition
from tuneline.data.convert import convert
from tuneline.data.turns.scored_turn import asking_exchanges, scored_records
from tuneline.evaluate.config import Evaluate
from tuneline.evaluate.predict import Model, predict
from tuneline.formats.records import exchanges, read_records
from tuneline.models.chat_format import load_prompter
from tuneline.models.likelihood import answer_nll
from tuneline.tokenize.config import Tokenize
from tuneline.tokenize.encode import Summary, _shortened_rows
from tuneline.tokenize.truncation import shorten

TOOLS = [definition("get_weather")]
CITIES = ("北京", "上海", "广州", "深圳", "成都", "杭州", "武汉", "西安", "重庆", "南京", "天津", "苏州")


def exchange(city: str, answer: str = "不冷。") -> list[dict]:
    call = {"name": "get_weather", "arguments": {"city": city}}
    return [
        {"role": "user", "content": f"请问{city}今天的天气怎么样？要穿什么衣服？"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": f'{{"city": "{city}"}}'},
        {"role": "assistant", "content": f"{city}{answer}"},
    ]


SYSTEM = {"role": "system", "content": "简短"}
TWO = [SYSTEM, *exchange("北京"), *exchange("上海")]


def test_exchanges_hold_calls_and_what_they_gave():
    assert [len(part) for part in exchanges(TWO)] == [4, 4]
    assert [part[0]["content"][2:4] for part in exchanges(TWO)] == ["北京", "上海"]


def test_the_scored_answer_of_a_dialogue_with_tools_is_the_one_that_calls():
    record = {"id": "s:1", "task": "tools", "messages": TWO, "tools": TOOLS}
    assert asking_exchanges(TWO) == [0, 1]
    (cut,) = scored_records(record, "last_question")
    assert cut == record | {"id": "s:1#2", "messages": TWO[:7]}
    assert [len(one["messages"]) for one in scored_records(record, "all", 2)] == [3, 7]
    assert scored_records(record, "last") == [record]
    assert scored_records(cut, "last_question") == [cut]
    plain = record | {"task": "qa"}
    assert scored_records(plain, "last_question") == [plain]


def test_held_out_dialogues_end_with_a_call_and_leak_into_no_training(tmp_path):
    rows = [{"messages": exchange(city), "tools": TOOLS} for city in CITIES]
    again = [{"messages": exchange(city, "，多穿一点。"), "tools": TOOLS} for city in CITIES]
    write(tmp_path / "a.jsonl", lines(*rows, *again, rows[0]))
    params = section([{"path": "a.jsonl"}], heldout=4, max_leak_rate=1.0)
    paths = [tmp_path / f"{name}.out" for name in ("train", "heldout", "rejects", "removed")]
    counts = convert(params, tmp_path, *paths)["total"]
    train, heldout = (list(read_records(path)) for path in paths[:2])
    assert (counts["duplicates"], len(heldout), len(train)) == (1, 4, 16)
    assert counts["leaks"] == 4, "the other answers to the same questions"
    assert {record["task"] for record in (*train, *heldout)} == {"tools"}
    assert all(record["tools"] == TOOLS for record in (*train, *heldout))
    assert all("tool_calls" in record["messages"][-1] for record in heldout)
    asked = {record["messages"][0]["content"] for record in heldout}
    assert not asked & {record["messages"][0]["content"] for record in train}


def within(limit: int):
    return lambda messages: sum(10 + len(message["content"]) for message in messages) <= limit


@pytest.mark.parametrize("policy", ["split_turns", "truncate_prompt"])
def test_a_call_stays_with_what_it_gave(policy):
    for limit in range(20, 200):
        for part in shorten(TWO, policy, within(limit)).parts:
            roles = [message["role"][0] for message in part if message["role"] != "system"]
            assert "".join(roles) in ("uata", "uatauata")
            assert within(limit)(part)
    parts = shorten(TWO, policy, within(sum(10 + len(message["content"]) for message in TWO) - 1))
    assert parts.answers_lost == (0 if policy == "split_turns" else 2)


def test_rows_of_an_overlong_dialogue_have_its_tools():
    tokenizer = template_tokenizer(MISTRAL)
    prompter = load_prompter(tokenizer)
    record = {"id": "s:1", "source": "s", "origin": "f", "task": "tools", "messages": TWO, "tools": TOOLS}
    size = len(prompter.training_row(TWO, tools=TOOLS).input_ids)
    params = Tokenize(
        max_tokens=size - 1, max_prompt_tokens=None, overlong="split_turns", mask="all_answers", reasoning="learn"
    )
    summary = Summary()
    rows = _shortened_rows(record, prompter, params, summary)
    assert (len(rows), summary.split, summary.answers_lost) == (2, 1, 0)
    mark = tokenizer.convert_tokens_to_ids("[AVAILABLE_TOOLS]")
    assert [row.input_ids.count(mark) for row in rows] == [1, 1]
    assert all(len(row.input_ids) < size for row in rows)


def test_a_held_out_record_is_asked_and_judged_with_its_tools():
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = template_tokenizer(MISTRAL)
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(1)
    network = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **shape))
    model, prompter = Model(network.eval(), tokenizer, {}), load_prompter(tokenizer)
    record = {"id": "s:1", "source": "s", "origin": "f", "task": "tools", "messages": TWO[:3], "tools": TOOLS}
    plain = {name: value for name, value in record.items() if name != "tools"}
    params = Evaluate(max_new_tokens=4, max_thinking_tokens=4, batch_size=1, dtype="float32", constrain=None)
    answer, other = predict(model, [record, plain], params, "test").answers
    for found, tools in ((answer, TOOLS), (other, None)):
        nll = answer_nll(network, prompter.training_row(TWO[:3], "last_answer", tools=tools))
        assert found["nll"] == pytest.approx(float(nll[:-1].sum()), abs=1e-4)
        assert found["characters"] == len('get_weather(city="北京")')
    assert answer["nll"] != other["nll"]
