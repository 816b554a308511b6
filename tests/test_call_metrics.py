"""Task tools: what a call is worth, with intervals, in the details, in the flat figures and on the page."""

import json

import pytest

from tests.helpers.evaluated import facts
from tuneline.cli.compare import join, question_of
from tuneline.evaluate.compare import change_on_general, compare, per_class_rows
from tuneline.evaluate.figures import figures
from tuneline.evaluate.report import report
from tuneline.evaluate.results import prediction_rows
from tuneline.evaluate.tasks import item_score
from tuneline.formats.calls import answer_with_calls, asked, call_text, reference_texts
from tuneline.scoring.calls import CALL_COUNTERS, call_errors

PROPERTIES = {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}}
WEATHER = {"type": "object", "properties": PROPERTIES, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": WEATHER}} for name in ("weather", "news")]


def call(name, **arguments):
    return {"name": name, "arguments": arguments}


BEIJING, SHANGHAI = call("weather", city="北京", days=2), call("weather", city="上海")


def record(number, calls, content=""):
    answer = {"role": "assistant", "content": content} | ({"tool_calls": calls} if calls else {})
    messages = [{"role": "user", "content": f"第{number}问"}, answer]
    return {"id": f"s:{number}", "source": "s", "origin": "f", "task": "tools", "tools": TOOLS, "messages": messages}


def said(record, calls=(), content="", faults=()):
    made = {
        "id": record["id"],
        "prediction": answer_with_calls(content, calls),
        "calls": list(calls),
        "call_faults": list(faults),
    }
    return made | {"stopped_at_eos": True, "batch": 0, "tokens": 5, "characters": 9, "nll": 3.0, "reachable": True}


def counted(metric, calls, wanted, faults=()):
    item = record(1, wanted, "" if wanted else "好")
    (row,) = prediction_rows([item], [said(item)], [said(item, calls, faults=faults)])
    return CALL_COUNTERS[metric](row, "tuned").get("")


@pytest.mark.parametrize(
    ("calls", "wanted", "exact", "name", "arguments"),
    [
        ([BEIJING], [BEIJING], (1, 1, 1), (1, 1, 1), (2, 2, 2)),
        ([call("weather", days=2.0, city="北京")], [BEIJING], (1, 1, 1), (1, 1, 1), (2, 2, 2)),
        ([call("weather", city="北京", days="2")], [BEIJING], (0, 1, 1), (1, 1, 1), (1, 2, 2)),
        ([call("weather", city="北京", days=True)], [call("weather", city="北京", days=1)], (0, 1, 1), (1, 1, 1), (1, 2, 2)),
        ([SHANGHAI, BEIJING], [BEIJING, SHANGHAI], (0, 1, 1), (1, 1, 1), (0, 3, 3)),
        ([call("news", city="北京")], [SHANGHAI], (0, 1, 1), (0, 1, 1), (0, 1, 1)),
        ([call("news"), SHANGHAI], [SHANGHAI, call("news")], (1, 1, 1), (1, 1, 1), (1, 1, 1)),
        ([SHANGHAI, SHANGHAI], [SHANGHAI], (0, 1, 1), (0, 1, 1), (1, 2, 1)),
        ([], [SHANGHAI], (0, 1, 1), (0, 1, 1), (0, 0, 1)),
        ([SHANGHAI], [], (0, 1, 1), (0, 1, 1), (0, 1, 0)),
        ([], [], None, None, (0, 0, 0)),
    ],
)  # fmt: skip
def test_what_counts_as_right(calls, wanted, exact, name, arguments):
    assert counted("tools_exact_match", calls, wanted) == exact
    assert counted("tools_name_accuracy", calls, wanted) == name
    assert counted("tools_arguments_f1", calls, wanted) == arguments
    assert counted("tools_call_accuracy", calls, wanted) == (int(bool(calls) == bool(wanted)), 1, 1)


def test_readable_and_valid():
    wrong = [BEIJING, call("weather"), call("play"), call("weather", city="北京", days=0)]
    assert counted("tools_readable", wrong, [BEIJING], ["a call is no JSON"]) == (4, 5, 5)
    assert counted("tools_valid", wrong, [BEIJING], ["a call is no JSON"]) == (1, 5, 5)
    assert counted("tools_exact_match", [BEIJING], [BEIJING], ["a call is no JSON"]) == (0, 1, 1)
    assert counted("tools_call_accuracy", [], [BEIJING], ["a call is no JSON"]) == (1, 1, 1)
    assert call_errors(wrong, TOOLS) == [
        "weather: 'city' is a required property",
        "play is no function, expected one of weather, news",
        "weather: 0 is less than the minimum of 1",
    ]


def test_without_definitions_none_is_broken():
    assert call_errors([BEIJING], []) == []


def test_a_definition_that_cannot_be_checked(monkeypatch):
    monkeypatch.setattr("socket.socket", None)
    for schema in ({"$ref": "http://localhost:9/x"}, {"type": "no such type"}, {"pattern": "(", "type": "string"}):
        tools = [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"x": schema}}}}]
        (error,) = call_errors([call("f", x="y")], tools)
        assert error.startswith("the definition of f can't be checked: "), schema


