"""The pages that people read: nothing unescaped, the same bytes again, and what a browser makes of them."""

import re

import pytest

from tests.helpers.browsing import browsing
from tests.helpers.evaluated import LOOP, evaluated, facts, metrics_of
from tests.helpers.report_page import page_of, reading, text_of
from tuneline.evaluate.page.answer_text import LONG, is_long, plain_text, shown_answer, stretches
from tuneline.evaluate.page.charts import WIDTH, bounds, histogram, points, whiskers
from tuneline.evaluate.page.confusion import MOST, confusion
from tuneline.evaluate.report import metric_lines, report, tone
from tuneline.evaluate.tasks import results_by_task
from tuneline.formats.html import Text


@pytest.fixture(scope="module")
def learned():
    return evaluated()


@pytest.fixture(scope="module")
def page(learned):
    return page_of(learned)


def test_the_report_shows_every_item_and_escapes_what_people_wrote(learned):
    rows = [dict(row) for row in learned]
    rows[0]["question"] = "<script>alert(1)</script>"
    rows[1]["tuned"] = rows[1]["references"][0] + "<img src=x>"
    rows[2]["references"] = ['"><b onclick="x">']
    rows[30]["base"] = "<i>loop</i>" * 9
    page = page_of(rows)
    assert page.count("<article data-gain") == 50
    assert page.count("<script>") == 2, "the language's and the list's"
    assert not re.search("<img|<i>|<b onclick", page)
    for text in ("&lt;script&gt;", "&lt;img src=x&gt;", "&#34;&gt;&lt;b onclick=&#34;x&#34;&gt;"):
        assert text in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//|url\(|@import""", page)


def test_the_same_inputs_give_the_same_bytes(learned, page):
    assert page_of(learned) == page


def test_the_report_leads_with_the_verdict_and_the_tasks_own_metric(page):
    english, chinese = text_of(page, "en"), text_of(page, "zh")
    assert english.index("Labelling: 21 of 24 right.") < english.index("Better than the base at every task.")
    assert english.index("than the base at every task.") < english.index("Accuracy on the 24 labelling items rose")
    assert "各项任务均比基座更好。" in chinese
    assert "gemma3_text" not in page
    assert "Naming the most frequent label every time would reach 12\u00a0%." in english
    assert english.index("tells nothing of whether an answer is right") < english.index("Worst, median and best answer")
    assert "不判断回答是否正确、安全" in chinese
    table = english[english.index("Metrics") :]
    assert table.index("Accuracy") < table.index("Ends by itself") < table.index("BLEU-4")


def test_each_language_says_as_much_as_the_other(page):
    english = re.findall(r'<span class="en" lang="en">(.*?)</span>', page, re.DOTALL)
    chinese = re.findall(r'<span class="zh" lang="zh-Hans">(.*?)</span>', page, re.DOTALL)
    assert len(english) == len(chinese) > 100
    assert all(english) and all(chinese)
    assert not [text for text in english if re.search("[\u4e00-\u9fff]", text)]


def test_labels_are_right_or_wrong_and_have_a_matrix(learned, page):
    assert page.count("✘") > 24
    found = confusion(learned, "tuned")
    assert len(found.labels) == 10
    assert sum(map(sum, found.counts)) == 24
    assert sum(found.counts[place][place] for place in range(10)) == 21
    chest, heart = found.labels.index("呼吸内科"), found.labels.index("心血管内科")
    assert (found.counts[chest][chest], found.counts[chest][heart]) == (2, 1)
    rambling = confusion(learned, "base")
    assert [row[-1] for row in rambling.counts] == [sum(row) for row in rambling.counts]
    assert confusion([row for row in learned if row["task"] == "qa"], "tuned") is None


def test_rare_labels_share_a_row():
    rows = [
        {"id": f"s:{number}-{copy}", "task": "label", "references": [f"l{number:02}"], "tuned": f"l{number:02}"}
        for number in range(MOST + 5)
        for copy in range(2 if number < 3 else 1)
    ]
    found = confusion(rows, "tuned")
    assert len(found.labels) == MOST
    assert (found.labels[:3], found.labels[-1]) == (["l00", "l01", "l02"], "")
    assert found.counts[-1][-2:] == [6, 0]
    assert found.cells["s:0-0"] == "0-0" and found.cells[f"s:{MOST + 4}-0"] == f"{MOST - 1}-{MOST - 1}"


