"""Shapes in which questions and answers come: recognised unasked, or read by what the source says, or told how."""

import gzip
import io
import json
import re
import zipfile

import pytest

from tests.helpers.reading import lines, read, write

ROWS = [(f"第{number}个问题是什么", f"第{number}个回答在这里。") for number in range(4)]
EXPECTED = [list(row) for row in ROWS]


def contents(result):
    return [result.contents(number) for number in range(len(result.records))]


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("content", "summary"), ("问", "答"), ("q", "a"), ("Q", "A"), ("context", "target"), ("question", "answers"),
        ("Open-ended Verifiable Question", "Ground-True Answer"), ("题目", "标准答案"), ("src", "tgt"), ("ask", "reply"),
    ],
)  # fmt: skip
def test_names_of_public_sets_are_known(tmp_path, asked, answered):
    rows = [{asked: question, answered: answer} for question, answer in ROWS]
    for path in (
        write(tmp_path / "a.jsonl", lines(*rows)),
        write(tmp_path / "b.json", rows),
        write(tmp_path / "c.json", {"version": 1, "data": rows, "note": "x"}),
        write(tmp_path / "d.json", json.dumps({"train": rows[:2], "n": {"a": [1]}, "test": rows[2:]}, indent=1)),
        write(tmp_path / "e.csv", f"{asked},{answered}\n" + "".join(f"{q},{a}\n" for q, a in ROWS)),
    ):
        result = read(path)
        assert (contents(result), result.rejects, result.counts.unused) == (EXPECTED, [], {})


@pytest.mark.parametrize("format_", ["auto", "named"])
def test_columns_are_obeyed_in_every_format(tmp_path, format_):
    datasets = pytest.importorskip("datasets")
    rows = [{"标题": question, "正文": answer, "编号": number} for number, (question, answer) in enumerate(ROWS)]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "e.parquet")
    paths = {
        "table": write(tmp_path / "a.tsv", "标题\t正文\t编号\n" + "".join(f"{q}\t{a}\t1\n" for q, a in ROWS)),
        "json_lines": write(tmp_path / "b.jsonl", lines(*rows)),
        "json": write(tmp_path / "c.json", {"data": rows}),
        "columnar": tmp_path / "e.parquet",
    }
    for name, path in paths.items():
        options = {} if format_ == "auto" else {"format": name}
        result = read(path, columns={"question": "标题", "answer": "正文"}, **options)
        assert (contents(result), result.counts.unused) == (EXPECTED, {"编号": 4})


def test_columns_may_be_paths_and_numbers(tmp_path):
    rows = [{"a": [{"b": question, "c": "别的"}], "d": {"e": answer}} for question, answer in ROWS]
    result = read(write(tmp_path / "a.jsonl", lines(*rows)), columns={"question": "a.0.b", "answer": "d.e"})
    assert (contents(result), result.counts.unused) == (EXPECTED, {"a.0.c": 4})
    path = write(tmp_path / "b.csv", "".join(f"x,{q},{a}\n" for q, a in ROWS))
    result = read(path, columns={"question": 1, "answer": 2})
    assert (contents(result), result.counts.unused) == (EXPECTED, {"0": 4})


def test_a_table_without_a_header(tmp_path):
    path = write(tmp_path / "a.tsv", "".join(f"{q}\t{a}\n" for q, a in ROWS))
    assert contents(read(path)) == EXPECTED
    with pytest.raises(
        ValueError, match=r"records hold 题 \(“.*”\), 解 .*write `columns: \{question: 题, answer: 解\}`"
    ):
        read(write(tmp_path / "b.tsv", "题\t解\n" + "".join(f"{q}\t{a}\n" for q, a in ROWS)))


