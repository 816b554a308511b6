"""The page of the blind review, as somebody with a browser, a keyboard or a telephone meets it, and as an attacker does."""

import base64
import json
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from chat.review.server import Review, make_app
from chat.serve import make_server
from tests.helpers.browsing import browsing, complaints_of
from tests.helpers.serving import running
from tuneline.evaluate.review.pairs import answer_hash, pairs_of, shown
from tuneline.evaluate.review.votes import last_votes, read_votes

ROWS = [
    {"id": f"s:{n}", "question": f"第{n}题：<b>怎么办</b>？", "base": f"不知道{n}", "tuned": f"<i>多休息</i>{n}\n" * 3}
    for n in range(4)
]
SAID = (("user", "我头疼"), ("assistant", "多久了？"), ("user", "两天"), ("assistant", "…"))
DIALOGUES = {"s:1": [{"role": role, "content": text} for role, text in SAID]}


@contextmanager
def serving(folder: Path, password: str | None = None, hosts=("127.0.0.1",)):
    """The page's address."""
    pairs = pairs_of([*ROWS, {"id": "s:9", "question": "同样", "base": "一样", "tuned": "一样"}], DIALOGUES)
    with running(make_server(make_app(Review(pairs, folder), hosts, password))) as address:
        yield f"{address}/"


@pytest.fixture
def url(tmp_path):
    with serving(tmp_path / "reviews") as address:
        yield address


@contextmanager
def visiting(browser, url, name="anna", **options):
    """A rater's page at the first item; whatever it complains of or asks elsewhere fails the test."""
    context = browser.new_context(**{"locale": "en-US", "viewport": {"width": 1280, "height": 800}} | options)
    page = context.new_page()
    page.set_default_timeout(30_000)
    wrong = complaints_of(page, (url, "data:"))
    page.goto(url)
    page.locator("#rater").fill(name)
    page.locator("#enter button").click()
    page.locator("#voting").wait_for()
    page.locator("#left .text:not(:empty)").wait_for()
    yield page
    context.close()
    assert wrong == []


def counted(folder: Path, rater: str = "anna") -> dict[str, str]:
    """{item: whose answer the rater prefers, or what else it says}."""
    sides = {answer_hash(row[side]): side for row in ROWS for side in ("base", "tuned")}
    last = last_votes(read_votes(folder)).values()
    return {vote.id: sides.get(vote.vote, vote.vote) for vote in last if vote.rater == rater}


def wait(page, text: str) -> None:
    page.locator("#said", has_text=text).wait_for()


@browsing
def test_a_rater_votes_by_mouse_and_by_keyboard_and_may_change_it(browser, url, tmp_path):
    folder = tmp_path / "reviews"
    with visiting(browser, url) as page:
        assert page.locator("#place").inner_text() == "Item 1 of 4, 0 voted on"
        assert "<b>怎么办</b>" in page.locator("#question").inner_text(), "text is text"
        for name in ("base", "tuned", "Base", "Tuned"):
            assert name not in page.content().partition("<script>const $")[0].partition("<body>")[2]
        page.locator("#comment").fill("写得更清楚")
        page.get_by_role("button", name="A is better").click()
        wait(page, "Kept: A is better.")
        page.locator("#place", has_text="Item 2 of 4, 1 voted on").wait_for()
        for key, number in (("2", 3), ("0", 4)):
            page.keyboard.press(key)
            page.locator("#place", has_text=f"Item {number} of 4").wait_for()
        page.keyboard.press("9")
        page.locator("#finished").wait_for()
        order = [pair.id for pair in pairs_of(ROWS)]
        pairs = {pair.id: pair for pair in pairs_of(ROWS)}
        whose = [{row["base"]: "base", row["tuned"]: "tuned"} for row in (ROWS[int(name[2:])] for name in order)]
        left, right = whose[0][shown(pairs[order[0]], "anna")[0]], whose[1][shown(pairs[order[1]], "anna")[1]]
        assert counted(folder) == dict(zip(order, (left, right, "tie", "bad"), strict=True))
        # Undone, changed, and a comment that comes later.
        page.keyboard.press("u")
        wait(page, "Taken back.")
        assert order[3] not in counted(folder)
        page.keyboard.press("ArrowLeft")
        page.locator("#place", has_text="Item 3 of 4").wait_for()
        assert page.get_by_role("button", name="As good").get_attribute("aria-pressed") == "true"
        page.locator("#comment").fill("1 和 2 都行")
        page.get_by_role("button", name="Next").click()
        page.locator("#place", has_text="Item 4 of 4").wait_for()
        page.keyboard.press("1")
        page.locator("#finished").wait_for()
    last = {vote.id: vote for vote in last_votes(read_votes(folder)).values()}
    assert (last[order[0]].comment, last[order[2]].comment, last[order[2]].vote) == ("写得更清楚", "1 和 2 都行", "tie")
    assert counted(folder)[order[3]] in ("base", "tuned")


