"""Raw files in: formats and encodings told from content, everything unreadable named and kept."""

import hashlib
import json

import pytest

from tests.conftest import ROOT
from tests.reading import lines, read, write
from tuneline.data.readers import text

PAIR = {"query": "感冒怎么办", "response": "多休息"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "gbk", "utf-16", "utf-16-le-bom"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_table_in_every_encoding(tmp_path, encoding, end):
    text = f"question,answer{end}感冒怎么办,多休息{end}"
    content = ("\ufeff" + text).encode("utf-16-le") if encoding == "utf-16-le-bom" else text.encode(encoding)
    result = read(write(tmp_path / "raw.csv", content))
    assert result.contents() == ["感冒怎么办", "多休息"]
    assert result.records[0]["origin"] == "raw.csv:2"


def test_tabs_part_cells_too(tmp_path):
    assert read(write(tmp_path / "raw.csv", "question\tanswer\na,b\tc\n")).contents() == ["a,b", "c"]


def test_an_unclosed_quote_costs_its_own_line_only(tmp_path):
    result = read(write(tmp_path / "raw.csv", 'question,answer\na,b\nq1,"a1\nq2,a2\nq3,a3\n'))
    assert [record["messages"][0]["content"] for record in result.records] == ["a", "q2", "q3"]
    assert [(r["origin"], r["reason"], r["raw"]) for r in result.rejects] == [("raw.csv:3", "unclosed_quote", 'q1,"a1')]


def test_a_quote_that_closes_far_away_does_not_swallow_rows(tmp_path):
    content = 'question,answer\nq1,"a1\n' + "".join(f"q{n},a{n}\n" for n in range(2, 50)) + 'q50,"a50"\nq51,a51\n'
    result = read(write(tmp_path / "raw.csv", content))
    assert [reject["raw"] for reject in result.rejects] == ['q1,"a1']
    assert len(result.records) == 50


def test_a_quote_that_runs_on_too_far_is_given_up_before_the_end_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tuneline.data.readers.table.SPAN", 100)
    content = 'question,answer\nq1,"a1\n' + "".join(f"q{n},a{n}\n" for n in range(2, 300)) + 'q300,"a""300"\n'
    result = read(write(tmp_path / "raw.csv", content))
    assert [reject["raw"] for reject in result.rejects] == ['q1,"a1']
    assert len(result.records) == 299
    assert result.contents(298) == ["q300", 'a"300']


def test_a_row_with_another_number_of_cells_is_a_reject(tmp_path):
    result = read(write(tmp_path / "raw.csv", "question,answer\na,b,c\nd\ne,f\n"))
    assert result.reasons == ["3_cells_not_2", "1_cells_not_2"]


def test_quotes_and_long_cells_are_text(tmp_path):
    content = f'question,answer\n"三高"人群能吃什么,{"好" * 200_000}\n"a ""b"" c",d\n'
    result = read(write(tmp_path / "raw.csv", content))
    assert [result.contents(n)[0] for n in (0, 1)] == ['"三高"人群能吃什么', 'a "b" c']
    assert len(result.contents(0)[1]) == 200_000


def test_names_of_columns_in_capitals_and_an_index_without_a_name(tmp_path):
    assert read(write(tmp_path / "a.csv", "Department,Title,Ask,Answer\n内科,标题,详细,答\n")).contents() == [
        "标题，详细",
        "答",
    ]
    assert read(write(tmp_path / "b.csv", ",question,answer\n0,问,答\n")).contents() == ["问", "答"]


def test_line_ends_of_old_macs(tmp_path):
    assert read(write(tmp_path / "a.csv", "question,answer\r问,答\r问二,答二\r")).contents(1) == ["问二", "答二"]


def test_a_header_that_names_a_column_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="names a column twice"):
        read(write(tmp_path / "raw.csv", "question,answer,answer\na,b,c\n"))


def test_a_record_over_two_lines_and_a_stray_quote(tmp_path):
    text = 'question,answer\na,"one\ntwo"\n小三阳说"如何治疗,b\nc,d\n'
    result = read(write(tmp_path / "raw.csv", text))
    assert [record["origin"] for record in result.records] == ["raw.csv:2", "raw.csv:4", "raw.csv:5"]
    assert result.contents(0)[-1] == "one\ntwo"
    assert result.contents(1)[0] == '小三阳说"如何治疗'


