"""Every page for everyone: axe-core's findings, the keyboard alone, and paper."""

import re
from collections import Counter
from pathlib import Path

import pytest

from chat.review.server import Review, make_app
from chat.serve import make_server
from tests.helpers.accessibility import grave_findings, looks
from tests.helpers.browsing import browsing
from tests.helpers.evaluated import evaluated, facts, metrics_of
from tests.helpers.made_up_study import results, run_of
from tests.helpers.serving import running
from tuneline.evaluate.report import report
from tuneline.evaluate.review.pairs import pairs_of
from tuneline.formats.example import IGNORE_INDEX, Encoded
from tuneline.models.chat_format import load_prompter
from tuneline.study.analysis import PLAIN, Table, analyse
from tuneline.study.page import State
from tuneline.study.page import page as study_page
from tuneline.tokenize.encode import Preview, Summary
from tuneline.tokenize.report import data_report

pytestmark = browsing
COUNTED = ("items", "train", "heldout", "duplicates", "leaks", "rejected", "conflicts")


def report_page() -> str:
    rows, told = evaluated()[::4], facts()
    return report(metrics_of(rows, told), rows, told)


def data_page(tokenizer, folder: Path) -> str:
    """With something of everything that it can complain of."""
    row = dict.fromkeys(COUNTED, 9) | {"files": 2, "formats": {"json": 2}, "encodings": {"a": "utf-8"}, "weight": 2.0}
    row |= {"repairs": {"trim": 1}, "markup": {"[INST]": 4}, "answers": {"cut_off": 5}, "same_answers": {"无": 7}}
    row |= {
        "scored_earlier": 6,
        "nothing_asked": 8,
        "beyond_limit": 9,
        "placeholders": {"{{name}}": 3},
        "leaks_kept": 1,
    }
    row |= {"skipped": ["s/README.md"], "unused": {"images": 2}, "reasons": {"broken_json": 1}}
    counts = {"sources": {"s": row}, "total": dict.fromkeys(COUNTED, 9)}
    (folder / "rejects.jsonl").write_text('{"source": "s", "origin": "f:9", "reason": "broken_json", "raw": "{x"}\n')
    leak = '{"id": "s:7", "source": "s", "origin": "f:7", "why": "contains", "of": "s:8", "similarity": 0.75, '
    (folder / "removed.jsonl").write_text(leak + '"question": "one", "heldout": "other"}\n')
    ids = tokenizer("问题和回答")["input_ids"]
    preview = Preview({"s": row})
    preview.rows = [(f"s:{n}", "s", Encoded(ids, [IGNORE_INDEX] * (len(ids) - 1) + ids[-1:])) for n in range(2)]
    summary = Summary(rows=2, tokens=20, supervised_tokens=9, lengths={"s": Counter({1: 2, 3: 1})})
    prompter = load_prompter(tokenizer)
    files = (folder / "rejects.jsonl", folder / "removed.jsonl")
    return data_report(counts, summary, preview, prompter, tokenizer, *files)


def made_up_study() -> str:
    made = results({PLAIN: 0.0, (("lora.r", "8"),): 5.0}, (0.5, 1.0), slope=3.0)
    return study_page(analyse(Table(made)), State("s", 12, [run_of()], 1))


@pytest.fixture(scope="module")
def pages(tokenizers, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    texts = {"report": report_page(), "data": data_page(tokenizers["gemma"], folder), "study": made_up_study()}
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in texts}


@pytest.fixture
def tab(browser):
    context = browser.new_context(locale="en-US", viewport={"width": 1280, "height": 800})
    tab = context.new_page()
    tab.set_default_timeout(15_000)
    yield tab
    context.close()


@pytest.mark.parametrize("name", ["report", "data", "study"])
def test_nothing_grave_is_found_on_a_page(tab, pages, name):
    tab.goto(pages[name].as_uri())
    found = {look: grave_findings(tab) for look in looks(tab)}
    assert list(found) == ["en, light", "en, dark", "zh, light", "zh, dark"] and not any(found.values()), found
    for width, height in ((390, 800), (1280, 800)):
        tab.set_viewport_size({"width": width, "height": height})
        assert tab.evaluate("document.documentElement.scrollWidth") == width


def test_nothing_grave_is_found_on_the_page_of_the_blind_review(tab, tmp_path):
    pairs = pairs_of([{"id": "s:1", "question": "怎么办？", "base": "不知道", "tuned": "多休息"}])
    with running(make_server(make_app(Review(pairs, tmp_path), ("127.0.0.1",), None))) as address:
        # A policy of the server forbids scripts of others, axe-core's, too.
        context = tab.context.browser.new_context(bypass_csp=True)
        page = context.new_page()
        page.goto(f"{address}/")
        for look in looks(page):
            assert grave_findings(page) == [], look
        page.locator("#rater").fill("anna")
        page.keyboard.press("Enter")
        page.locator("#left .text:not(:empty)").wait_for()
        for look in looks(page):
            assert grave_findings(page) == [], look
        context.close()


def test_the_report_is_read_by_keyboard_alone(tab, pages):
    tab.goto(pages["report"].as_uri())
    focused = "document.activeElement.textContent.trim()"
    tab.keyboard.press("Tab")
    assert "To the contents" in tab.evaluate(focused)
    assert tab.locator(".skip").bounding_box()["y"] >= 0, "seen when it has the focus"
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "main"
    # The meaning of a term, without a mouse.
    tab.locator("abbr").first.focus()
    shown = tab.evaluate("getComputedStyle(document.querySelector('abbr'), '::after').content")
    assert "items whose label is right" in shown
    # A number of the matrix leads to its items.
    tab.locator(".confusion button").first.focus()
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.keyboard.press("Enter")
    count = int(tab.locator(".confusion button").first.inner_text())
    assert tab.locator("#items article:visible").count() == count > 0
    assert tab.evaluate("document.activeElement.id") == "kind"
    tab.locator("#kind").select_option("better")
    assert (
        tab.locator("#kind option:checked").inner_text()
        == f"better than the base ({tab.locator('#items article:visible').count()})"
    )
    tab.locator("#items article:visible a").first.press("Enter")
    assert tab.evaluate("decodeURIComponent(location.hash)").startswith("#item-")


@pytest.mark.parametrize(("name", "most"), [("report", 8), ("data", 5)])
def test_a_page_is_printed_light_opened_and_without_controls(tab, pages, name, most):
    tab.goto(pages[name].as_uri())
    printed = tab.pdf(format="A4", prefer_css_page_size=True)
    assert 1 < len(re.findall(rb"/Type\s*/Page\b(?!s)", printed)) <= most
    tab.emulate_media(media="print", color_scheme="dark")
    assert tab.evaluate("getComputedStyle(document.body).color") == "rgb(28, 36, 48)"
    assert tab.locator(".languages, .skip, .contents, .controls").evaluate_all(
        "all => all.every(one => !one.offsetHeight)"
    )
    if name == "report":
        assert tab.get_by_text("train.learning_rate").is_visible(), "what was trained with what"
