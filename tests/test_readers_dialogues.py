"""Dialogues of every kind: repaired where that is safe, rejected with a reason where it is not."""

import json

import pytest

from tests.helpers.raw_rows import DIALOGUES, PAIR
from tests.helpers.reading import lines, read, write


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_dialogue_as_text(tmp_path, end):
    talk = (
        "来访者：您好。\n\n心理咨询师：请说。\n慢慢来。\n来访者：我很焦虑\n\n心理咨询师（微笑）：我明白\n来访者：谢谢\n"
    )
    result = read(write(tmp_path / "case_1.txt", talk.replace("\n", end)))
    assert result.contents() == ["您好。", "请说。\n慢慢来。", "我很焦虑", "（微笑）我明白"]
    assert result.counts.repairs == {"dropped_last_question": 1}


def test_a_dialogue_as_text_with_brackets(tmp_path):
    result = read(write(tmp_path / "a.txt", "[客户] 能退吗\n[律师] 能\n[客户] 谢谢\n[律师] 不客气\n"))
    assert result.contents() == ["能退吗", "能", "谢谢", "不客气"]


@pytest.mark.parametrize("name", DIALOGUES)
def test_every_kind_of_dialogue(tmp_path, name):
    for result in (
        read(write(tmp_path / "a.json", lines(DIALOGUES[name], DIALOGUES[name]))),
        read(write(tmp_path / "b.json", [DIALOGUES[name]])),
    ):
        assert result.contents() == ["你", "问", "答"]
        assert result.roles() == "sua"


def test_a_folder_of_dialogues_one_to_a_file(tmp_path):
    for number in range(3):
        write(tmp_path / f"smile/{number}.json", json.dumps(DIALOGUES["smile"], indent=2))
    write(tmp_path / "smile/LICENSE", "Creative Commons\n")
    result = read(tmp_path / "smile")
    assert [record["origin"] for record in result.records] == ["smile/0.json:1", "smile/1.json:1", "smile/2.json:1"]
    assert result.records[0]["source"] == "smile"
    assert result.counts.skipped == ["smile/LICENSE"]


def turns(*pairs: tuple[str, str]) -> dict:
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


@pytest.mark.parametrize(
    ("row", "roles", "repair"),
    [
        (turns(("user", "一"), ("user", "二"), ("assistant", "三")), "ua", "merged_turns"),
        (turns(("assistant", "您好"), ("user", "一"), ("assistant", "三")), "ua", "dropped_opening_answer"),
        (turns(("user", "一"), ("assistant", "三"), ("user", "谢谢")), "ua", "dropped_last_question"),
    ],
)
def test_repairs_of_dialogues_are_counted(tmp_path, row, roles, repair):
    result = read(write(tmp_path / "a.jsonl", lines(row)))
    assert result.roles() == roles
    assert result.counts.repairs == {repair: 1}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (turns(("user", "一"), ("user", "二")), "no_answer"),
        (turns(("assistant", "一")), "no_question"),
        (turns(("user", " "), ("assistant", "一")), "empty_turn"),
        (turns(("user", "一"), ("assistant", "二"), ("system", "三")), "late_system_prompt"),
        (turns(("user", "一"), ("narrator", "二")), "unknown_speaker"),
        (turns(("user", "一"), ("tool", "{}"), ("assistant", "二")), "observation_without_call"),
        (
            {"conversations": [{"from": "human", "value": "一"}, {"from": "function_call", "value": "{}"}]},
            "call_unreadable",
        ),
        ({"messages": []}, "no_turns"),
        ({"messages": ["一"]}, "turn_not_an_object"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]}, "content_not_text"),
        ({"query": "一", "response": "二", "history": "三"}, "history_not_a_list"),
        ({"query": "一", "response": "二", "history": [["三"]]}, "history_unreadable"),
        ({"query": "一", "response": "二", "history": [["三", " "]]}, "history_unreadable"),
    ],
)
def test_dialogues_that_are_none_are_rejected(tmp_path, row, reason):
    assert read(write(tmp_path / "a.jsonl", lines(row, PAIR))).reasons == [reason]


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


def test_what_is_compared_of_a_dialogue_is_its_last_question_that_asks(tmp_path):
    talk = turns(("user", "头痛三天了怎么办"), ("assistant", "休息"), ("user", "谢谢"), ("assistant", "不客气"))
    longer = turns(
        ("user", "头痛三天了怎么办"), ("assistant", "休息"), ("user", "那要不要吃药呢"), ("assistant", "不用")
    )
    result = read(write(tmp_path / "a.jsonl", lines(talk, longer)))
    assert result.compared == [("", "头痛三天了怎么办"), ("", "头痛三天了怎么办 那要不要吃药呢")]
    longest = turns(("user", "头痛"), ("assistant", "休息"), ("user", "那么要不要吃一点药呢"), ("assistant", "不用"))
    assert read(write(tmp_path / "b.jsonl", lines(longest))).compared == [("", "那么要不要吃一点药呢")]