@pytest.mark.parametrize(
    ("title", "ask", "joined"),
    [
        ("标题", "无", "标题"),
        ("标题", "标题，详细", "标题，详细"),
        ("标题", "详细", "标题，详细"),
        ("无", "详细", "详细"),
    ],
)
def test_title_and_question_become_one(tmp_path, title, ask, joined):
    path = write(tmp_path / "raw.csv", f"department,title,ask,answer\n内科,{title},{ask},答\n", "gb18030")
    assert read(path).contents()[0] == joined


def test_everything_in_a_table_is_text(tmp_path):
    path = write(tmp_path / "raw.csv", "system,instruction,input,output\n00000,11111,22222,3.3\n,aaaaa,,ccccc\n")
    result = read(path)
    assert result.contents(0) == ["00000", "11111\n22222", "3.3"]
    assert result.contents(1) == ["aaaaa", "ccccc"]


def test_blocks_of_two_lines(tmp_path):
    blocks = ["党参能吃吗,我有高血压\n可以吃", "怎么办,无\n多休息"] * 4 + ["没有回答的,标题"]
    result = read(write(tmp_path / "raw.txt", "\n\n\n".join(blocks) + "\n", "gb18030"))
    assert result.tally.formats == {"blocks": 1}
    assert result.contents(0) == ["党参能吃吗，我有高血压", "可以吃"]
    assert result.contents(1) == ["怎么办", "多休息"]
    assert result.reasons == ["block_of_1_lines"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_dialogue_as_text(tmp_path, end):
    talk = (
        "来访者：您好。\n\n心理咨询师：请说。\n慢慢来。\n来访者：我很焦虑\n\n心理咨询师（微笑）：我明白\n来访者：谢谢\n"
    )
    result = read(write(tmp_path / "case_1.txt", talk.replace("\n", end)))
    assert result.contents() == ["您好。", "请说。\n慢慢来。", "我很焦虑", "（微笑）我明白"]
    assert result.tally.repairs == {"dropped_last_question": 1}


def test_a_dialogue_as_text_with_brackets(tmp_path):
    result = read(write(tmp_path / "a.txt", "[客户] 能退吗\n[律师] 能\n[客户] 谢谢\n[律师] 不客气\n"))
    assert result.contents() == ["能退吗", "能", "谢谢", "不客气"]


def test_json_lines_and_array_whatever_the_suffix(tmp_path):
    rows = [{"instruction": "问", "output": "答"}, {"question": "问\u2028二", "answer": "答"}]
    results = [
        read(write(tmp_path / "a.json", lines(*rows))),
        read(write(tmp_path / "b.jsonl", rows)),
        read(write(tmp_path / "c.txt", json.dumps(rows, ensure_ascii=False, indent=4))),
        read(write(tmp_path / "d.json", "\n".join(json.dumps(row, indent=2) for row in rows))),
    ]
    for result in results:
        assert [result.contents(n)[0] for n in (0, 1)] == ["问", "问\u2028二"]
    assert [next(iter(result.tally.formats)) for result in results] == ["json_lines", "json", "json", "json"]
    assert results[1].records[1]["origin"] == "b.jsonl:[1]"


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
    given, contents = ODD[name]
    result = read(write(tmp_path / "raw.jsonl", given if isinstance(given, str) else lines(given)))
    assert (result.reasons, result.contents() if result.records else None) == ([], contents)
    assert result.tally.repairs.keys() <= {"number_to_text"}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"query": "问", "response": None}, "empty_answer"),
        ({"query": None, "response": "答"}, "empty_question"),
        ({"query": "问", "response": float("nan")}, "answer_not_text"),
        ({"query": "问", "response": "答", "system": ["甲", "乙"]}, "system_not_text"),
        ({"instruction": ["甲", "乙"], "question": "问", "answer": "答"}, "instruction_not_text"),
        ({"question": "问", "answer": ["好", "\ud800"]}, "broken_characters_in_reference"),
        ({"instruction": json.dumps({"schema": 5, "input": "甲"}), "output": "{}"}, "schema_unreadable"),
    ],
)
def test_odd_rows_that_say_too_little_are_rejected(tmp_path, given, reason):
    text = json.dumps(given) + "\n" + lines(PAIR)
    assert read(write(tmp_path / "raw.jsonl", text)).reasons == [reason]


