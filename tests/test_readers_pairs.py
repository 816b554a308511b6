"""A question with its answer: names of fields, labels and choices, and what options of a source make of them."""

import json
import random

import pytest

from tests.helpers.raw_rows import DIALOGUES, PAIR
from tests.helpers.reading import lines, read, write
from tuneline.data.config import Source
from tuneline.data.normalize import parse_record
from tuneline.data.plain_pairs import to_plain_pair
from tuneline.data.readers import RawFile
from tuneline.data.turns.conversation import RejectedRecordError


def test_alpaca_and_its_dialects(tmp_path):
    rows = [
        {"instruction": "翻译", "input": "天气", "output": "weather", "system": "你是译者"},
        {"instruct": "问", "output": "答"},
        {"instruction": "问", "answer": "答"},
        {"instruction": ["问"], "input": "", "output": ["答"]},
        {"instruction": "", "input": "问", "output": "答"},
        {"instruction": "二", "input": "", "output": "答二", "history": [["问一", "答一"]]},
    ]
    result = read(write(tmp_path / "raw.json", rows))
    assert result.rejects == []
    assert result.contents(0) == ["你是译者", "翻译\n天气", "weather"]
    assert result.compared[0] == ("翻译", "天气")
    assert [result.contents(n) for n in range(1, 5)] == [["问", "答"]] * 4
    assert result.contents(5) == ["问一", "答一", "二", "答二"]
    wrapped = read(write(tmp_path / "wrapped.json", [[row] for row in rows]))
    assert [record["messages"] for record in wrapped.records] == [record["messages"] for record in result.records]
    wrapped_lines = read(write(tmp_path / "wrapped.jsonl", lines(*([row] for row in rows))))
    assert wrapped_lines.records[0]["messages"] == result.records[0]["messages"]


def test_question_in_input_or_in_instruction(tmp_path):
    row = {"instruction": "如果你是医生，请回答", "input": "头痛怎么办", "output": "多休息"}
    path = write(tmp_path / "raw.jsonl", lines(row))
    assert read(path, question="input").compared == [("", "头痛怎么办")]
    assert read(path, question="instruction").compared == [("", "如果你是医生,请回答")]
    for options in ({}, {"question": "input"}, {"question": "instruction"}):
        assert read(path, **options).contents()[0] == "如果你是医生，请回答\n头痛怎么办"
    assert read(path, instruction="").contents()[0] == "头痛怎么办"
    assert read(path, instruction="请回答：").contents()[0] == "请回答：\n头痛怎么办"
    assert read(path, instruction="请回答：").compared == [("", "头痛怎么办")]


def test_choices_are_part_of_the_question(tmp_path):
    path = write(tmp_path / "raw.csv", "input,output,A,B,C,D,source\n哪个对？,AC,甲,乙,丙,,2018\n")
    result = read(path)
    assert result.contents() == ["哪个对？\nA. 甲\nB. 乙\nC. 丙", "AC"]
    assert result.records[0]["task"] == "label"


ODD = {
    "zero input": ({"instruction": "加一", "input": 0, "output": "1"}, ["加一\n0", "1"]),
    "blank instruction": ({"instruction": " ", "input": "问", "output": "答"}, ["问", "答"]),
    "nulls": ({"instruction": "问", "input": None, "output": "答", "system": None, "history": None}, ["问", "答"]),
    "system in a list": ({"query": "问", "response": "答", "system": ["你"]}, ["你", "问", "答"]),
    "history in capitals": ({"Query": "问", "Response": "答", "History": [["早", "好"]]}, ["早", "好", "问", "答"]),
    "history in a cell": ({"query": "问", "response": "答", "history": "[]"}, ["问", "答"]),
    "no messages": ({"question": "问", "answer": "答", "messages": None}, ["问", "答"]),
    "no calls": (
        {
            "messages": [
                {"role": "user", "content": "问", "tool_calls": None, "loss": None},
                {"role": "assistant", "content": "答", "loss": None},
            ]
        },
        ["问", "答"],
    ),
    "choices in numbers": ({"question": "1+1", "answer": "B", "A": 1, "B": 2}, ["1+1\nA. 1\nB. 2", "B"]),
    "a comma after it": ('{"query": "问", "response": "答"},', ["问", "答"]),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_but_whole_rows_are_read(tmp_path, name):
    row, contents = ODD[name]
    result = read(write(tmp_path / "raw.jsonl", row if isinstance(row, str) else lines(row)))
    assert (result.reasons, result.contents() if result.records else None) == ([], contents)
    assert result.counts.repairs.keys() <= {"number_to_text"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"query": "问", "response": None}, "empty_answer"),
        ({"query": None, "response": "答"}, "empty_question"),
        ({"query": "问", "response": float("nan")}, "empty_answer"),
        ({"query": "问", "response": "答", "system": ["甲", "乙"]}, "system_not_text"),
        ({"instruction": ["甲", "乙"], "question": "问", "answer": "答"}, "instruction_not_text"),
        ({"question": "问", "answer": ["好", "\ud800"]}, "broken_characters_in_reference"),
        ({"instruction": json.dumps({"schema": 5, "input": "甲"}), "output": "{}"}, "schema_unreadable"),
    ],
)
def test_odd_rows_without_enough_text_are_rejected(tmp_path, row, reason):
    text = json.dumps(row) + "\n" + lines(PAIR)
    assert read(write(tmp_path / "raw.jsonl", text)).reasons == [reason]


