"""Visitors of the web page, in a real browser."""

import shutil
from contextlib import contextmanager

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
browsing = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on PATH")
QUESTION = "我咳嗽"


def complaints_of(page, own: tuple[str, ...]) -> list[str]:
    """What the page complains of, and the addresses that it asks beside its own; both come as they happen."""
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(own) else wrong.append(request.url))
    return wrong


@contextmanager
def visiting(browser, url, **options):
    """A visitor's page; whatever it complains of or asks elsewhere fails the test."""
    context = browser.new_context(**{"locale": "zh-CN", "viewport": {"width": 1280, "height": 800}} | options)
    page = context.new_page()
    page.set_default_timeout(15_000)
    wrong = complaints_of(page, (url, "data:", "blob:"))
    page.goto(url)
    page.locator("#question textarea").wait_for()
    page.wait_for_function("['zh-Hans', 'en'].includes(document.documentElement.lang)")
    yield page
    context.close()
    assert wrong == []


def ask(page, question=QUESTION):
    page.locator("#question textarea").fill(question)
    page.locator("#question textarea").press("Enter")


def bubbles(page, kind="bot") -> list[str]:
    return [bubble.inner_text().strip() for bubble in page.locator(f".message.{kind}").all()]