def test_an_unknown_shape_is_told_with_what_makes_it_readable(tmp_path):
    row = {"编号": 7, "标题": "头痛怎么办", "内容": {"正文": "多休息，" * 30}}
    with pytest.raises(ValueError, match=r"编号 \(“7”\), 标题 \(“头痛怎么办”\), 内容 \(“.{24}…”\)") as error:
        read(write(tmp_path / "a.jsonl", lines(row, row)))
    assert "`columns: {question: 标题, answer: 内容.正文}`" in str(error.value)
    result = read(tmp_path / "a.jsonl", columns={"question": "标题", "answer": "内容.正文"})
    assert (contents(result)[0][0], result.rejects) == ("头痛怎么办", [])


def test_two_lines_to_a_pair(tmp_path):
    path = write(tmp_path / "a.txt", "\n".join(f"{q}\n{a}\n" for q, a in ROWS) + "没有回答")
    result = read(path, format="line_pairs")
    assert (contents(result), result.reasons) == (EXPECTED, ["question_without_answer"])


@pytest.mark.parametrize("pack", ["gz", "zip", "both"])
def test_packed_files(tmp_path, pack):
    content = lines(*({"question": q, "answer": a} for q, a in ROWS))
    packed = gzip.compress(content.encode())
    if pack == "gz":
        path = write(tmp_path / "a.jsonl.gz", packed)
    else:
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(
                "set/train.jsonl" if pack == "zip" else "set/train.jsonl.gz", content if pack == "zip" else packed
            )
            archive.writestr("LICENSE", "Creative Commons, with some words")
    result = read(path)
    assert contents(result) == EXPECTED
    inside = {"gz": "", "zip": "/set/train.jsonl", "both": "/set/train.jsonl.gz"}[pack]
    assert result.records[0]["origin"] == f"{path.name}{inside}:1"
    assert result.counts.skipped == ([] if pack == "gz" else ["a.zip/LICENSE"])
    torn = write(tmp_path / "torn.jsonl.gz", packed[:-20])
    with pytest.raises(ValueError, match="can't be unpacked.*pack it again"):
        read(torn)


def test_what_is_torn_in_an_archive_has_its_name_there(tmp_path):
    torn = b"PAR1" + b"0" * 100
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("b.parquet.gz", gzip.compress(torn)[:-20])
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("set/a.parquet", torn)
        archive.writestr("set/inner.zip", inner.getvalue())
    rejects = read(path).rejects
    assert [reject["raw"].partition(" can't be ")[0] for reject in rejects] == [
        f"{path}/set/a.parquet",
        f"{path}/set/inner.zip/b.parquet.gz",
    ]
    assert read(path).rejects == rejects
    packed = write(tmp_path / "named.parquet.gz", gzip.compress(torn))
    with pytest.raises(ValueError, match=rf"^{re.escape(str(packed))} can't be read"):
        read(packed)