def test_labels(tmp_path):
    result = read(write(tmp_path / "raw.jsonl", lines({"text": "很好", "label": "正面"}, {"text": "不好", "label": 0})))
    assert [record["task"] for record in result.records] == ["label", "label"]
    assert result.contents(1) == ["不好", "0"]
    assert result.tally.repairs == {"number_to_text": 1}


def test_several_right_answers(tmp_path):
    result = read(write(tmp_path / "raw.jsonl", lines({"question": "首都", "answer": ["北京", "北京市"]})))
    assert result.contents() == ["首都", "北京"]
    assert result.records[0]["references"] == ["北京", "北京市"]
    mended = read(
        write(tmp_path / "b.jsonl", lines({"question": "你是", "answer": [" {{name}} ", "{{name}} &amp; 友"]})),
        {"placeholders": {"name": "航"}},
    )
    assert mended.records[0]["references"] == ["航", "航 & 友"]


CHATS = {
    "sharegpt": {"conversations": [{"from": "human", "value": "问"}, {"from": "gpt", "value": "答"}], "system": "你"},
    "openai": {
        "messages": [{"role": r, "content": c} for r, c in (("system", "你"), ("user", "问"), ("assistant", "答"))]
    },
    "chatglm3": {
        "conversations": [{"role": r, "content": c} for r, c in (("system", "你"), ("user", "问"), ("assistant", "答"))]
    },
    "emollm": {"conversation": [{"system": "你", "input": "问", "output": "答"}]},
    "parts": {
        "messages": [
            {"role": "system", "content": "你"},
            {"role": "user", "content": [{"type": "text", "value": "问"}], "loss_weight": 0.0},
            {"role": "assistant", "content": [{"type": "text", "text": "答"}], "loss_weight": 1.0},
        ]
    },
    "swift": {"system": "你", "conversation": [{"human": "问", "assistant": "答"}]},
    "chatlaw": {"meta_instruction": "你", "chat": [{"咨询者": "问", "ChatLAW": "答"}]},
    "qiaoban": {"system": "你", "dialog": [{"speaker": "孩子", "text": "问"}, {"speaker": "智能助手", "text": "答"}]},
    "smile": [{"role": r, "content": c} for r, c in (("system", "你"), ("client", "问"), ("counselor", "答"))],
}


@pytest.mark.parametrize("name", CHATS)
def test_every_kind_of_dialogue(tmp_path, name):
    for result in (
        read(write(tmp_path / "a.json", lines(CHATS[name], CHATS[name]))),
        read(write(tmp_path / "b.json", [CHATS[name]])),
    ):
        assert result.contents() == ["你", "问", "答"]
        assert result.roles() == "sua"


def test_a_folder_of_dialogues_one_to_a_file(tmp_path):
    for number in range(3):
        write(tmp_path / f"smile/{number}.json", json.dumps(CHATS["smile"], indent=2))
    write(tmp_path / "smile/LICENSE", "Creative Commons\n")
    result = read(tmp_path / "smile")
    assert [record["origin"] for record in result.records] == ["smile/0.json:1", "smile/1.json:1", "smile/2.json:1"]
    assert result.records[0]["source"] == "smile"
    assert result.tally.skipped == ["smile/LICENSE"]


def turns(*pairs: tuple[str, str]) -> dict:
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


