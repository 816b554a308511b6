"""Raw JSON: lines and arrays detected from content, and a broken record costs itself only."""

import hashlib
import json

import pytest

from tests.helpers.raw_rows import ARRAY, DIALOGUES, PAIR
from tests.helpers.reading import lines, read, write
from tuneline.data.readers import text


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
    assert [next(iter(result.counts.formats)) for result in results] == ["json_lines", "json", "json", "json"]
    assert results[1].records[1]["origin"] == "b.jsonl:[1]"


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
        ([{"conversations": DIALOGUES["sharegpt"]["conversations"], "id": f"答{n}"} for n in range(6)], "id"),
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
    monkeypatch.setattr(text, "MAX_RECORD", 100_000)
    content = lines(PAIR) + '{"query": "' + "x" * 450_000 + '", "response": "y"}\n' + lines(PAIR | {"query": "二"})
    result = read(write(tmp_path / "raw.jsonl", content))
    (reject,) = result.rejects
    assert reject["reason"] == "longer_than_100000_characters"
    assert len(reject["raw"]) == 64 * 1024
    assert reject["sha256"] == hashlib.sha256(content.split("\n")[1].encode() + b"\n").hexdigest()
    assert [result.contents(n)[0] for n in (0, 1)] == ["感冒怎么办", "二"]


def test_one_object_keyed_by_id(tmp_path):
    rows = {
        str(n): {"QUESTION": f"问{n}", "CONTEXTS": ["甲", "乙"], "LONG_ANSWER": "答", "final_decision": "yes"}
        for n in range(3)
    }
    for indent in (None, 4):
        path = write(tmp_path / "a.json", json.dumps(rows, ensure_ascii=False, indent=indent))
        result = read(path)
        assert [result.contents(n) for n in range(3)] == [[f"甲\n乙\n问{n}", "答"] for n in range(3)]
        assert result.records[1]["origin"] == 'a.json:["1"]'
    mapped = read(path, columns={"answer": "final_decision"}, template="{CONTEXTS}\n{question}", task="label")
    assert mapped.contents() == ["甲\n乙\n问0", "yes"]
    assert mapped.compared[0] == ("", "问0")
