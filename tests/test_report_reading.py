"""What keeps a reader of the report from being misled: what is right in itself, warnings that are missing, the worst first."""

import re

import pytest

from tests.helpers.browsing import browsing
from tests.helpers.evaluated import evaluated, facts, metrics_of
from tests.helpers.report_page import page_of, reading, text_of
from tuneline.evaluate.page.absolute import MOST, absolute, answerable, without_warning, words_shared
from tuneline.evaluate.page.urgency import lacks_warning, should_warn, warns
from tuneline.evaluate.report import report
from tuneline.evaluate.tasks import MOST_SOURCES, TaskResult, kinds


@pytest.mark.parametrize(
    "text",
    [
        "有胸痛，应去急诊检查。", "应立即去医院", "要马上就医", "请立刻停药就医", "尽快去看骨科", "若反复呕吐，请及时就医。",
        "拨打急救电话", "请打120。", "呼叫120或去医院", "有轻生念头", "不要自杀", "需要抢救", "不用担心，马上去医院",
        "特别急诊", "Go to the emergency room.", "Call 911.", "Call an ambulance", "See a doctor IMMEDIATELY",
        "Go at once.", "thoughts of suicide",
    ],
)  # fmt: skip
def test_words_of_urgency_are_found(text):
    assert warns(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "多喝水，若不见好，应去医院。", "饭后别马上喝浓茶", "不必急诊", "不用去急诊", "血压120/80正常", "120 mmHg以下",
        "每天1200毫升", "120毫升温水", "血压 80/120", "There is no emergency.", "Not immediately", "model 9110",
    ],
)  # fmt: skip
def test_other_words_are_not(text):
    assert not warns(text)


def row(task="qa", reference="应立即就医。", tuned="多喝水。"):
    return {"task": task, "references": [reference], "tuned": tuned}


def test_a_warning_lacks_only_where_the_reference_has_one():
    assert should_warn(row()) and lacks_warning(row())
    assert should_warn(row(tuned="去急诊。")) and not lacks_warning(row(tuned="去急诊。"))
    assert not lacks_warning(row(reference="多休息。"))
    assert not [task for task in ("label", "labels", "triples", "entities", "tools") if should_warn(row(task))]


def test_how_many_warnings_are_missing_is_no_test_of_safety():
    assert without_warning(3, 0) is None
    said = without_warning(7, 6)
    assert said.en.startswith("In 6 of the 7 text answers") and "no safety test" in said.en
    assert "有 7 道，其中 6 道" in said.zh and "不是安全测试" in said.zh


@pytest.mark.parametrize(
    ("task", "metric", "value", "en", "zh"),
    [
        ("label", "label_accuracy", 100 * 25 / 26, "Labelling: 25 of 26 right.", "分类：26 题答对 25 题。"),
        (
            "qa", "rouge_l", 28.0,
            "Question answering: whether the answers are correct was not measured.", "问答：没有检查回答是否正确。",
        ),
        (
            "triples", "triples_f1", 71.26,
            "Extraction of triples: F1 71.3 of 100 (100: all of it right, nothing missing).",
            "三元组抽取：F1 71.3（满分 100：全部正确，没有遗漏）。",
        ),
        (
            "tools", "tools_exact_match", 50.0,
            "Tool calls: calls all right in 50.0\u00a0%.", "工具调用：调用完全正确的占 50.0\u00a0%。",
        ),
    ],
)  # fmt: skip
def test_how_good_answers_are_in_themselves(task, metric, value, en, zh):
    result = TaskResult(task, 26, metric, {"tuned": {metric: {"value": value}}})
    assert absolute(result) == (en, zh)
    assert (words_shared([result]) is None) == (metric != "rouge_l")


def labelled(*labels):
    return [row("label", label, label) for label in labels]


def test_the_labels_that_can_be_answered_are_named():
    assert answerable([row()], None) is None
    few = answerable(labelled("眼科", "内科", "内科 "), None)
    assert few.names == "内科、眼科", "the most frequent first"
    assert "in the test set: " in few.before.en and "测试集中有：" in few.before.zh
    assert "an emergency, say, it can't answer" in few.after.en and "例如急症" in few.after.zh
    given = answerable(labelled("眼科"), {"label": ["眼科", "急诊科"]})
    assert (given.before.en, given.names) == ("It can only answer: ", "眼科、急诊科")
    assert "emergency" not in given.after.en and "急症" not in given.after.zh, "there is a label for it"
    many = answerable(labelled(*(f"l{number:02}" for number in range(MOST + 1))), None)
    assert f"{MOST + 1} labels" in many.before.en and many.names.count("、") == MOST - 1


def test_each_source_is_a_kind_of_its_own():
    rows = [
        {"id": f"{source}:{number}", "task": task}
        for source, task in (("b", "qa"), ("a", "qa"), ("c", "label"))
        for number in range(2)
    ]
    assert list(kinds(rows, ["label", "qa"])) == [("label", "c"), ("qa", "a"), ("qa", "b")]
    assert [len(some) for some in kinds(rows, ["label", "qa"]).values()] == [2, 2, 2]
    assert list(kinds(rows[:2], ["qa"])) == [("qa", "")], "the only source needs no name"
    many = [{"id": f"s{number}:0", "task": "qa"} for number in range(MOST_SOURCES + 1)]
    assert list(kinds(many, ["qa"])) == [("qa", "")]
    assert len(kinds(many[1:], ["qa"])) == MOST_SOURCES