@pytest.mark.parametrize(
    ("given", "roles", "repair"),
    [
        (turns(("user", "一"), ("user", "二"), ("assistant", "三")), "ua", "merged_turns"),
        (turns(("assistant", "您好"), ("user", "一"), ("assistant", "三")), "ua", "dropped_opening_answer"),
        (turns(("user", "一"), ("assistant", "三"), ("user", "谢谢")), "ua", "dropped_last_question"),
        (CHATS["sharegpt"] | {"tools": "[1]"}, "sua", "dropped_tools"),
    ],
)
def test_dialogues_that_are_mended_say_so(tmp_path, given, roles, repair):
    result = read(write(tmp_path / "a.jsonl", lines(given)))
    assert result.roles() == roles
    assert result.tally.repairs == {repair: 1}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (turns(("user", "一"), ("user", "二")), "no_answer"),
        (turns(("assistant", "一")), "no_question"),
        (turns(("user", " "), ("assistant", "一")), "empty_turn"),
        (turns(("user", "一"), ("assistant", "二"), ("system", "三")), "late_system_prompt"),
        (turns(("user", "一"), ("narrator", "二")), "unknown_speaker"),
        (turns(("user", "一"), ("tool", "{}"), ("assistant", "二")), "tool_turn"),
        ({"conversations": [{"from": "human", "value": "一"}, {"from": "function_call", "value": "{}"}]}, "tool_turn"),
        ({"messages": []}, "no_turns"),
        ({"messages": ["一"]}, "turn_not_an_object"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]}, "content_not_text"),
        ({"query": "一", "response": "二", "history": "三"}, "history_not_a_list"),
        ({"query": "一", "response": "二", "history": [["三"]]}, "history_unreadable"),
        ({"query": "一", "response": "二", "history": [["三", " "]]}, "history_unreadable"),
    ],
)
def test_dialogues_that_are_none_are_rejected(tmp_path, given, reason):
    assert read(write(tmp_path / "a.jsonl", lines(given, PAIR))).reasons == [reason]


def test_a_history_that_came_after_the_question(tmp_path):
    opening = {"query": "开头", "response": "答", "history": []}
    later = [opening | {"history": [{"query": f"后来{n}", "response": "答"}]} for n in range(3)]
    other = {"query": "另一个", "response": "答", "history": []}
    second = [row | {"query": "开头二"} for row in (opening, *later)]
    result = read(write(tmp_path / "a.jsonl", lines(*later, opening, *second, other)))
    assert result.reasons == ["history_after_the_question"] * 6
    few = [{"query": f"问{n}", "response": "答", "history": [["早", "好"]]} for n in range(8)] + [
        {"query": "问0", "response": "答"}
    ]
    assert read(write(tmp_path / "c.jsonl", lines(*few))).rejects == []
    true = {"query": "第二问", "response": "答二", "history": [{"query": "开头", "response": "答"}]}
    assert read(write(tmp_path / "b.jsonl", lines(opening, true, true))).rejects == []


def test_what_is_compared_of_a_dialogue_is_its_last_question(tmp_path):
    talk = turns(("user", "头痛三天了怎么办"), ("assistant", "休息"), ("user", "谢谢"), ("assistant", "不客气"))
    longer = turns(
        ("user", "头痛三天了怎么办"), ("assistant", "休息"), ("user", "那要不要吃药呢"), ("assistant", "不用")
    )
    result = read(write(tmp_path / "a.jsonl", lines(talk, longer)))
    assert result.compared == [("", "头痛三天了怎么办 谢谢"), ("", "头痛三天了怎么办 那要不要吃药呢")]
    longest = turns(("user", "头痛"), ("assistant", "休息"), ("user", "那么要不要吃一点药呢"), ("assistant", "不用"))
    assert read(write(tmp_path / "b.jsonl", lines(longest))).compared == [("", "那么要不要吃一点药呢")]


def test_triples_as_lines(tmp_path):
    rows = [
        {"instruction": "抽取", "input": "甲和乙合作", "output": "甲_合作_乙\n甲_合作_乙"},
        {"instruction": "抽取", "input": "什么也没有", "output": ""},
        {"instruction": "抽取", "input": "甲持股乙", "output": "甲_持股_乙"},
    ]
    result = read(write(tmp_path / "a.json", rows))
    assert [record["task"] for record in result.records] == ["triples"] * 3
    assert [result.contents(n)[-1] for n in range(3)] == ["甲_合作_乙", "", "甲_持股_乙"]
    assert result.tally.repairs == {"repeated_triples": 1}
    broken = read(write(tmp_path / "b.json", [rows[0] | {"output": "甲_合作"}]), task="triples")
    assert broken.reasons == ["triple_of_2_parts"]
    many = [rows[0] | {"input": f"第{n}句"} for n in range(20)]
    for order in ([*many, rows[0] | {"output": "没有三元组"}], [rows[0] | {"output": "没有三元组"}, *many]):
        assert read(write(tmp_path / "c.json", order)).reasons == ["triple_of_1_parts"]


