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
