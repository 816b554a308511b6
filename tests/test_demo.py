"""The page that shows two models side by side, as somebody with a browser meets it."""

import json
import os
import re
import socket
import time
from pathlib import Path

import httpx
import pytest
from starlette.datastructures import Headers

from chat.access import PageAccess
from chat.demo import launch_settings, serve
from chat.engine import Engine, SamplingParams
from chat.environment import allowed_hosts, secret_from_environment
from chat.examples import examples_from_records, starters
from chat.i18n.model_names import base_name, display_name, method_name
from chat.i18n.texts import Text
from chat.limits import BusyError, TooLongError, check_size, check_tokens
from chat.models import Models
from chat.page import make_page
from chat.side_by_side import drop_last_reply, drop_unanswered, error_text, escape_messages
from tests.helpers.accessibility import grave_findings
from tests.helpers.browsing import QUESTION, ask, browsing, bubbles, visiting
from tests.helpers.commands import python
from tests.helpers.paths import ROOT
from tests.helpers.ports import free_port
from tests.helpers.workspace import CHATS
from tuneline.cli.app import app
from tuneline.formats.records import read_heldout

pytestmark = pytest.mark.story
CHINESE, LATIN = re.compile(r"[\u4e00-\u9fff]"), re.compile(r"[A-Za-z]{2,}")
USER, ANSWER = {"role": "user", "content": QUESTION}, {"role": "assistant", "content": "多休息。"}


@pytest.fixture(scope="module")
def served(made):
    """The engine and the address of its page."""
    here = Path.cwd()
    os.chdir(made)
    # In bfloat16 who else is in a batch changes the last bits, and so an answer of a tiny model.
    engine = Engine(Models(dtype="float32"))
    page = make_page(engine, examples_from_records(read_heldout(Path("data/processed/heldout.jsonl"))))
    url = serve(page, launch_settings("127.0.0.1", free_port(), None))
    yield engine, url
    page.close(verbose=False)
    os.chdir(here)


def also(value):
    """Only in `make test-all`."""
    return pytest.param(value, marks=pytest.mark.matrix)


def click(page, name):
    page.locator(f"#buttons #{name}").click()


def finished(page) -> list[str]:
    """Replies of the two columns, when both have finished."""
    page.locator(".answer-status p", has_text="tokens/s").nth(1).wait_for()
    page.locator("#send:enabled").wait_for()
    return bubbles(page)


def limit(page, tokens):
    page.locator("#settings > button").click()
    page.locator("#max-new-tokens input[type=range]").wait_for(state="visible")
    page.locator("#max-new-tokens input[type=number]").fill(str(tokens))
    page.locator("#max-new-tokens input[type=number]").press("Tab")
    page.wait_for_function(
        "tokens => document.querySelector('#max-new-tokens input[type=range]').value == tokens", arg=tokens
    )
    page.locator("#settings > button").click()
    page.locator("#max-new-tokens").wait_for(state="hidden")


def engine_says(engine, name, question=QUESTION, tokens=64) -> str:
    messages = [{"role": "user", "content": question}]
    return "".join(delta.text for delta in engine.stream(name, messages, SamplingParams(tokens)))


def compact(text) -> str:
    """A browser shows white space in its own way."""
    return "".join(text.split())


def test_conversations_go_on_from_the_last_whole_answer():
    assert drop_unanswered([USER, ANSWER]) == [USER, ANSWER]
    assert drop_unanswered([USER, ANSWER, USER]) == [USER, ANSWER]
    assert drop_unanswered([]) == drop_last_reply([]) == []
    assert drop_last_reply([USER, ANSWER]) == drop_last_reply([USER]) == [USER]
    assert escape_messages([{"role": "user", "content": '<b> & "'}]) == [
        {"role": "user", "content": '&lt;b&gt; &amp; "'}
    ]


def test_examples_are_single_questions_with_what_goes_with_them():
    system = {"role": "system", "content": "你是医生。"}
    long = {"role": "user", "content": "头痛\n" * 30}
    records = [
        {"messages": [system, long, ANSWER], "references": ["a", "b"], "source": "s"},
        {"messages": [USER, ANSWER] * 2, "source": "s"},
    ]
    (example,) = examples_from_records(records)
    assert example.question == long["content"] and example.system == "你是医生。" and example.reference == "a\nb"
    assert len(example.label) < 50 and "\n" not in example.label
    assert len(examples_from_records([{"messages": [USER, ANSWER], "source": "s"}] * 60)) == 50