def test_triples_as_a_table(tmp_path):
    rows = [
        "甲\t乙\tunknown\t甲和乙",
        "甲\t丙\t合作\t甲与丙合作，甲持股丁",
        "甲\t乙\tNA\t甲和乙",
        "甲\t丁\t持股\t甲与丙合作，甲持股丁",
    ]
    result = read(write(tmp_path / "a.txt", "\r\n\r\n".join(rows) + "\r\n"))
    assert [result.contents(n) for n in (0, 1)] == [["甲和乙", ""], ["甲与丙合作，甲持股丁", "甲_合作_丙\n甲_持股_丁"]]
    assert result.records[0]["task"] == "triples"
    backwards = read(write(tmp_path / "b.txt", "\n".join(reversed(rows))))
    assert sorted(r["id"][-12:] for r in backwards.records) == sorted(r["id"][-12:] for r in result.records)


def test_deepke(tmp_path):
    task = {
        "instruction": "请按照JSON字符串的格式回答。",
        "schema": ["作者", {"predicate": "连载网站"}],
        "input": "甲在丙连载，作者乙",
    }
    rows = [
        {
            "instruction": json.dumps(task),
            "output": json.dumps({"作者": [{"subject": "甲", "object": "乙"}], "号": []}),
        },
        {"instruction": json.dumps(task), "label": json.dumps([{"head": "甲", "relation": "连载网站", "tail": "丙"}])},
        {"instruction": json.dumps(task), "output": json.dumps({"作者": []})},
        {"instruction": json.dumps(task), "output": "{broken"},
    ]
    result = read(write(tmp_path / "a.json", lines(*rows)))
    assert [result.contents(n)[-1] for n in range(3)] == ["甲_作者_乙", "甲_连载网站_丙", ""]
    assert "关系：作者、连载网站。\n甲在丙连载" in result.contents(0)[0]
    assert "JSON" not in result.contents(0)[0]
    assert result.compared[0] == ("", "甲在丙连载,作者乙")
    assert result.reasons == ["triples_unreadable"]


MEDQUAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<Document id="1"><Focus>x</Focus><QAPairs><QAPair pid="1">'
    "<Question qid='1-1'>What is X ?</Question><Answer>Key Points\n   - a &lt; b</Answer></QAPair>"
    "<QAPair pid='2'><Question>What helps ?</Question><Answer/></QAPair></QAPairs></Document>"
)


def test_xml(tmp_path):
    result = read(write(tmp_path / "a.xml", MEDQUAD))
    assert result.contents() == ["What is X ?", "Key Points\n   - a < b"]
    assert result.reasons == ["empty_answer"]
    inner = MEDQUAD.replace("What is X ?", "What is <i>X</i> ?")
    assert read(write(tmp_path / "d.xml", inner)).contents()[0] == "What is X ?"
    assert read(write(tmp_path / "b.xml", MEDQUAD[:-40])).reasons == ["broken_xml"]
    bomb = '<!DOCTYPE d [<!ENTITY a "b">]><Document><QAPair><Question>&a;</Question></QAPair></Document>'
    assert read(write(tmp_path / "c.xml", bomb)).reasons == ["xml_with_a_dtd"]


def test_one_object_keyed_by_id(tmp_path):
    rows = {
        str(n): {"QUESTION": f"问{n}", "CONTEXTS": ["甲", "乙"], "LONG_ANSWER": "答", "final_decision": "yes"}
        for n in range(3)
    }
    for indent in (None, 4):
        path = write(tmp_path / "a.json", json.dumps(rows, ensure_ascii=False, indent=indent))
        result = read(path)
        assert [result.contents(n) for n in range(3)] == [[f"问{n}", "答"] for n in range(3)]
        assert result.records[1]["origin"] == 'a.json:["1"]'
    mapped = read(path, columns={"answer": "final_decision"}, template="{CONTEXTS}\n{question}", task="label")
    assert mapped.contents() == ["甲\n乙\n问0", "yes"]
    assert mapped.compared[0] == ("", "问0")


