"""A report of made-up answers, its text in one language, and a browser that reads it."""

import re
from contextlib import contextmanager

from tests.helpers.evaluated import facts, metrics_of
from tuneline.evaluate.report import report


def page_of(rows, change=0.1) -> str:
    told = facts(change)
    return report(metrics_of(rows, told), rows, told)


def text_of(page: str, language: str) -> str:
    """What a reader of one language sees: an approximation without a browser."""
    other = "zh" if language == "en" else "en"
    return re.sub(r"<[^>]*>", "", re.sub(rf'<span class="{other}".*?</span>', "", page))


@contextmanager
def reading(browser, path, **options):
    """The page as a reader has it; whatever the browser complains of or asks elsewhere fails the test."""
    context = browser.new_context(**{"locale": "en-US", "viewport": {"width": 1280, "height": 800}} | options)
    tab = context.new_page()
    tab.set_default_timeout(15_000)
    wrong: list[str] = []
    tab.on("console", lambda message: wrong.append(message.text))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("request", lambda request: None if request.url == path.as_uri() else wrong.append(request.url))
    tab.goto(path.as_uri())
    yield tab
    context.close()
    assert [one for one in wrong if not one.startswith("data:")] == []