@pytest.fixture(scope="module")
def rows():
    """Two sources; one answer lacks its reference's warning, and one base's answer doesn't repeat itself."""
    found = [dict(one) for one in evaluated()]
    for one in found[24:]:
        one["id"] = one["id"].replace("s:", "t:")
        one["references"] = [one["references"][0].replace("及时", "").replace("立即", "").replace("尽快", "")]
        one["tuned"] = one["tuned"].replace("及时", "").replace("立即", "").replace("尽快", "")
    found[30]["references"] = ["应立即就医。"]
    found[31]["scores"] = found[31]["scores"] | {"base": found[31]["scores"]["base"] | {"repetition": 49.9}}
    return found


@pytest.fixture(scope="module")
def page(rows):
    return page_of(rows, change=2.0)


def test_the_box_says_what_is_right_before_what_is_better(page):
    english, chinese = text_of(page, "en"), text_of(page, "zh")
    said = [
        "Labelling: 21 of 24 right.", "whether the answers are correct was not measured", "ROUGE-L", "It can only answer",
        "In 1 of the 1 text answers", "Better than the base at every task", "Being better than this base proves little",
    ]  # fmt: skip
    assert sorted(said, key=english.index) == said
    assert re.search(r"<b><span[^>]*>Being better than this base proves little", page), "in bold"
    assert "胜过这样的基座，说明不了多少" in chinese
    assert "Sure that it is better than the base" in english and "确定比基座好" in chinese
    assert "The base may not have been able to answer these either" in english


def test_a_base_that_ends_its_answers_is_worth_comparing_with(rows):
    told = facts()
    metrics = metrics_of(rows, told)
    ended = metrics | {"base": metrics["base"] | {"eos_rate": metrics["base"]["eos_rate"] | {"value": 2.0}}}
    assert "proves little" not in report(ended, rows, told)


def test_the_worst_answer_of_each_source_comes_first(page, rows):
    cards = re.findall(r'<article class="chosen">.*?</div>', page, re.DOTALL)
    assert [(re.search("Worst|Median|Best", card)[0], re.search(r"· (s|t)\b", card)[1]) for card in cards] == [
        (place, source) for source in "st" for place in ("Worst", "Median", "Best")
    ]
    scores = [float(value) for value in re.findall(r'data-tuned="([^"]+)"', page)]
    assert len(scores) == 50 and scores == sorted(scores)


def test_a_base_that_repeats_itself_is_folded(page, rows):
    listed = page[page.index('<div id="items">') :]
    often = sum(one["scores"]["base"]["repetition"] >= 50 for one in rows)
    assert listed.count('<details class="repeats">') == often < 50
    (item,) = re.findall(rf'<article [^>]*id="item-{rows[31]["id"]}".*?</article>', listed, re.DOTALL)
    assert "repeats" not in item


def test_the_missing_warning_is_marked_on_its_item_alone(page, rows):
    listed = page[page.index('<div id="items">') :]
    marked = [one for one in re.findall(r"<article .*?</article>", listed, re.DOTALL) if "this answer does not" in one]
    assert len(marked) == 1 and f'id="item-{rows[30]["id"]}"' in marked[0]


def test_there_is_no_stray_space_in_chinese(page):
    # What models wrote is as they wrote it.
    written = r"<style>.*?</style>|<article.*?</article>|<script>.*?</script>"
    shown = text_of(re.sub(written, "", page, flags=re.DOTALL), "zh")
    assert "各项任务" in shown
    assert not re.findall("[\u4e00-\u9fff][：。，] +[\u4e00-\u9fff]", shown)
    assert not re.findall(r"\d%", shown)


@browsing
def test_a_link_leads_to_the_answers_without_a_warning(browser, page, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(page, encoding="utf-8")
    with reading(browser, path) as tab:
        tab.locator("a[data-kind]").click()
        assert tab.locator("#found").inner_text() == "1 / 50"
        assert tab.locator("#kind option:checked").inner_text() == "reference warns, answer does not (1)"
        folded = tab.locator("#items article:visible .repeats")
        assert not folded.locator(".text").is_visible()
        folded.locator("summary").click()
        assert folded.locator(".text").is_visible()


@browsing
def test_names_of_the_matrix_stay_on_one_line_on_a_telephone(browser, page, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(page, encoding="utf-8")
    with reading(browser, path, viewport={"width": 390, "height": 800}) as tab:
        heights = tab.locator(".confusion th.row").evaluate_all(
            "all => all.map(one => { const range = document.createRange(); range.selectNodeContents(one);"
            " return new Set([...range.getClientRects()].map(one => one.top)).size; })"
        )
        assert heights == [1] * 10