def test_parquet_and_arrow(tmp_path):
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_list([{"question": f"问{n}", "answer": "答", "note": None} for n in range(5)])
    table.to_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet").contents(4) == ["问4", "答"]
    table.save_to_disk(tmp_path / "saved")
    saved = read(tmp_path / "saved")
    assert len(saved.records) == 5
    assert {name.rpartition("/")[2] for name in saved.tally.skipped} == {"dataset_info.json", "state.json"}
    torn = write(tmp_path / "torn.parquet", (tmp_path / "a.parquet").read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"torn.parquet can't be read as Parquet"):
        read(torn)


def test_a_dataset_folder_and_a_hub_id(tmp_path):
    write(tmp_path / "set/train.jsonl", lines(PAIR, PAIR | {"query": "二"}))
    result = read(tmp_path / "set", format="hub")
    assert [result.contents(n)[0] for n in (0, 1)] == ["感冒怎么办", "二"]
    assert result.records[0]["origin"] == "set:train[0]"
    with pytest.raises(ValueError, match="revision is None, expected the 40 hexadecimal digits"):
        read(tmp_path / "owner-name", format="hub")
    with pytest.raises(ValueError, match="can't be read"):
        read(tmp_path / "owner-name", format="hub", revision="0" * 40)


def test_every_broken_row_is_rejected_with_its_reason_and_the_rest_read(tmp_path):
    good = '{"query": "问", "response": "答"}'
    bad = {
        '{"query": "问", "response": 答"}': "broken_json",
        '{"query": "问", "response": "答",}': "broken_json",
        '// {"query": "问", "response": "答"}': "broken_json",
        '{"query": "问"}': "no_answer_field",
        '{"response": "答"}': "no_question_field",
        '{"query": " ", "response": "答"}': "empty_question",
        '{"query": "问", "response": ""}': "empty_answer",
        '{"query": ["问", "二"], "response": "答"}': "question_not_text",
        '{"query": "问", "response": true}': "answer_not_text",
        '{"query": "问\ufffd", "response": "答"}': "broken_characters_in_user",
        '{"query": "问", "response": "\\ud800"}': "broken_characters_in_assistant",
        '{"query": "问", "response": "\\u0000"}': "broken_characters_in_assistant",
        '{"query": "问", "response": "答", "system": "\\ud800"}': "broken_characters_in_system",
        '["问", "答"]': "not_an_object",
        '"问"': "not_an_object",
        "[" * 5000: "broken_json",
    }
    path = write(tmp_path / "raw.jsonl", "\n".join([good, *bad, "", good, '{"query": "问", "resp']))
    result = read(path)
    assert result.reasons == [*bad.values(), "broken_json"]
    assert result.rejects[0]["origin"] == "raw.jsonl:2"
    assert result.rejects[0]["raw"].strip() == next(iter(bad))
    assert len(result.records) == 2


def test_bytes_that_do_not_decode_cost_their_row_only(tmp_path):
    rows = [lines({"query": f"问题{n}怎么办呢", "response": "答"}).encode() for n in range(30)]
    rows[7] = rows[7].replace("题".encode(), "题".encode()[:2])
    result = read(write(tmp_path / "raw.jsonl", b"".join(rows)))
    assert result.reasons == ["broken_characters_in_user"]
    assert result.rejects[0]["origin"] == "raw.jsonl:8"
    assert len(result.records) == 29


ARRAY = [{"instruction": f"问{n}", "input": "", "output": f"答{n}"} for n in range(6)]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"output": "答2"', '"output": 答2"', "broken_json"),
        ('"output": "答2"', '"output": "答2', "broken_json"),
        ('"output": "答2"', '"output": "答2",', "broken_json"),
        ('"output": "答2"', '"output": "答2" // 注', "broken_json"),
        ('"instruction": "问2"', "instruction: 问2", "broken_json"),
    ],
)
def test_a_broken_record_of_an_array_costs_itself_only(tmp_path, indent, old, new, reason):
    whole = json.dumps(ARRAY, ensure_ascii=False, indent=indent)
    result = read(write(tmp_path / "raw.json", whole.replace(old, new)))
    assert result.reasons == [reason]
    assert result.rejects[0]["origin"] == "raw.json:[2]"
    assert [result.contents(n)[0] for n in range(5)] == ["问0", "问1", "问3", "问4", "问5"]