def test_workbooks(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [
        ("编号", "问题", "答案"),
        *((number + 1.0, q, a) for number, (q, a) in enumerate(ROWS)),
        (None, None, None),
    ]:
        book.active.append(row)
    book.create_sheet("第二页").append(("q", "a"))
    book["第二页"].append(("二", 3.5))
    book.save(tmp_path / "a.xlsx")
    result = read(tmp_path / "a.xlsx")
    assert contents(result) == [*EXPECTED, ["二", "3.5"]]
    assert (result.records[0]["origin"], result.counts.unused) == ("a.xlsx:Sheet!2", {"编号": 4})
    by_number = read(tmp_path / "a.xlsx", columns={"question": 1, "answer": 2})
    assert contents(by_number)[1:5] == EXPECTED


SPOKEN = {
    "lines": {"data": ["问：你好", "答：您好", "问：疼", "答：休息"]},
    "history": {"query": "你好", "history": ["[客户] 你好", "[律师] 您好", "[客户] 疼", "[律师] 休息"]},
    "numbered": {"1": {"问": "你好", "答": "您好"}, "2": {"问": "疼", "答": "休息"}},
    "numbered inside": {"dialog": {"round_2": {"user": "疼", "bot": "休息"}, "round_1": {"user": "你好", "bot": "您好"}}},
    "letters": {"dialog": "<Round 1>\n<B>: 你好\n<A>: 您好\n\n<Round 2>\n<B>: 疼\n<A>: 休息\n"},
    "speakers in one text": {"conversation": "患者：你好\n医生：您好\n患者：疼\n医生：休息"},
    "lines without speakers": {"dialog": ["你好", "您好", "疼", "休息"]},
    "history beside messages": {"messages": [{"role": "user", "content": "疼"}, {"role": "assistant", "content": "休息"}],
                                "history": [["你好", "您好"]]},
    "a list of texts": ["问：你好", "答：您好", "问：疼", "答：休息"],
}  # fmt: skip


@pytest.mark.parametrize("name", SPOKEN)
def test_dialogues_as_text_and_as_numbered_objects(tmp_path, name):
    result = read(write(tmp_path / "a.jsonl", lines(SPOKEN[name], SPOKEN[name])), format="json_lines")
    assert contents(result) == [["你好", "您好", "疼", "休息"]] * 2
    assert (result.roles(), result.counts.unused) == ("uaua", {})
    if not isinstance(SPOKEN[name], list):
        assert contents(read(tmp_path / "a.jsonl")) == contents(result)


ONE = "患者：你好\n医生：您好\n"
TWO = ONE + "患者：疼\n医生：休息\n"


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        (f"{TWO}-----\n{ONE}", [4, 2]), (f"对话 1\n{TWO}\n对话 2\n{ONE}", [4, 2]), (f"{TWO}\n{ONE}\n{TWO}", [4, 2, 4]),
        (f"{ONE}\n{ONE}", [4]), (TWO, [4]), ("问：一\n答：二\n问：三\n答：四", [2, 2]),
        ("问：一\n\n答：二\n\n问：三\n\n答：四", [2, 2]),
        ("Q: a\nA: b\n\nQ: c\nA: d\nmore", [2, 2]),
        ("<Round 1>\n<B>: 一\n<A>: 二\n<Round 2>\n<B>: 三\n<A>: 四\n<Round 1>\n<B>: 五\n<A>: 六", [4, 2]),
    ],
)  # fmt: skip
def test_several_dialogues_in_one_text(tmp_path, text, sizes):
    result = read(write(tmp_path / "a.txt", text))
    assert [len(record["messages"]) for record in result.records] == sizes
    assert result.rejects == []


def test_text_before_the_first_speaker_is_counted(tmp_path):
    result = read(write(tmp_path / "a.txt", f"案例来自门诊\n{TWO}"), format="transcript")
    assert (len(result.records), result.counts.unused) == (1, {"preface": 1})


def test_paragraphs_with_questions_below_them(tmp_path):
    questions = [
        {"question": f"问{n}", "id": n, "answers": [{"text": f"答{n}", "answer_start": 0}] * 2} for n in range(3)
    ]
    article = {
        "title": "标题",
        "paragraphs": [{"context": "材料甲", "qas": questions[:2]}, {"context": "材料乙", "qas": questions[2:]}],
    }
    for path in (
        write(tmp_path / "a.json", {"version": "1", "data": [article]}),
        write(tmp_path / "b.json", [article]),
    ):
        result = read(path)
        assert contents(result) == [["材料甲\n问0", "答0"], ["材料甲\n问1", "答1"], ["材料乙\n问2", "答2"]]
        assert result.counts.repairs == {"repeated_answers": 3}
    race = {
        "article": "文章",
        "questions": ["一?", "二?"],
        "options": [["甲", "乙"], ["丙", "丁"]],
        "answers": ["A", "B"],
    }
    result = read(write(tmp_path / "c.jsonl", lines(race, race)))
    assert contents(result)[:2] == [["文章\n一?\nA. 甲\nB. 乙", "A"], ["文章\n二?\nA. 丙\nB. 丁", "B"]]
    assert result.records[0]["task"] == "label"


