"""What each arrival gained or lost, in results, report and `tuneline compare`; general prompts of a team's own."""

import json
from pathlib import Path

import pytest

from tests.helpers.evaluated import answer, facts, metrics_of, rambling, records
from tuneline.cli import compare
from tuneline.evaluate.config import Evaluate
from tuneline.evaluate.endpoint.questions import Asker
from tuneline.evaluate.general_prompts import PROMPTS, GeneralPrompt, prompts_of, read_general
from tuneline.evaluate.report import report
from tuneline.evaluate.results import prediction_rows
from tuneline.evaluate.slices.matrix import slices_of, with_arrivals
from tuneline.formats.example import Encoded
from tuneline.formats.metrics import METRICS
from tuneline.runtime.params import parse

SOURCES = {"old": None, "new": "2026-11", "empty": "2026-12"}
LABELS = [record for record in records() if record["task"] == "label"]


def arrived(old: bool, new: bool) -> list[dict]:
    """24 labels, half of each arrival; `old` and `new` say of which the tuned model knows the right ones."""
    items = [record | {"id": f"{'old' if n < 12 else 'new'}:{n:02}"} for n, record in enumerate(LABELS)]
    tuned = [
        answer(record, record["messages"][-1]["content"] if (old if n < 12 else new) else "不知道", True, 1.0)
        for n, record in enumerate(items)
    ]
    return with_arrivals(prediction_rows(items, [rambling(record) for record in items], tuned), SOURCES)


@pytest.fixture(scope="module")
def naive() -> list[dict]:
    return arrived(old=False, new=True)


def test_without_arrivals_rows_and_results_are_as_they_were():
    rows = [{"id": "old:1"}]
    assert with_arrivals(rows, {"old": None}) == with_arrivals(rows, {}) == rows
    assert slices_of([{"id": "old:1", "since": "2026-11"}]) == []


def test_each_arrival_has_a_line_with_both_sides_and_their_difference(naive):
    old, new = slices_of(naive)
    assert [(one["since"], one["items"], one["task"], one["metric"]) for one in (old, new)] == [
        (None, 12, "label", "label_accuracy"),
        ("2026-11", 12, "label", "label_accuracy"),
    ]
    assert (old["base"]["value"], old["tuned"]["value"], old["delta"]["value"]) == (0, 0, 0)
    assert (new["tuned"]["value"], new["delta"]["value"], new["delta"]["wins"]) == (100, 100, 12)
    assert new["delta"]["low"] == new["delta"]["high"] == 100
    assert new["delta"]["p"] < 0.01


def test_the_report_has_the_matrix_where_data_arrived(naive):
    told = facts()
    metrics = metrics_of(naive, told)
    page = report(metrics | {"slices": slices_of(naive)}, naive, told)
    assert "Arrivals: gained and forgotten" in page
    table = page[page.index("Arrivals: gained") :].partition("</table>")[0]
    assert table.count("<tr>") == 3
    for text in ("the beginning", "最初", "2026-11", "gained", "no clear change"):
        assert text in table
    assert "Arrivals" not in report(metrics, naive, told)


def revision(name: str, rows: list[dict]) -> compare.Revision:
    versions = {name: metric.version for name, metric in METRICS.items()}
    return compare.Revision(name, {row["id"]: row for row in rows}, versions)


def test_compare_says_what_an_arrival_made_the_model_forget(naive):
    before = [{key: value for key, value in row.items() if key != "since"} for row in arrived(old=True, new=True)]
    whole, after = revision("main", before), revision("workspace", naive)
    earlier = revision("main", before[:12])
    found = compare.against(earlier, after)
    assert (found["items"], found["left_out"]) == (12, 12), (
        "the new slice, which main could not have, is no reason to refuse"
    )
    assert found["slices"] == []
    found = compare.against(whole, after)
    assert [(one["since"], one["delta"]["value"]) for one in found["slices"]] == [(None, -100), ("2026-11", 0)]
    text = compare.to_text(found, 1, markdown=False)
    assert "By arrival:" in text
    assert text.partition("By arrival:")[2].splitlines()[3].split()[:3] == ["the", "beginning", "12"]
    assert "forgotten" in text
    with pytest.raises(ValueError, match="other held-out items"):
        compare.against(revision("main", before[:11]), after)
    with pytest.raises(ValueError, match="other held-out items"):
        compare.against(revision("main", []), after)