HISTORY = [
    {"query": f"问{n}", "response": f"答{n}", "history": [{"query": "早", "response": "好"}] * 2} for n in range(6)
]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("number", [0, 2, 5])
def test_what_is_nested_in_a_broken_record_is_no_record(tmp_path, indent, number):
    if number == 0 and indent is None:
        pytest.skip("on one line, and without a whole record before it, nothing tells the nested one from a record")
    for rows, key in (
        (HISTORY, "response"),
        ([{"conversations": CHATS["sharegpt"]["conversations"], "id": f"答{n}"} for n in range(6)], "id"),
    ):
        whole = json.dumps(rows, ensure_ascii=False, indent=indent)
        result = read(write(tmp_path / "raw.json", whole.replace(f'"{key}": "答{number}"', f'"{key}": 答{number}"')))
        assert (len(result.records), result.reasons) == (5, ["broken_json"])


def test_stray_brackets_cost_nothing_else(tmp_path):
    first, second = (json.dumps(ARRAY[part], ensure_ascii=False) for part in (slice(0, 3), slice(3, 6)))
    joined = read(write(tmp_path / "a.json", first + "\n" + second))
    assert (len(joined.records), joined.reasons) == (6, [])
    stray = read(write(tmp_path / "b.json", first[:-1] + "}}, " + second[1:]))
    assert (len(stray.records), set(stray.reasons)) == (6, {"stray_bracket"})
    early = read(write(tmp_path / "c.json", first + ", " + second[1:]))
    assert (len(early.records), early.reasons) == (6, ["stray_bracket"])


def test_two_broken_records_the_first_and_the_last(tmp_path):
    whole = json.dumps(ARRAY, ensure_ascii=False)
    for name in ("答0", "答1", "答5"):
        whole = whole.replace(f'"{name}"', f'{name}"')
    result = read(write(tmp_path / "raw.json", whole))
    assert len(result.records) == 3
    assert result.reasons == ["broken_json"] * 3


@pytest.mark.parametrize("cut", [1, 2, 12, 30])
def test_an_array_that_ends_early(tmp_path, cut):
    result = read(write(tmp_path / "raw.json", json.dumps(ARRAY, ensure_ascii=False)[:-cut]))
    assert len(result.records) == (6 if cut == 1 else 5)
    assert result.reasons == ([] if cut == 1 else ["broken_json"])


def test_commas_and_comments_between_records(tmp_path):
    body = ",\n// 一段说明\n".join(json.dumps(row, ensure_ascii=False) for row in ARRAY)
    result = read(write(tmp_path / "raw.json", f"// 头\n[\n{body},\n]\n"))
    assert len(result.records) == 6
    assert result.reasons == ["comment"] * 5
    block = read(
        write(tmp_path / "c.json", "/* 头 */ [" + json.dumps(ARRAY[0]) + "/* 尾 */, " + json.dumps(ARRAY[1]) + "]")
    )
    assert (len(block.records), block.reasons) == (2, ["comment"])
    assert read(write(tmp_path / "b.json", f"{json.dumps(ARRAY)}\nrest")).reasons == ["text_after_the_end"]


def test_records_that_lie_across_blocks(tmp_path, monkeypatch):
    whole = json.dumps(ARRAY, ensure_ascii=False, indent=1).replace('"答2"', '答2"')
    monkeypatch.setattr("tuneline.data.readers.json_text.HEAD", 7)
    result = read(write(tmp_path / "raw.json", whole))
    assert len(result.records) == 5
    assert result.reasons == ["broken_json"]


def test_a_line_that_is_too_long_is_kept_in_part_with_its_hash(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "LONGEST", 100_000)
    content = lines(PAIR) + '{"query": "' + "x" * 450_000 + '", "response": "y"}\n' + lines(PAIR | {"query": "二"})
    result = read(write(tmp_path / "raw.jsonl", content))
    (reject,) = result.rejects
    assert reject["reason"] == "longer_than_100000_characters"
    assert len(reject["raw"]) == 64 * 1024
    assert reject["sha256"] == hashlib.sha256(content.split("\n")[1].encode() + b"\n").hexdigest()
    assert [result.contents(n)[0] for n in (0, 1)] == ["感冒怎么办", "二"]


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
    chat = write(tmp_path / "c.jsonl", lines(CHATS["openai"]))
    assert read(chat, template="请回答：{question}").contents()[1] == "请回答：问"
    alpaca = write(tmp_path / "b.jsonl", lines({"instruction": "翻译", "input": "天气", "output": "weather"}))
    assert read(alpaca, template="{question}！").reasons == ["unmapped_input"]