def test_the_empty_page_offers_a_short_question_of_each_kind():
    def record(question, source):
        return {"messages": [{"role": "user", "content": question}, ANSWER], "source": source}

    records = [record("很长的问题" * 9, "medical"), record("长一些的问题", "medical"), record("短的", "law")]
    offered = starters(examples_from_records([*records, record("最短", "medical"), record("牙痛怎么办", "law")]))
    assert [example.question for example in offered] == ["最短", "短的", "长一些的问题", "牙痛怎么办"], (
        "most items first"
    )
    assert [example.question for example in starters(examples_from_records(records[:1]))] == ["很长的问题" * 9]
    assert starters([]) == []


def test_models_have_names_that_a_visitor_understands():
    assert base_name({"_model_name_or_path": "Gemma 3 270m", "model_type": "gemma3_text"}, "") == "Gemma 3 270M"
    assert base_name({"model_type": "gemma3_text"}, "gemma-3-270m") == "Gemma 3 270M"
    assert base_name({"model_type": "glm"}, "./bases/chatglm3-6b") == "ChatGLM3-6B"
    assert base_name({"model_type": "qwen2"}, "Qwen/Qwen2.5-0.5B") == "Qwen2.5-0.5B"
    assert base_name({"model_type": "gemma3_text"}, "") == "Gemma 3"
    assert base_name({"model_type": "new_kind"}, "") == "new_kind"
    assert method_name({"tune": {"method": "lora"}, "lora": {"variant": "dora", "quantize": None}}).en == "DoRA"
    assert method_name({"tune": {"method": "lora"}, "lora": {"variant": "lora", "quantize": "nf4"}}).en == "QLoRA"
    assert method_name({"tune": {"method": "full"}, "lora": {"variant": "dora"}}) == Text("全参数", "all parameters")
    assert method_name({"tune": {"method": "newer"}}).en == "newer" and method_name({}).en == "LoRA"
    names = [display_name(name, "Gemma", method_name({})) for name in ("base", "adapter", "merged", "rev:HEAD~1")]
    assert [name.zh for name in names] == [
        "Gemma（微调前）", "Gemma（微调后，LoRA）", "Gemma（微调后，已合并）", "Gemma（微调后，版本 HEAD~1）",
    ]  # fmt: skip
    assert [name.en for name in names] == [
        "Gemma (before tuning)", "Gemma (after tuning, LoRA)", "Gemma (after tuning, merged)",
        "Gemma (after tuning, revision HEAD~1)",
    ]  # fmt: skip


def test_what_a_visitor_may_meet_is_told_in_either_language():
    many, long = [USER] * 65, [{"role": "user", "content": "头" * 40_000}]
    calls = [lambda: check_size(many), lambda: check_size(long), lambda: check_tokens(5000, 8, 9000)]
    errors = [BusyError(20)]
    for call in calls:
        with pytest.raises(TooLongError) as raised:
            call()
        errors.append(raised.value)
    for error in errors:
        text = error_text(error)
        assert text.en == str(error) and not CHINESE.search(text.en)
        assert CHINESE.search(text.zh) and not LATIN.search(text.zh)
        assert re.findall(r"\d+", text.zh) and set(re.findall(r"\d+", text.zh)) == set(re.findall(r"\d+", text.en))
    assert error_text(ValueError("the adapter\nis of another base")).en == "the adapter is of another base"
    secret = error_text(RuntimeError("/home/somebody"))
    assert "somebody" not in secret.en + secret.zh and not LATIN.search(secret.zh)


def test_nobody_else_is_let_in_without_a_password(made, monkeypatch):
    monkeypatch.delenv("TUNELINE_PASSWORD", raising=False)
    settings = launch_settings("127.0.0.1", 7860, secret_from_environment("TUNELINE_PASSWORD", "127.0.0.1"))
    assert settings["share"] is False and settings["strict_cors"] and settings["auth"] is None
    assert not settings["allowed_paths"] and not settings["enable_monitoring"] and not settings["footer_links"]
    monkeypatch.setenv("TUNELINE_PASSWORD", "一二三四五六七八")
    password = secret_from_environment("TUNELINE_PASSWORD", "0.0.0.0")
    assert launch_settings("0.0.0.0", 7860, password)["auth"] == [("tuneline", "一二三四五六七八")]
    monkeypatch.setenv("TUNELINE_PASSWORD", "short")
    with pytest.raises(ValueError, match="TUNELINE_PASSWORD has 5 characters"):
        secret_from_environment("TUNELINE_PASSWORD", "127.0.0.1")
    env = {"TUNELINE_PASSWORD": "", "PYTHONPATH": str(ROOT)}
    refused = python(made, "-m", "tuneline", "demo", "--host", "0.0.0.0", env=env)
    assert refused.returncode == 1 and "TUNELINE_PASSWORD" in refused.stderr
    assert refused.stderr.startswith("demo: ") and refused.stderr.count("\n") == 1