OWN = '{"id": "tax", "question": "增值税是什么？", "answer": "一种流转税。"}\n{"id":"vat","question":"税率？","answer":"13%"}\n'


@pytest.fixture
def params(workspace, params):
    workspace(evaluate={"general": "general.jsonl"})
    Path("evaluation").mkdir()
    Path("evaluation/general.jsonl").write_text(OWN, encoding="utf-8")
    return parse(Evaluate, params)


def test_general_prompts_of_ones_own_take_the_place_of_ours(params):
    assert prompts_of(params) == {
        "tax": GeneralPrompt("增值税是什么？", "一种流转税。"),
        "vat": GeneralPrompt("税率？", "13%"),
    }
    assert prompts_of(params.model_copy(update={"general": None})) is PROMPTS


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("nonsense", "line 3 .evaluate.general.: no JSON"),
        ("", "line 3 .evaluate.general.: no JSON"),
        ('["a"]', "line 3 .*: no object, expected one with id, question, answer"),
        ('{"id": "a", "question": "b"}', "line 3 .*: answer is missing, expected text"),
        ('{"id": "a", "question": " ", "answer": "c"}', "line 3 .*: question is ' ', expected text that is not empty"),
        ('{"id": 1, "question": "b", "answer": "c"}', "line 3 .*: id is 1, expected text"),
        ('{"id": "a", "question": "b", "answer": "c", "tag": 1}', "line 3 .*: 'tag' is no key of a prompt"),
        ('{"id": "tax", "question": "b", "answer": "c"}', "line 3 .*: id 'tax' is that of line 1, too"),
    ],
)
def test_a_line_that_is_no_prompt_is_named(params, line, expected):
    Path("evaluation/general.jsonl").write_text(OWN + line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=expected):
        prompts_of(params)


def test_a_missing_or_empty_file_and_a_path_elsewhere_are_errors(params, workspace):
    Path("evaluation/general.jsonl").write_text("")
    with pytest.raises(ValueError, match="is empty, expected at least one prompt"):
        prompts_of(params)
    Path("evaluation/general.jsonl").unlink()
    with pytest.raises(
        ValueError, match="evaluate.general is 'general.jsonl', .*: evaluation/general.jsonl is not there"
    ):
        prompts_of(params)
    Path("outside.jsonl").write_text(OWN, encoding="utf-8")
    Path("evaluation/general.jsonl").symlink_to("../outside.jsonl")
    with pytest.raises(ValueError, match="evaluation/general.jsonl lies elsewhere, expected a file inside evaluation/"):
        prompts_of(params)
    values = params.model_dump()
    for path in ("../x.jsonl", "/x.jsonl"):
        with pytest.raises(ValueError, match="expected null, or a file inside evaluation/"):
            parse(Evaluate, {"evaluate": values | {"general": path}})
    del values["general"]
    assert parse(Evaluate, {"evaluate": values}).general is None


def test_the_bases_answers_must_be_to_the_same_prompts(params):
    line = {"prediction": "", "stopped_at_eos": True, "nll": 1.0, "tokens": 2}
    rows = [line | {"id": name, "question": one.question} for name, one in prompts_of(params).items()]
    path = Path("base_general.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_general(path, params) == rows
    with pytest.raises(
        ValueError, match="2 other general prompts than the 20 of evaluate.general .null.: run `dvc repro predict_base`"
    ):
        read_general(path, params.model_copy(update={"general": None}))


class Server:
    """Sends nothing."""

    def request(self, messages: list, max_tokens: int, **_) -> dict:
        return {"messages": messages, "max_tokens": max_tokens}


class OnePrompt:
    """Of a base without a choice to think."""

    def generation_prompt(self, *_) -> list[int]:
        return [1]

    def opens_thoughts(self, _: bool) -> bool:
        return False

    def training_row(self, messages: list, *_) -> Encoded:
        return Encoded([1, len(messages)], [-100, len(messages)])


def test_a_server_is_asked_them_too(params):
    asker = Asker(Server(), OnePrompt(), params)
    asked = [asker.general(*one) for one in prompts_of(params).items()]
    assert [one.id for one in asked] == ["tax", "vat"]
    assert asked[0].body["messages"] == [{"role": "user", "content": "增值税是什么？"}]
    assert asked[0].row.labels == [-100, 2], "the answer of the file is what is scored"
