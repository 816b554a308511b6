"""Triples to extract: as lines, as a table, and as DeepKE has them."""

import json

from tests.helpers.reading import lines, read, write


def test_triples_as_lines(tmp_path):
    rows = [
        {"instruction": "抽取", "input": "甲和乙合作", "output": "甲_合作_乙\n甲_合作_乙"},
        {"instruction": "抽取", "input": "什么也没有", "output": ""},
        {"instruction": "抽取", "input": "甲持股乙", "output": "甲_持股_乙"},
    ]
    result = read(write(tmp_path / "a.json", rows))
    assert [record["task"] for record in result.records] == ["triples"] * 3
    assert [result.contents(n)[-1] for n in range(3)] == ["甲_合作_乙", "", "甲_持股_乙"]
    assert result.counts.repairs == {"repeated_triples": 1}
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