def test_what_hinders_the_start_is_told_in_a_sentence(made, tmp_path, monkeypatch):
    monkeypatch.chdir(made)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr("sys.argv", ["tuneline", "demo", "--port", str(port)])
        with pytest.raises(SystemExit) as end:
            app()
    assert end.value.code == f"demo: port {port} of 127.0.0.1 can't be had: choose another by --port"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="demo: there is no model in models/base or models/merged"):
        app()


def test_the_door_knows_its_own_page():
    def objection(of="127.0.0.1", method="POST", path="/gradio_api/queue/join", **headers):
        given = {"host": "127.0.0.1:7860", "content-length": "9"} | headers
        given = Headers({name.replace("_", "-"): value for name, value in given.items()})
        return str(PageAccess(None, allowed_hosts(of)).error(method, path, given) or "")

    assert objection() == objection(origin="http://127.0.0.1:7860") == ""
    assert "Origin is 'http://evil.example', expected none" in objection(origin="http://evil.example")
    assert objection(origin="null") and objection(origin="http://127.0.0.1:8000")
    assert "Host is 'evil.example:7860', expected one of" in objection(host="evil.example:7860")
    assert objection(of="0.0.0.0", host="demo.example", origin="http://demo.example") == ""
    assert objection(path="/gradio_api/upload") and objection(content_length="999999999")


def test_the_server_refuses_what_the_page_never_asks(served):
    engine, url = served
    with httpx.Client(base_url=url, trust_env=False) as client:
        config = client.get("config").json()
        sending = next(event for event in config["dependencies"] if len(event["targets"]) == 2)
        initial = {item["id"]: item["props"].get("value") for item in config["components"]}

        def post(model, **headers):
            data = [initial.get(number) for number in sending["inputs"]]
            data[0], data[3] = QUESTION, model
            body = {"data": data, "fn_index": sending["id"], "session_hash": "abc", "event_data": None}
            return client.post("gradio_api/queue/join", json=body, headers=headers)

        assert post("base", origin="http://evil.example").status_code == 403
        assert client.post("gradio_api/upload", files={"files": b"x"}).status_code == 403
        for path in ("gradio_api/file=params.yaml", f"gradio_api/file={ROOT}/params.yaml", "gradio_api/run/on_send"):
            assert client.get(path).status_code in (403, 404, 405)
        for model in ("../base", "/etc/passwd", "rev:../../x", {"path": "/etc/passwd"}):
            assert post(model).status_code == 200
            with client.stream("GET", "gradio_api/queue/data", params={"session_hash": "abc"}) as events:
                body = "".join(events.iter_text())
            assert "root:" not in body and '"success":false' in body and "Traceback" not in body
        assert client.get("").headers["content-security-policy"].startswith("default-src 'self'")
    assert engine.in_flight == 0


WATCH_LENGTHS = """() => {
  const columns = [...document.querySelectorAll(".answer-column")];
  window.lengths = columns.map(() => new Set());
  columns.forEach((column, place) => new MutationObserver(() =>
    column.querySelectorAll(".message.bot").forEach(bubble => window.lengths[place].add(bubble.innerText.length))
  ).observe(column, {childList: true, characterData: true, subtree: true}));
}"""
"""Keeps every length that an answer has had: asking from outside would miss most of them on a busy machine."""