def test_texts_of_calls():
    assert call_text(BEIJING) == 'weather(city="北京", days=2)'
    item = record(1, [BEIJING, SHANGHAI], "查一下。")
    assert reference_texts(item) == ['查一下。\nweather(city="北京", days=2)\nweather(city="上海")']
    item["messages"] += [{"role": "tool", "content": "晴"}, {"role": "assistant", "content": "晴天。"}]
    assert asked(item) == '第1问\n→ 查一下。\nweather(city="北京", days=2)\nweather(city="上海")\n← 晴'
    assert reference_texts(item) == ["晴天。"]


def evaluated():
    """20 items, of which 16 call; the base never does, the tuned model is right in three of four."""
    records = [record(n, [call("weather", city=f"城{n}")] if n % 5 else [], "" if n % 5 else "你好") for n in range(20)]
    base = [said(item, content="<b>我不知道</b>") for item in records]
    tuned = [
        said(item, item["messages"][-1].get("tool_calls", []), item["messages"][-1]["content"])
        if n % 4
        else said(item, [call("news", place="<script>")], "", ["a call is no JSON: <i>"])
        for n, item in enumerate(records)
    ]
    return prediction_rows(records, base, tuned)


def test_an_evaluation_of_calls():
    rows = evaluated()
    metrics = compare(rows) | {"general": change_on_general(*facts().general)}
    assert json.loads(json.dumps(rows)) == rows
    # Wilson, of the 16 items that count for the base and of the 17 that count for the tuned model.
    assert metrics["base"]["tools_name_accuracy"] == {
        "value": 0.0,
        "low": 0.0,
        "high": pytest.approx(19.3608, abs=1e-3),
    }
    found, change = metrics["tuned"]["tools_name_accuracy"], metrics["delta"]["tools_name_accuracy"]
    assert found == pytest.approx({"value": 70.588, "low": 46.867, "high": 86.720}, abs=1e-3)
    assert change["low"] > 0 and change["p"] < 0.01
    assert metrics["base"]["tools_exact_match"] == metrics["base"]["tools_name_accuracy"]
    assert metrics["base"]["tools_call_accuracy"] == pytest.approx(
        {"value": 20, "low": 8.066, "high": 41.602}, abs=1e-3
    )
    # Several calls of an item are not independent: a share of calls is no share of items.
    assert metrics["base"]["tools_valid"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert (change["wins"], change["ties"], change["losses"]) == (12, 4, 1)
    assert metrics["base"]["tools_call_accuracy"]["value"] == 20 and metrics["base"]["tools_valid"]["value"] == 0
    assert metrics["tuned"]["tools_valid"]["value"] == pytest.approx(100 * 12 / 22, abs=1e-4)
    assert metrics["tuned"]["tools_readable"]["value"] == pytest.approx(100 * 17 / 22, abs=1e-4)
    assert [item_score(row, "tuned") for row in rows][:2] == [0.0, 100.0]
    assert {line["class"]: line["tuned"] for line in per_class_rows(rows)} == {
        "weather": pytest.approx(100 * 24 / 28, abs=1e-3)
    }
    flat = figures(metrics)
    assert len(flat) <= 10 and {"tools_exact_match", "tools_name_accuracy", "tools_arguments_f1"} <= set(flat)
    metrics["tasks"] |= dict.fromkeys(("triples", "entities", "labels", "label", "qa"), 1)
    others = ("triples_f1", "entities_f1", "labels_f1", "label_accuracy")
    metrics["tuned"] |= {name: {"value": 1.0} for name in others}
    assert len(figures(metrics)) <= 10 and {"tools_exact_match", *others} <= set(figures(metrics))


def test_the_page_shows_calls_and_escapes_them():
    rows = evaluated()
    metrics = compare(rows) | {"general": change_on_general(*facts().general)}
    page = report(metrics, rows, facts())
    assert "weather(city=&#34;城1&#34;)" in page.replace("&quot;", "&#34;").replace("<mark>", "").replace("</mark>", "")
    assert "<script>&#34;" not in page and "&lt;script&gt;" in page and "<b>我不知道" not in page
    assert "a call is no JSON: &lt;i&gt;" in page and "函数名正确" in page


def test_two_revisions_with_calls_are_compared():
    rows = evaluated()
    same = compare([join(row, row) for row in rows])
    assert same["base"] == same["tuned"] == compare(rows)["tuned"]
    assert question_of(rows[0]) != question_of(rows[0] | {"calls": rows[1]["calls"]})