def test_placeholders_are_filled_or_reported(tmp_path):
    path = write(tmp_path / "raw.jsonl", lines({"query": "你是谁", "response": "我是{{name}}，由<AUTHOR>开发"}))
    result = read(path, {"placeholders": {"name": "小航"}})
    assert result.contents()[1] == "我是小航，由<AUTHOR>开发"
    assert result.tally.placeholders == {"<AUTHOR>": 1}
    assert read(path, {"placeholders": {"NAME": "小航", "author": "我们"}}).contents()[1] == "我是小航，由我们开发"


def test_repairs_are_named_and_counted_and_only_those(tmp_path):
    row = {"query": " 3 &gt; 2 对吗 http://x.cn/?a=1&copy=2\n", "response": "<p>对</p><eoa>\n"}
    path = write(tmp_path / "raw.jsonl", lines(row))
    assert read(path, {"repairs": []}).contents() == [row["query"], row["response"]]
    result = read(path, {"repairs": ["trim", "html_entities", "end_marker", "html_tags"]})
    assert result.contents() == ["3 > 2 对吗 http://x.cn/?a=1&copy=2", "对"]
    assert result.tally.repairs == {"trim": 1, "html_entities": 1, "end_marker": 1, "html_tags": 1}


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "empty"), (b" \n", "empty"), (b"\xff\xff\xfe\xff" * 9, "iconv")]
)
def test_a_file_that_holds_nothing_or_no_text(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path / "raw.csv", content))


def test_a_missing_file_and_an_unknown_format(tmp_path):
    with pytest.raises(ValueError, match=r"path 'none.csv' is no file in"):
        read(tmp_path / "none.csv")
    for content in (
        "just a sentence, with a comma\n",
        "[a link](b) of some notes\n",
        '{"identity": {"file_name": "a"}}',
    ):
        with pytest.raises(ValueError, match="no reader knows this format"):
            read(write(tmp_path / "prose.txt", content))


def test_a_format_that_was_named_is_not_told_from_content(tmp_path):
    path = write(tmp_path / "raw.txt", "甲,乙\n问,答\n")
    assert read(path, format="table", columns={"question": "甲", "answer": "乙"}).contents() == ["问", "答"]


def test_a_format_that_does_not_fit_is_an_error(tmp_path):
    path = write(tmp_path / "raw.txt", "prose\n")
    with pytest.raises(ValueError, match="expected an array or objects: format json does not fit"):
        read(path, format="json")
    assert read(path, format="json_lines").reasons == ["broken_json"]
    assert read(path, format="xml").reasons == ["broken_xml"]
    assert read(path, format="transcript").reasons == ["no_turns"]
    assert read(path, format="dialogue").reasons == ["broken_dialogue"]
    assert read(path, format="relations").reasons == ["1_cells_not_4"]
    assert read(path, format="blocks").reasons == ["block_of_1_lines"]
    with pytest.raises(ValueError, match="can't be read as Parquet or Arrow"):
        read(path, format="columnar")


def test_a_whole_file_that_is_too_long_is_one_reject(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "LONGEST", 1000)
    (reject,) = read(write(tmp_path / "a.txt", "来访者：" + "长" * 3000)).rejects
    assert reject["reason"] == "longer_than_1000_characters"
    assert reject["sha256"] == hashlib.sha256(("来访者：" + "长" * 3000).encode()).hexdigest()


def test_the_shipped_medical_sample_is_whole():
    result = read(ROOT / "data/raw/medical.csv")
    assert len(result.records) >= 60
    assert result.rejects == []
    assert len({tail for _, tail in result.compared}) == len(result.records)
    with pytest.raises(UnicodeDecodeError):
        (ROOT / "data/raw/medical.csv").read_text(encoding="utf-8")