@browsing
def test_both_sides_stream_what_the_engine_says(served, browser):
    engine, url = served
    with visiting(browser, url) as page:
        assert page.locator("html").get_attribute("lang") == "zh-Hans"
        assert page.get_by_text("模型的回答不构成医疗或法律建议").is_visible()
        limit(page, 64)
        page.evaluate(WATCH_LENGTHS)
        ask(page)
        replies = finished(page)
        assert [compact(reply) for reply in replies] == [
            compact(engine_says(engine, name)) for name in ("base", "adapter")
        ]
        assert replies[0] != replies[1] and min(page.evaluate("window.lengths.map(seen => seen.size)")) > 1
        assert re.fullmatch(
            r"\d+ 词元，[\d.]+ 秒，每秒 [\d.]+ 词元.*", page.locator(".answer-status p").first.inner_text()
        )
        # The right model is another one now: its next answer differs, and both go on with their own conversation.
        page.locator(".answer-column").nth(1).locator("input").click()
        page.get_by_role("option", name="微调前").click()
        click(page, "clear")
        page.locator(".message").first.wait_for(state="detached")
        ask(page)
        page.locator(".message.bot").nth(1).wait_for()
        again = finished(page)
        assert again == [replies[0], replies[0]]
        click(page, "retry")
        page.locator("#send:disabled").wait_for()
        assert finished(page) == again
        ask(page, "还有呢？")
        page.locator(".message.bot").nth(3).wait_for()
        finished(page)
        assert bubbles(page, "user") == [QUESTION, "还有呢？"] * 2
        click(page, "clear")
        page.locator(".message").first.wait_for(state="detached")


@browsing
def test_conversations_are_kept_in_the_browser_and_nowhere_else(served, browser):
    with visiting(browser, served[1], accept_downloads=True) as page:
        limit(page, 8)
        ask(page, "<b>我咳嗽</b>")
        first = finished(page)
        ask(page, "还有呢？")
        page.locator(".message.bot").nth(3).wait_for()
        finished(page)
        click(page, "clear")
        page.locator(".message").first.wait_for(state="detached")
        ask(page)
        page.locator(".message.bot").nth(1).wait_for()
        finished(page)
        page.reload()
        page.locator("#conversations").click()
        kept = page.locator("#kept")
        assert kept.locator("summary").evaluate_all("all => all.map(one => one.firstChild.textContent)") == [
            QUESTION,
            "<b>我咳嗽</b>",
        ]
        kept.locator("summary").nth(1).click()
        told = kept.locator("details").nth(1)
        assert [compact(text) for text in told.locator(".assistant p").all_inner_texts()][::2] == list(
            map(compact, first)
        )
        with page.expect_download() as download:
            told.get_by_role("button", name="JSON").click()
        lines = [json.loads(line) for line in Path(download.value.path()).read_text(encoding="utf-8").splitlines()]
        assert [[one["role"] for one in line["messages"]] for line in lines] == [["user", "assistant"] * 2] * 2
        assert lines[1]["messages"][0]["content"] == "<b>我咳嗽</b>" and "after tuning" in lines[1]["model"]
        with page.expect_download() as download:
            told.get_by_role("button", name="Markdown").click()
        assert "> 还有呢？" in Path(download.value.path()).read_text(encoding="utf-8")
        told.get_by_role("button", name="再问一次").click()
        assert page.locator("#question textarea").input_value() == "<b>我咳嗽</b>" and not kept.is_visible()
        page.locator("#conversations").click()
        kept.get_by_role("button", name="全部删除").click()
        assert "还没有对话" in kept.inner_text()
        page.keyboard.press("Escape")
        assert not kept.is_visible() and page.evaluate("localStorage.getItem('tuneline-conversations')") == "[]"


@browsing
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_grave_is_found_on_the_page(served, browser, scheme):
    with visiting(browser, served[1], color_scheme=scheme, bypass_csp=True) as page:
        assert grave_findings(page) == []
        limit(page, 4)
        ask(page)
        finished(page)
        page.locator("#language").click()
        page.wait_for_function("document.documentElement.lang === 'en'")
        assert grave_findings(page) == []
        page.locator("#settings > button").click()
        page.locator("#max-new-tokens input[type=range]").wait_for(state="visible")
        assert grave_findings(page) == []
        page.keyboard.press("Escape")
        page.locator("#conversations").click()
        page.locator("#kept .said").first.wait_for()
        assert grave_findings(page) == []


@browsing
def test_stop_ends_the_answer_and_a_closed_tab_does_too(served, browser):
    engine, url = served

    def idle():
        until = time.monotonic() + 10
        while engine.in_flight and time.monotonic() < until:
            time.sleep(0.05)
        return engine.in_flight == 0

    with visiting(browser, url) as page:
        limit(page, 1000)
        ask(page)
        page.locator(".answer-column").nth(1).locator(".message.bot").wait_for()
        click(page, "stop")
        page.locator(".answer-status p", has_text="已停止").nth(0).wait_for()
        page.locator("#send:enabled").wait_for()
        assert idle()
        assert 0 < int(page.locator(".answer-status p").nth(1).inner_text().split()[0]) < 1000
        ask(page)
        page.locator(".answer-column").nth(1).locator(".message.bot").nth(1).wait_for()
    assert idle()