def test_words_that_the_reference_has_too_are_marked():
    row = {"tuned": "感冒 要 多休息。", "references": ["感冒多休息"]}
    (part,) = shown_answer(row, "tuned")
    assert part.pieces == [("感冒", True), (" 要 ", False), ("多休息", True), ("。", False)]
    assert shown_answer({"tuned": "", "references": [""]}, "tuned") == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (LOOP, [("律师解答:", 26), ("律师", 1)]),
        ("好的。" + "多喝水，" * 5 + "完", [("好的。", 1), ("多喝水，", 5), ("完", 1)]),
        ("再见\n" * 8, [("再见", 8)]),
        ("哈哈哈，慢慢来", [("哈哈哈，慢慢来", 1)]),
        ("10000000", [("10000000", 1)]),
        ("甲乙丙丁" * 2, [("甲乙丙丁甲乙丙丁", 1)]),
        ("", []),
    ],
)
def test_what_is_repeated_stands_there_once_with_a_count(text, shown):
    assert [(text[begin:end], times) for begin, end, times in stretches(text)] == shown


def test_an_answer_is_long_by_what_is_left_of_it():
    assert not is_long(plain_text("律师解答:" * 100))
    text = "".join(chr(0x4E00 + number) for number in range(LONG + 1))
    assert is_long(plain_text(text))
    assert not is_long(plain_text(text[1:]))


def test_a_figure_is_coloured_by_its_own_sign():
    """Many small wins and a few great losses are a loss of the mean."""
    loss = {"value": -4.0, "low": -6.0, "high": -2.0, "p": 0.0001, "wins": 30, "losses": 20}
    gain = {"value": 2.0, "low": 1.0, "high": 3.0, "p": 0.0001}
    assert (tone("rouge_l", loss), tone("rouge_l", gain), tone("rouge_l", gain | {"p": 0.2})) == ("bad", "good", "")
    assert (tone("nll_per_char", loss), tone("length_ratio", gain)) == ("good", "")


def test_a_tasks_own_metric_is_over_its_items(learned):
    metrics = metrics_of(learned, facts())
    lines = metric_lines(metrics, results_by_task(metrics, learned))
    assert [(line.name, line.task) for line in lines[:4]] == [
        ("label_accuracy", "label"), ("rouge_l", "qa"), ("eos_rate", None), ("repetition", None),
    ]  # fmt: skip
    assert {line.name for line in lines} == set(metrics["delta"])
    overall = next(line for line in lines if (line.name, line.task) == ("rouge_l", None))
    assert (overall.tuned, lines[1].tuned == overall.tuned) == (metrics["tuned"]["rouge_l"], False)
    alone = [row for row in learned if row["task"] == "qa"]
    metrics = metrics_of(alone, facts())
    names = [line.name for line in metric_lines(metrics, results_by_task(metrics, alone))]
    assert names[0] == "rouge_l"
    assert len(names) == len(set(names))


def test_a_page_of_constrained_answers_says_what_they_could_hold(learned, page):
    assert "Constrained decoding" not in page
    metrics = metrics_of(learned, facts())
    how = {"constrain": {"label": ["儿科", "内科"]}, "unreachable_references": 3}
    told = report(metrics | {"generation": how}, learned, facts())
    english, chinese = text_of(told, "en"), text_of(told, "zh")
    assert "spans of the question and these classes." in english and "儿科、内科." in english
    assert "be written this way: 3." in english and "3 条。" in chinese and "受限解码" in chinese
    none = report(metrics | {"generation": how | {"unreachable_references": 0}}, learned, facts())
    assert "be said so" not in none


def test_an_adapter_from_elsewhere_has_no_curve_and_is_said_to_be_one(learned):
    untrained = {"imported": "theirs", "steps": 0, "rows_seen": 0, "supervised_tokens": 0}
    told = facts()._replace(curve=[], training=facts().training | untrained)
    page = report(metrics_of(learned, told), learned, told)
    assert "with an adapter from elsewhere (theirs), not trained here." in text_of(page, "en")
    assert "加上别处训练的适配器（theirs）" in text_of(page, "zh")
    assert "<polyline" not in page
    assert points([]) == ""