@pytest.mark.parametrize(
    ("choices", "shown"),
    [
        ({"option": {"A": "甲", "B": "乙", "C": ""}}, "A. 甲\nB. 乙"), ({"choices": ["甲", "乙"]}, "A. 甲\nB. 乙"),
        ({"options": ["A. 甲", "B. 乙"]}, "A. 甲\nB. 乙"), ({"选项": "A 甲\nB 乙"}, "A 甲\nB 乙"),
        ({"options": [{"key": "A", "value": "甲"}, {"key": "B", "value": "乙"}]}, "A. 甲\nB. 乙"),
        ({"choices": {"label": ["A", "B"], "text": ["甲", "乙"]}}, "A. 甲\nB. 乙"),
        ({"optionA": "甲", "optionB": "乙"}, "A. 甲\nB. 乙"), ({"options": '{"A": "甲", "B": "乙"}'}, "A. 甲\nB. 乙"),
    ],
)  # fmt: skip
def test_choices_are_part_of_the_question_however_they_are_written(tmp_path, choices, shown):
    row = {"question": "哪个对？", **choices, "answer": "B"}
    result = read(write(tmp_path / "a.jsonl", lines(row, row | {"answer": ["A", "B"]})))
    assert contents(result) == [[f"哪个对？\n{shown}", "B"], [f"哪个对？\n{shown}", "A、B"]]
    assert [record["task"] for record in result.records] == ["label", "labels"]


def test_entities_and_triples_of_public_sets(tmp_path):
    text = "叶老桂在北京"
    rows = [
        {"text": text, "label": {"人名": {"叶老桂": [[0, 2]]}, "地点": {"北京": [[4, 5]]}}},
        {"text": text, "entities": [{"start_idx": 0, "end_idx": 2, "type": "人名", "entity": "叶老桂"},
                                    {"start_idx": 4, "end_idx": 5, "type": "地点", "entity": "北京"}]},
        {"text": text, "label": [[4, 6, "地点"], [0, 3, "人名"]]},
    ]  # fmt: skip
    result = read(write(tmp_path / "a.jsonl", lines(*rows)))
    assert contents(result) == [[text, "人名:叶老桂\n地点:北京"]] * 3
    duie = {
        "text": "《战狼》票房五亿，中国",
        "spo_list": [{"subject": "战狼", "predicate": "票房", "object": {"@value": "五亿", "inArea": "中国"}}],
    }
    result = read(write(tmp_path / "b.jsonl", lines(duie)))
    assert result.contents()[1] == "战狼_票房_五亿\n战狼_票房.inArea_中国"


@pytest.mark.parametrize("value", ["nan", "NaN", float("nan"), None, "null", "", "None"])
def test_missing_values_are_no_text(tmp_path, value):
    row = {"instruction": "问", "input": value, "output": "答", "system": value, "history": value}
    result = read(write(tmp_path / "a.jsonl", lines(row)))
    assert (contents(result), result.rejects) == ([["问", "答"]], [])
    assert bool(result.counts.repairs) == (value not in (None, ""))


@pytest.mark.parametrize("history", [[], [[]], [["", ""]], "[]", "nan"])
def test_an_empty_history_and_an_empty_system_message_are_none(tmp_path, history):
    row = {"query": "问", "response": "答", "history": history}
    assert contents(read(write(tmp_path / "a.jsonl", lines(row)))) == [["问", "答"]]
    for content in ("", None, "  "):
        chat = {
            "messages": [
                {"role": "system", "content": content},
                {"role": "user", "content": "问"},
                {"role": "assistant", "content": "答"},
            ]
        }
        result = read(write(tmp_path / "b.jsonl", lines(chat)))
        assert (contents(result), result.counts.repairs) == ([["问", "答"]], {"empty_system": 1})