@browsing
def test_an_example_fills_the_box_and_shows_its_reference(served, browser):
    with visiting(browser, served[1]) as page:
        page.locator("#examples input").click()
        page.get_by_role("option").nth(1).click()
        page.wait_for_function("document.querySelector('#question textarea').value != ''")
        assert page.locator("#question textarea").input_value() == CHATS[1][0]["content"]
        page.locator("#reference blockquote").wait_for(state="visible")
        assert page.locator("#reference").inner_text().split("\n") == ["参考答案", CHATS[1][1]["content"]]


@browsing
def test_text_is_text_and_refusals_are_sentences(served, browser):
    nasty = "<img src=/x onerror=alert(1)> ![](http://evil.example/x.png) <script>alert(2)</script> a < b &amp; **c**"
    with visiting(browser, served[1], permissions=["clipboard-read", "clipboard-write"]) as page:
        limit(page, 4)
        ask(page, nasty)
        finished(page)
        assert bubbles(page, "user") == [nasty, nasty]
        assert page.locator(".message img, .message script, .message strong").count() == 0
        page.locator(".answer-column").first.locator(".message-row, .message-wrap").locator("button").first.click()
        page.wait_for_function("navigator.clipboard.readText().then(text => text != '')")
        assert page.evaluate("navigator.clipboard.readText()") == nasty
        ask(page, "头" * 9000)
        page.locator(".answer-status .error").nth(1).wait_for()
        assert (
            page.locator(".error span:visible").first.evaluate("span => getComputedStyle(span).color")
            == "rgb(179, 38, 30)"
        )
        refusals = page.locator(".answer-status .error").all_inner_texts()
        assert all("个词元" in text and "请缩短" in text for text in refusals)
        page.locator("#send:enabled").wait_for()
        ask(page, "再问")
        page.locator(".answer-status .error").first.wait_for(state="detached")
        finished(page)
        assert bubbles(page, "user") == [nasty, "再问"] * 2


@browsing
def test_an_input_method_is_not_interrupted(served, browser):
    with visiting(browser, served[1]) as page:
        page.locator("#question textarea").click()
        keys = page.context.new_cdp_session(page)
        keys.send("Input.imeSetComposition", {"text": "ganmao", "selectionStart": 6, "selectionEnd": 6})
        keys.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", "key": "Process", "windowsVirtualKeyCode": 229})
        keys.send("Input.insertText", {"text": "感冒"})
        page.locator("#question textarea").press("Shift+Enter")
        page.keyboard.insert_text("怎么办")
        assert page.locator("#question textarea").input_value() == "感冒\n怎么办"
        assert page.locator(".message").count() == 0


@browsing
def test_five_users_at_once_get_their_own_answers(served, browser):
    engine, url = served
    questions = [chat[0]["content"] for chat in CHATS[:5]]
    expected = [[engine_says(engine, name, question, 24) for name in ("base", "adapter")] for question in questions]
    contexts = [browser.new_context() for _ in questions]
    pages = [context.new_page() for context in contexts]
    for page in pages:
        page.goto(url)
        page.locator("#question textarea").wait_for()
        limit(page, 24)
    for page, question in zip(pages, questions, strict=True):
        ask(page, question)
    for page, answers in zip(pages, expected, strict=True):
        assert [compact(reply) for reply in finished(page)] == [compact(reply) for reply in answers]
    for context in contexts:
        context.close()