def test_charts_end_at_their_edges():
    assert whiskers({"low": -1.0, "value": 1.0, "high": 4.0}) == {"low": -25.0, "value": 25.0, "high": 100.0}
    assert whiskers({"low": 0.0, "value": 0.0, "high": 0.0}) == {"low": 0.0, "value": 0.0, "high": 0.0}
    chart = histogram(Text("a", "b"), [[0.0, 12.0], [11.9, 6.0]])
    assert (chart["top"], chart["counts"][0][0], chart["counts"][0][-1], chart["counts"][1][-1]) == (12.0, 1, 1, 1)
    assert points([(1, 2.0), (2, 1.0)]) == "320.0,0.0 640.0,75.0"
    # Where the training's curve is longer; below zero; and all of one value.
    assert points([(1, 2.0), (2, 1.0)], 4) == "160.0,0.0 320.0,75.0"
    assert points([(1, -1.0), (2, 1.0)]) == "320.0,150.0 640.0,0.0"
    assert points([(1, 0.0), (2, 0.0)]) == "320.0,150.0 640.0,150.0"
    assert bounds([(1, -3.0)]) == (-3.0, -2.0)


def test_what_validations_measured_is_drawn_beside_the_loss(learned):
    page = report(metrics_of(learned, facts()), learned, facts())
    measured = {"validation_loss": [(50, 2.5)], "label_accuracy": [(50, 40.0), (100, 80.0)], "my_share": [(100, -0.5)]}
    told = facts()._replace(measured=measured)
    found = report(metrics_of(learned, told), learned, told)
    assert found.count("<polyline") == page.count("<polyline") + 3
    assert f'<polyline points="{WIDTH // 2}.0,75.0 {WIDTH}.0,0.0"' in found
    assert found.count("<circle") == page.count("<circle") + 4, "one validation is seen, too"
    english = text_of(found, "en")
    for title in ("Validation loss", "Accuracy of validation answers", "my_share of validation answers"):
        assert f"{title} by step" in english
        assert f"{title} by step" not in page
    assert "各步验证回答的 Accuracy" in found


@pytest.fixture(scope="module")
def saved(page, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


ENGLISH, CHINESE = "Better than the base at every task.", "各项任务均比基座更好。"


@browsing
def test_a_reader_sees_one_language_and_may_take_the_other(browser, saved):
    with reading(browser, saved) as tab:
        assert tab.locator(".compared").inner_text() == ENGLISH
        tab.get_by_role("button", name="中文").click()
        assert (tab.locator(".compared").inner_text(), tab.title()) == (CHINESE, "评测报告")
        assert tab.locator("#search").get_attribute("placeholder") == "搜索"
        assert "准确" in tab.locator("abbr").first.inner_text()
        assert "标签答对" in tab.locator("abbr").first.get_attribute("title")
        tab.reload()
        assert tab.locator(".compared").inner_text() == CHINESE, "what was chosen is kept"
        tab.get_by_role("button", name="English").click()
        assert tab.locator("#search").get_attribute("placeholder") == "search"
        assert tab.locator("#order option").first.inner_text() == "worst first"
    with reading(browser, saved, locale="zh-CN") as tab:
        assert tab.locator(".compared").inner_text() == CHINESE
    with reading(browser, saved, locale="zh-CN", java_script_enabled=False) as tab:
        assert tab.locator(".compared").inner_text() == ENGLISH
        assert not tab.locator(".languages button").first.is_visible()


@browsing
@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
def test_the_page_fits_a_telephone(browser, saved, locale):
    with reading(browser, saved, locale=locale, viewport={"width": 390, "height": 800}) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") == 390
        inside = "all => all.every(one => one.getBoundingClientRect().right <= 391)"
        assert tab.locator("td:visible, th:visible").evaluate_all(inside)


@browsing
def test_items_are_found_by_text_and_by_what_is_wrong_with_them(browser, saved):
    with reading(browser, saved) as tab:
        tab.locator("#kind").select_option("wrong")
        assert tab.locator("#found").inner_text() == "3 / 50"
        tab.locator("#kind").select_option("")
        tab.locator("#search").fill("小航")
        assert tab.locator("#items article:visible").count() == 5


@browsing
@pytest.mark.parametrize("kind", ["learned", "looping"])
def test_the_report_prints_on_at_most_eight_pages(browser, tmp_path, kind):
    path = tmp_path / "report.html"
    path.write_text(page_of(evaluated(kind), change=2.0), encoding="utf-8")
    with reading(browser, path) as tab:
        printed = tab.pdf(format="A4", prefer_css_page_size=True)
        tab.emulate_media(media="print")
        assert tab.locator("article.chosen:visible").count() == 6
        assert tab.locator("#items article:visible").count() == 0
    assert 1 < len(re.findall(rb"/Type\s*/Page\b(?!s)", printed)) <= 8
