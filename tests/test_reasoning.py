"""Thoughts in raw records: four shapes that public sets have, and what is no thought."""

import json

import pytest

from tuneline.data.config import Source
from tuneline.data.normalize import parse_record
from tuneline.data.readers import RawFile

THOUGHTS, ANSWER = "先想症状。", "多休息。"
SHAPES = {
    "a field of the record": {"Question": "感冒了怎么办？", "Complex_CoT": THOUGHTS, "Response": ANSWER},
    "a field called think": {"instruction": "感冒了怎么办？", "input": "", "think": THOUGHTS, "output": ANSWER},
    "a field of the message": {
        "messages": [
            {"role": "user", "content": "感冒了怎么办？"},
            {"role": "assistant", "content": ANSWER, "reasoning_content": THOUGHTS},
        ]
    },
    "in the answer": {"query": "感冒了怎么办？", "response": f"<think>\n{THOUGHTS}\n</think>\n\n{ANSWER}"},
}


def parse(value):
    source = Source.model_validate({"path": "x.jsonl"})
    return parse_record(source, RawFile("x.jsonl", "json"), json.dumps(value, ensure_ascii=False))


@pytest.mark.parametrize("shape", SHAPES)
def test_thoughts_are_found(shape):
    messages = parse(SHAPES[shape]).messages
    assert messages == [
        {"role": "user", "content": "感冒了怎么办？"},
        {"role": "assistant", "content": ANSWER, "reasoning": THOUGHTS},
    ]


def test_each_answer_of_a_dialogue_has_its_own():
    turns = [("human", "你好", ""), ("gpt", "您好", "问候"), ("human", "再见", ""), ("gpt", "慢走", "")]
    entries = [{"from": who, "value": text, "thinking": thought} for who, text, thought in turns]
    messages = parse({"conversations": entries}).messages
    assert [message.get("reasoning") for message in messages] == [None, "问候", None, None]


def test_what_is_no_thought_stays_in_the_answer():
    answer = "标签 <think> 的意思是思考，</think> 是它的结束。"
    assert parse({"query": "解释 <think>", "response": answer}).messages[1] == {"role": "assistant", "content": answer}


def test_thoughts_that_are_left_out_are_counted():
    turns = [
        ("human", "你好", ""),
        ("gpt", "您好", "问候"),
        ("gpt", "请讲", ""),
        ("human", "再见", ""),
        ("gpt", "慢走", ""),
    ]
    entries = [{"from": who, "value": text, "thinking": thought} for who, text, thought in turns]
    conversation = parse({"conversations": entries})
    assert not any("reasoning" in message for message in conversation.messages)
    assert "dropped_reasoning" in conversation.repairs


def test_a_history_and_exchanges_have_their_thoughts_and_merged_answers_alone_lose_them():
    past = [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "您好", "thinking": "问候"}]
    messages = parse({"query": "再见", "response": ANSWER, "history": past}).messages
    assert [message.get("reasoning") for message in messages] == [None, "问候", None, None]
    exchange = {"input": "你好", "output": "您好", "think": "问候"}
    assert parse({"conversation": [exchange]}).messages[1]["reasoning"] == "问候"
    turns = [("user", "一", ""), ("assistant", "甲", "想一"), ("user", "二", ""), ("assistant", "乙", "想二"),
             ("assistant", "丙", "")]  # fmt: skip
    merged = parse({"messages": [{"role": who, "content": text, "think": thought} for who, text, thought in turns]})
    assert [message.get("reasoning") for message in merged.messages] == [None, "想一", None, None]
    assert (merged.repairs.count("dropped_reasoning"), merged.unused) == (1, set())


def test_other_thoughts_of_the_record_than_its_answers_own_are_unused():
    turns = [{"role": "user", "content": "一"}, {"role": "assistant", "content": ANSWER, "reasoning_content": THOUGHTS}]
    for thoughts, unused in ((THOUGHTS, set()), ("别的", {"think"})):
        conversation = parse({"messages": turns, "think": thoughts})
        assert (conversation.messages[1]["reasoning"], conversation.unused) == (THOUGHTS, unused)


def test_a_field_that_the_source_puts_before_the_question_is_no_thought():
    source = Source.model_validate({"path": "x.jsonl", "use": ["think"]})
    record = json.dumps({"query": "一", "response": ANSWER, "think": THOUGHTS}, ensure_ascii=False)
    messages = parse_record(source, RawFile("x.jsonl", "json"), record).messages
    assert messages == [{"role": "user", "content": f"{THOUGHTS}\n一"}, {"role": "assistant", "content": ANSWER}]