@browsing
@pytest.mark.parametrize(
    ("scheme", "locale"), [("light", "en-US"), pytest.param("dark", "zh-CN", marks=pytest.mark.matrix)]
)
def test_a_phone_needs_no_sideways_scrolling(served, browser, scheme, locale):
    phone = {"viewport": {"width": 390, "height": 844}, "color_scheme": scheme, "locale": locale}
    with visiting(browser, served[1], **phone) as page:
        for button in page.locator("#buttons > button, #settings > button").all():
            assert button.evaluate("button => button.scrollWidth <= button.clientWidth")
            assert button.bounding_box()["height"] < 50
        limit(page, 16)
        ask(page, "感冒" * 100)
        finished(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        left, right = (column.bounding_box() for column in page.locator(".answer-column").all())
        assert right["y"] >= left["y"] + left["height"]
        box = page.locator("#disclaimer p").bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 844


@browsing
def test_nothing_typed_leaves_the_buttons_as_they_are(served, browser):
    with visiting(browser, served[1]) as page:
        buttons = page.locator("#buttons > button")
        captions = buttons.all_inner_texts()
        assert all(caption.strip() for caption in captions)

        for text in ("", "  \n "):
            page.locator("#question textarea").fill(text)
            for act in (
                buttons.nth(0).click,
                lambda: page.locator("#question textarea").press("Enter"),
                buttons.nth(2).click,
            ):
                with page.expect_response("**/queue/join**"):
                    act()
                page.wait_for_timeout(300)
                assert buttons.all_inner_texts() == captions
        limit(page, 4)
        ask(page)
        finished(page)
        assert buttons.all_inner_texts() == captions


WATCH_LAYOUT = """(() => {
  window.layouts = new Set();
  const look = () => {
    const boxes = [...document.querySelectorAll("#composer, .answer-column")].map(item => item.getBoundingClientRect());
    if (boxes.length === 3) window.layouts.add(boxes.map(box => `${box.left} ${box.width}`).join(", "));
    requestAnimationFrame(look);
  };
  look();
})()"""
"""Keeps every place and width that the composer and the columns have had, from the first frame on."""


@browsing
@pytest.mark.parametrize(
    "width", [pytest.param(1280, marks=pytest.mark.matrix), pytest.param(800, marks=pytest.mark.matrix), 390]
)
def test_the_layout_is_the_same_from_the_first_frame_to_the_last(served, browser, width):
    with visiting(browser, served[1], viewport={"width": width, "height": 800}) as page:
        page.add_init_script(WATCH_LAYOUT)
        page.reload()
        page.locator("#question textarea").wait_for()
        limit(page, 24)
        page.locator(".starter").first.click()
        finished(page)
        ask(page, "头痛" * 200)
        page.locator(".message.user").nth(3).wait_for()
        finished(page)
        click(page, "clear")
        page.locator(".message").first.wait_for(state="detached")
        (layout,) = page.evaluate("[...window.layouts]")
        assert float(layout.split()[1].rstrip(",")) < width
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@browsing
@pytest.mark.parametrize(
    "size", [(390, 844), *(pytest.param(size, marks=pytest.mark.matrix) for size in ((1280, 800), (844, 390)))]
)
def test_settings_open_above_the_question(served, browser, size):
    with visiting(browser, served[1], viewport={"width": size[0], "height": size[1]}) as page:
        page.locator("#settings > button").click()
        panel = page.locator("#settings > div").last
        panel.wait_for(state="visible")
        box, question = panel.bounding_box(), page.locator("#question").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= size[0]
        assert box["y"] >= 0 and box["y"] + box["height"] <= question["y"]
        for field in panel.locator("input, textarea").all():
            field.scroll_into_view_if_needed()
            # Playwright clicks only what nothing else lies over.
            field.click(trial=True)
        page.keyboard.press("Escape")
        panel.wait_for(state="hidden")
        page.locator("#settings > button").click()
        panel.wait_for(state="visible")
        page.mouse.click(2, 2)
        panel.wait_for(state="hidden")


@browsing
def test_an_example_is_asked_by_a_click_and_its_reference_stands_beside_the_answers(served, browser):
    engine, url = served
    with visiting(browser, url) as page:
        limit(page, 16)
        first, second = (chat[0]["content"] for chat in CHATS[:2])
        assert page.locator(".starter").all_inner_texts() == [first, second]
        # Two clicks before the page has been told of the first one are one question.
        page.evaluate("document.querySelectorAll('.starter').forEach(button => button.click())")
        page.locator(".message.bot").nth(1).wait_for()
        replies, (question, same) = finished(page), bubbles(page, "user")
        assert question == same and question in (first, second)
        expected = [compact(engine_says(engine, name, question, 16)) for name in ("base", "adapter")]
        assert [compact(reply) for reply in replies] == expected
        assert not page.locator(".starter").first.is_visible()
        right, reference = (page.locator(part).last.bounding_box() for part in (".answer-column", "#reference"))
        assert reference["x"] >= right["x"] + right["width"] and abs(reference["y"] - right["y"]) < 40
        assert page.locator("#reference blockquote").inner_text() == CHATS[0][1]["content"]
        # What is no example has no reference; an example that is typed has.
        ask(page, "还有呢？")
        page.locator("#reference blockquote").wait_for(state="detached")
        page.locator(".message.bot").nth(3).wait_for()
        finished(page)
        click(page, "clear")
        page.locator(".starter").first.wait_for(state="visible")
        ask(page, second)
        page.locator("#reference blockquote").wait_for(state="visible")
        finished(page)


VISIBLE_TEXT = """() => [document.body.innerText,
  ...[...document.querySelectorAll("input[role=combobox]")].map(input => input.value),
  ...[...document.querySelectorAll("textarea")].map(area => area.placeholder)].join("\\n")"""
NAMES = (
    "Tuneline",
    "English",
    "中文",
    "Gemma",
    "LoRA",
    "Top-p",
    *(message["content"] for message in CHATS[0] + CHATS[1]),
)


def words(page) -> str:
    """What a visitor reads, without names and examples."""
    page.locator("#settings > button").click()
    page.locator("#max-new-tokens").wait_for(state="visible")
    text = page.evaluate(VISIBLE_TEXT)
    page.locator("#settings > button").click()
    page.locator("#max-new-tokens").wait_for(state="hidden")
    for name in sorted(NAMES, key=len, reverse=True):
        text = text.replace(name, "")
    return text


@browsing
@pytest.mark.parametrize("locale", ["zh-CN", also("zh-TW"), "en-GB", also("de-DE")])
def test_a_visitor_reads_one_language_and_can_switch_to_the_other(served, browser, locale):
    other = {"Send": "发送", "发送": "Send"}
    with visiting(browser, served[1], locale=locale) as page:

        def check(caption):
            page.wait_for_function(
                "caption => document.querySelector('#send')?.innerText.trim() === caption", arg=caption
            )
            wrong, right = (LATIN, CHINESE) if caption == "发送" else (CHINESE, LATIN)
            assert right.search(words(page)) and wrong.findall(words(page)) == []

        caption = "发送" if locale.startswith("zh") else "Send"
        check(caption)
        page.locator("#language").click()
        check(other[caption])
        page.reload()
        check(other[caption])
        page.locator(".starter").first.click()
        page.locator(".message.bot").nth(1).wait_for()
        # An answer that has begun goes on, and what stands under it is in the language of the page.
        page.locator("#language").click()
        finished(page)
        assert page.locator(".message.user").count() == 2
        page.evaluate("document.querySelectorAll('.message').forEach(message => message.remove())")
        check(caption)
        ask(page, "头" * 9000)
        page.locator(".answer-status .error").nth(1).wait_for()
        page.evaluate("document.querySelectorAll('.message').forEach(message => message.remove())")
        check(caption)


@browsing
def test_models_are_chosen_by_their_names(served, browser):
    with visiting(browser, served[1], locale="en-US") as page:
        page.locator(".answer-column").nth(1).locator("input").click()
        options = [option.inner_text().removeprefix("✓").strip() for option in page.get_by_role("option").all()]
        assert options == [
            f"Gemma 3 270M ({end})" for end in ("before tuning", "after tuning, LoRA", "after tuning, merged")
        ]
        assert served[0].models.names == ("base", "adapter", "merged")


@browsing
def test_the_login_page_names_its_user_in_the_visitors_language(served, browser):
    page = make_page(served[0], [])
    url = serve(page, launch_settings("127.0.0.1", free_port(), "一二三四五六七八"))
    try:
        for locale, message, other in (
            ("zh-CN", "用户名：tuneline", "User name"),
            ("en-US", "User name: tuneline", "用户名"),
        ):
            context = browser.new_context(locale=locale)
            visitor = context.new_page()
            visitor.goto(url)
            visitor.get_by_text(message).wait_for(timeout=15_000)
            assert other not in visitor.evaluate("document.body.innerText")
            visitor.locator("input").nth(0).fill("tuneline")
            visitor.locator("input").nth(1).fill("一二三四五六七八")
            visitor.locator("button").first.click()
            visitor.locator("#question textarea").wait_for(timeout=15_000)
            # Without held-out items there is nothing beside the columns.
            assert visitor.locator("#side").count() == 0 and visitor.locator(".answer-column").count() == 2
            context.close()
    finally:
        page.close(verbose=False)