def test_labels(tmp_path):
    result = read(write(tmp_path / "raw.jsonl", lines({"text": "很好", "label": "正面"}, {"text": "不好", "label": 0})))
    assert [record["task"] for record in result.records] == ["label", "label"]
    assert result.contents(1) == ["不好", "0"]
    assert result.counts.repairs == {"number_to_text": 1}


def test_several_reference_answers(tmp_path):
    result = read(write(tmp_path / "raw.jsonl", lines({"question": "首都", "answer": ["北京", "北京市"]})))
    assert result.contents() == ["首都", "北京"]
    assert result.records[0]["references"] == ["北京", "北京市"]
    mended = read(
        write(tmp_path / "b.jsonl", lines({"question": "你是", "answer": [" {{name}} ", "{{name}} &amp; 友"]})),
        {"placeholders": {"name": "航"}},
    )
    assert mended.records[0]["references"] == ["航", "航 & 友"]


def test_system_template_columns_and_limit(tmp_path):
    row = {"system": "例子", "科室": "内科", "问题": "头痛", "query": "x", "response": "答"}
    path = write(tmp_path / "raw.jsonl", lines(row) * 3)
    result = read(path, limit=1, columns={"question": "问题"}, template="你是{科室}医生。{question}")
    assert len(result.records) == 1
    assert result.contents() == ["例子", "你是内科医生。头痛", "答"]
    assert result.compared == [("", "头痛")]
    assert result.roles() == "sua"
    assert read(path, system="", limit=1).roles() == "ua"
    assert read(path, system="新", limit=1).contents()[0] == "新"
    assert read(path, limit=1, template="{missing}{question}").reasons == ["template_field_missing_missing"]
    assert read(path, limit=1, columns={"system": "无"}).reasons == ["no_system_field"]
    chat = write(tmp_path / "c.jsonl", lines(DIALOGUES["openai"]))
    assert read(chat, template="请回答：{question}").contents()[1] == "请回答：问"
    alpaca = write(tmp_path / "b.jsonl", lines({"instruction": "翻译", "input": "天气", "output": "weather"}))
    assert read(alpaca, template="{question}！").reasons == ["unmapped_input"]


def test_placeholders_are_filled_or_reported(tmp_path):
    path = write(tmp_path / "raw.jsonl", lines({"query": "你是谁", "response": "我是{{name}}，由<AUTHOR>开发"}))
    result = read(path, {"placeholders": {"name": "小航"}})
    assert result.contents()[1] == "我是小航，由<AUTHOR>开发"
    assert result.counts.placeholders == {"<AUTHOR>": 1}
    assert read(path, {"placeholders": {"NAME": "小航", "author": "我们"}}).contents()[1] == "我是小航，由我们开发"


def test_repairs_are_named_and_counted_and_only_those(tmp_path):
    row = {"query": " 3 &gt; 2 对吗 http://x.cn/?a=1&copy=2\n", "response": "<p>对</p><eoa>\n"}
    path = write(tmp_path / "raw.jsonl", lines(row))
    assert read(path, {"repairs": []}).contents() == [row["query"], row["response"]]
    result = read(path, {"repairs": ["trim", "html_entities", "end_marker", "html_tags"]})
    assert result.contents() == ["3 > 2 对吗 http://x.cn/?a=1&copy=2", "对"]
    assert result.counts.repairs == {"trim": 1, "html_entities": 1, "end_marker": 1, "html_tags": 1}


NAMES = (
    "question", "ask", "title", "content", "input", "text", "instruction", "answer", "output", "label", "system", "history",
    "options", "A", "B", "context", "messages", "entities", "data", "chosen", "prompt", "think", "1", "note", "科室",
    "tools", "functions", "reasoning_content",
)  # fmt: skip
VALUES = (
    "我有高血压，能吃党参吗？",
    "高血压病人可以口服党参的。",
    "<think>先想</think>可以。",
    " 党参 ",
    "无",
    "",
    "nan",
    None,
    3,
    ["党参"],
)


def test_a_row_read_at_once_is_read_as_any_other(monkeypatch):
    draw = random.Random(5)
    rows = []
    for _ in range(4000):
        names = draw.sample(("question", "ask", "title", "answer", "output", "note"), 3) + draw.sample(NAMES, 2)
        rows.append({name: draw.choice(VALUES[: draw.choice((2, len(VALUES)))]) for name in dict.fromkeys(names)})
    source, file = Source(path="a.jsonl"), RawFile("a.jsonl", "json_lines")
    at_once = [to_plain_pair(source, file, row) for row in rows]
    outcomes = [outcome(source, file, row) for row in rows]
    assert sum(found is not None for found in at_once) > 150
    monkeypatch.setattr("tuneline.data.normalize.to_plain_pair", lambda *_: None)
    assert outcomes == [outcome(source, file, row) for row in rows]


def outcome(source, file, row):
    try:
        return parse_record(source, file, json.dumps(row))
    except RejectedRecordError as error:
        return str(error)