@pytest.mark.parametrize(
    "output",
    [
        "甲_在_乙",
        "(甲,在,乙)", "（甲，在，乙）", "<甲,在,乙>", [["甲", "在", "乙"]], '[["甲", "在", "乙"]]', "[('甲', '在', '乙')]",
        [{"head": "甲", "relation": "在", "tail": "乙"}], '[{"subject": "甲", "predicate": "在", "object": "乙"}]',
    ],
    ids=str,
)  # fmt: skip
def test_triples_however_they_are_written(tmp_path, output):
    rows = [{"instruction": "抽取", "input": f"甲在乙{n}", "output": output} for n in range(9)]
    nothing = "无" if isinstance(output, str) else []
    result = read(write(tmp_path / "a.jsonl", lines(*rows, rows[0] | {"output": nothing})))
    assert ([record["task"] for record in result.records], result.rejects) == (["triples"] * 10, [])
    assert [result.contents(0)[1], result.contents(9)[1]] == ["甲_在_乙", ""]


def test_several_labels_stay_several(tmp_path):
    rows = [
        {"text": "头痛", "label": ["内科", "外科"]},
        {"text": "脚痛", "labels": ["外科"]},
        {"text": "无恙", "labels": []},
    ]
    result = read(write(tmp_path / "a.jsonl", lines(*rows)))
    assert [(record["task"], record["messages"][1]["content"]) for record in result.records] == [
        ("labels", "内科、外科"), ("labels", "外科"), ("labels", ""),
    ]  # fmt: skip


def test_other_names_of_speakers_and_prompts_that_are_completed(tmp_path):
    assert read(write(tmp_path / "a.jsonl", lines({"user": "问", "bot": "答"}))).contents() == ["问", "答"]
    chat = [
        {"role": "developer", "content": "你"},
        {"role": "user", "content": "问"},
        {"role": "assistant", "content": "答"},
    ]
    assert read(write(tmp_path / "b.jsonl", lines({"messages": chat}))).roles() == "sua"
    assert read(write(tmp_path / "c.jsonl", lines({"prompt": chat[1:2], "completion": chat[2:]}))).contents() == [
        "问",
        "答",
    ]
    dialogue = write(tmp_path / "d.json", [["问", "答"], ["一", "二", "三", "四"]])
    assert contents(read(dialogue, format="json")) == [["问", "答"], ["一", "二", "三", "四"]]
    with pytest.raises(ValueError, match="write `format: json`"):
        read(dialogue)


def test_a_list_of_relations_beside_an_answer_is_no_answer(tmp_path):
    row = {"question": "问", "answer": "答", "relations": ["上级", "下级"]}
    result = read(write(tmp_path / "a.jsonl", lines(row)))
    assert (contents(result), result.counts.unused) == ([["问", "答"]], {"relations": 1})
    assert (
        read(write(tmp_path / "b.jsonl", lines({"text": "甲", "relations": [["甲", "在", "乙"]]}))).contents()[1]
        == "甲_在_乙"
    )


def test_a_question_that_is_an_object_is_told_with_its_path(tmp_path):
    row = {"question": {"stem": "哪个对", "id": 3}, "answer": "甲"}
    result = read(write(tmp_path / "a.jsonl", lines(row)))
    assert result.reasons == ["question_not_text"]
    assert "`columns: {question: question.stem, answer: answer}`" in result.counts.seen
    assert contents(read(tmp_path / "a.jsonl", columns={"question": "question.stem"})) == [["哪个对", "甲"]]


@pytest.mark.parametrize("value", ["nan", "NaN", "<NA>", float("nan")])
def test_a_missing_value_is_one_in_any_field(tmp_path, value):
    """In a title, a template, and an answer that may be empty."""
    row = {"title": value, "ask": "问", "answer": "答", "department": value}
    path = write(tmp_path / "a.jsonl", lines(row))
    result = read(path)
    assert (result.contents(), result.counts.repairs, result.counts.unused) == (["问", "答"], {"missing_value": 1}, {})
    assert read(path, template="{department}：{question}").contents()[0] == "：问"
    assert read(path, ignore=["title", "department"]).counts.repairs == {}
    triples = lines({"instruction": "抽取三元组", "input": "文", "output": value})
    assert read(write(tmp_path / "b.jsonl", triples), task="triples").reasons == ["empty_answer"]