@browsing
@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
def test_the_page_fits_a_telephone_in_either_language(browser, url, locale):
    with visiting(browser, url, "王医生", locale=locale, viewport={"width": 390, "height": 800}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        boxes = [page.locator(f"#{side}").bounding_box() for side in ("left", "right")]
        assert boxes[0]["y"] + boxes[0]["height"] <= boxes[1]["y"], "one below the other"
        for button in page.locator(".ballot button").all():
            assert button.bounding_box()["height"] >= 44
        title, better = {"en-US": ("Which answer is better?", "B is better"), "zh-CN": ("哪个回答更好？", "B 更好")}[
            locale
        ]
        assert page.locator("h1").inner_text() == title
        page.get_by_role("button", name=better).click()
        page.locator("#place", has_text="2").first.wait_for()
        page.get_by_role("button", name="English" if locale == "zh-CN" else "中文").click()
        assert page.locator("h1").inner_text() != title


@browsing
def test_two_tabs_of_one_rater_and_a_server_that_dies(browser, tmp_path):
    folder = tmp_path / "reviews"
    with serving(folder) as url, visiting(browser, url) as one:
        other = one.context.new_page()
        other.set_default_timeout(30_000)
        other.goto(url)
        assert other.locator("#rater").input_value() == "anna"
        other.locator("#enter button").click()
        other.locator("#left .text:not(:empty)").wait_for()
        other.keyboard.press("2")
        wait(other, "Kept")
        one.keyboard.press("1")
        one.locator("#place", has_text="Item 2 of 4, 1 voted on").wait_for()
        assert len(read_votes(folder)) == 2 and len(counted(folder)) == 1, "the last one counts"
        # From the second item to the one that is the end of a dialogue.
        wanted = [pair.id for pair in pairs_of(ROWS)].index("s:1")
        for _ in range(abs(wanted - 1)):
            one.keyboard.press("ArrowRight" if wanted > 1 else "ArrowLeft")
        one.locator("#place", has_text=f"Item {wanted + 1} of 4").wait_for()
        before = one.locator("#before")
        before.locator("summary").click()
        assert "user: 我头疼" in before.inner_text()
    assert len(read_votes(folder)) == 2
    with serving(folder) as url:
        assert sum(one["voted"] for one in httpx.get(f"{url}items?rater=anna").json()) == 1


def test_what_a_rater_is_sent_says_nothing_of_the_models(url):
    listed = httpx.get(f"{url}items?rater=anna").json()
    assert [one["id"] for one in listed] == [pair.id for pair in pairs_of(ROWS)], "alike answers are no choice"
    item = httpx.get(f"{url}item?rater=anna&id=s:1").json()
    assert item.keys() == {"id", "question", "earlier", "left", "right", "seen", "vote", "comment"}
    assert [one["text"] for one in item["earlier"]] == ["我头疼", "多久了？"]
    page = httpx.get(url)
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "多休息" not in page.text


def sent(url: str, headers: dict | None = None, **changes) -> httpx.Response:
    item = httpx.get(f"{url}item?rater=anna&id=s:0").json()
    body = {"rater": "anna", "id": "s:0", "vote": "left", "comment": "", "seen": item["seen"]} | changes
    return httpx.post(
        f"{url}votes", content=json.dumps(body), headers={"content-type": "application/json"} | (headers or {})
    )


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({"vote": "tuned"}, 400, "expected left, right, tie, bad or null"),
        ({"rater": "../../x"}, 400, "expected 1 to 40 letters"),
        ({"rater": "judge-x"}, 400, "none that begins with"),
        ({"rater": 3}, 400, "expected rater, id"),
        ({"comment": "长" * 2001}, 400, "expected at most 2000"),
        ({"comment": "长" * 200_000}, 403, "bytes"),
        ({"id": "s:99"}, 404, "no such item"),
        ({"id": "s:9"}, 404, "no such item"),
        ({"seen": "0" * 16}, 409, "the answers are others now"),
        ({"headers": {"content-type": "text/plain"}}, 415, "application/json"),
        ({"headers": {"origin": "http://evil.example"}}, 403, "Origin"),
        ({"headers": {"host": "evil.example"}}, 403, "Host"),
    ],
)
def test_what_is_no_vote_is_refused_and_nothing_is_written(url, tmp_path, changes, status, says):
    answer = sent(url, **changes)
    assert answer.status_code == status and says in answer.text
    assert not list(tmp_path.rglob("*.jsonl"))
    assert sent(url).status_code == 200
    assert len(read_votes(tmp_path / "reviews")) == 1


def test_others_need_the_password(tmp_path):
    with serving(tmp_path, password="一二三四五六七八", hosts=None) as url:
        asked = httpx.get(url)
        assert asked.status_code == 401 and asked.headers["www-authenticate"].startswith("Basic")
        for given, status in (("tuneline:一二三四五六七八", 200), ("tuneline:wrong", 401), ("x:一二三四五六七八", 401)):
            word = base64.b64encode(given.encode()).decode()
            assert httpx.get(url, headers={"authorization": f"Basic {word}"}).status_code == status
        assert httpx.get(url, headers={"authorization": "Basic ???"}).status_code == 401
        assert httpx.post(f"{url}votes", json={}).status_code == 401
