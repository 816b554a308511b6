"""A tiny model is taught calls: scored from 0 to a name accuracy, then asked over the API."""

import contextlib
import json
import re

import openai
import pytest
import torch

from benchmarks.chat_templates import template_tokenizer
from chat.demo import launch_settings, serve
from chat.engine import Engine, SamplingParams
from chat.models import Models
from chat.page import make_page
from chat.replies.calls import read_calls_at_end
from chat.replies.deltas import Delta
from chat.side_by_side import drop_last_reply, drop_unanswered, escape_messages, open_calls
from chat.terminal import Session, converse, read_tools, run_command
from chat.tool_definitions import DefinitionsError, read_definitions
from tests.helpers.browsing import ask as ask_page
from tests.helpers.browsing import browsing, bubbles, visiting
from tests.helpers.call_templates import HERMES, MINISTRAL
from tests.helpers.ports import free_port
from tests.helpers.serving import CHAT, error_of
from tests.helpers.taught_calls import ASKED, CALLED, CITY, FOUND, TOOLS, lessons, made, teach
from tests.helpers.tiny_models import canonical
from tuneline.evaluate.compare import compare
from tuneline.evaluate.config import Evaluate
from tuneline.evaluate.predict import Model, predict
from tuneline.evaluate.results import prediction_rows
from tuneline.models.calls.answers import AnswerReader
from tuneline.models.chat_format import load_prompter
from tuneline.models.loading import load_model, load_tokenizer
from tuneline.models.thoughts import ThoughtMarks

PARAMS = Evaluate(max_new_tokens=40, max_thinking_tokens=10, batch_size=8, dtype="float32", constrain=None)


@pytest.fixture(
    scope="module", params=["Ministral", pytest.param("Hermes", marks=[pytest.mark.story, pytest.mark.matrix])]
)
def taught(request, tmp_path_factory):
    """(rows of base and taught model, folder of the taught one)."""
    folder = tmp_path_factory.mktemp("taught")
    base = made(folder, {"Hermes": HERMES, "Ministral": MINISTRAL}[request.param])
    model = Model(load_model(base, torch.float32), load_tokenizer(base), {})
    records, prompter = lessons(), load_prompter(load_tokenizer(base))
    before = predict(model, records, PARAMS, "test").answers
    teach(model.network, [prompter.training_row(r["messages"], "last_answer", tools=TOOLS) for r in records])
    after = predict(model, records, PARAMS, "test").answers
    model.network.save_pretrained(folder / "taught")
    model.tokenizer.save_pretrained(folder / "taught")
    canonical(folder / "taught", folder / "models/base", "float32")
    return prediction_rows(records, before, after), folder


def test_name_accuracy_rises_from_0(taught):
    rows, _ = taught
    metrics = compare(rows)
    assert metrics["base"]["tools_name_accuracy"]["value"] == metrics["base"]["tools_name_accuracy"]["low"] == 0
    tuned, delta = metrics["tuned"]["tools_name_accuracy"], metrics["delta"]["tools_name_accuracy"]
    assert tuned["value"] == tuned["high"] == delta["value"] == 100 and tuned["low"] < 100
    assert metrics["tuned"]["tools_exact_match"]["value"] == 100
    assert [row["tuned"] for row in rows][:2] == ['weather(city="a")', "a晴天"]
    assert rows[1]["question"] == 'a天气\n→ weather(city="a")\n← 晴'
    assert metrics["tuned"]["tools_valid"]["value"] == 100 and metrics["tuned"]["eos_rate"]["value"] == 100


@pytest.fixture(scope="module")
def engine(taught):
    with contextlib.chdir(taught[1]):
        # In bfloat16 the answer of a tiny model may hang on the last bits of a kind of CPU.
        engine = Engine(Models(dtype="float32"))
        engine.models.get("base")
    return engine


def ask(client, messages, **options):
    return client.chat.completions.create(
        model="base", messages=messages, **{"max_tokens": 60, "tools": TOOLS} | options
    )


def test_openais_client_gets_a_call_and_gives_what_it_found(client):
    first = ask(client, [ASKED]).choices[0]
    assert (first.finish_reason, first.message.content) == ("tool_calls", None)
    (call,) = first.message.tool_calls
    assert call.type == "function" and call.id.startswith("call_") and call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"city": "a"}
    talk = [
        ASKED,
        first.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "晴"},
    ]
    second = ask(client, talk, tool_choice="auto").choices[0]
    assert (second.finish_reason, second.message.content.strip(), second.message.tool_calls) == ("stop", "a晴天", None)
    plain = ask(client, [{"role": "user", "content": "你好"}]).choices[0]
    assert (plain.finish_reason, plain.message.content.strip(), plain.message.tool_calls) == ("stop", "好", None)
    assert ask(client, [ASKED], tool_choice="none").choices[0].message.tool_calls is None


def test_a_stream_brings_the_call_whole(client):
    chunks = list(ask(client, [ASKED], stream=True, stream_options={"include_usage": True}))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    (calls,) = [delta.tool_calls for delta in deltas if delta.tool_calls]
    assert (calls[0].index, calls[0].function.name) == (0, "weather") and calls[0].id.startswith("call_")
    assert json.loads(calls[0].function.arguments) == {"city": "a"}
    assert not "".join(delta.content or "" for delta in deltas)
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["tool_calls"]
    assert chunks[-1].usage.completion_tokens > 5
    with client.chat.completions.stream(model="base", messages=[ASKED], tools=TOOLS, max_tokens=60) as stream:
        final = stream.get_final_completion().choices[0]
    assert final.finish_reason == "tool_calls" and final.message.tool_calls[0].function.name == "weather"
    words = list(ask(client, [{"role": "user", "content": "你好"}], stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in words).strip() == "好"


CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "a"}'}}
MADE = {"role": "assistant", "content": None, "tool_calls": [CALL]}
NO_TEXT = {"type": "function", "function": {"name": ["weather"]}}
BAD_SCHEMA = {"type": "function", "function": {"name": "x", "strict": True, "parameters": {"type": 3}}}


@pytest.mark.parametrize(
    ("changes", "param", "says"),
    [
        ({"tool_choice": "always"}, "tool_choice", 'is "always", expected auto, none, required or a function among'),
        ({"tool_choice": {"type": "function", "function": {"name": "no"}}}, "tool_choice", "a function among weather"),
        ({"parallel_tool_calls": 1}, "parallel_tool_calls", "is 1, expected true or false"),
        ({"response_format": {"type": "json_object"}}, "response_format", "beside tools, expected one of them"),
        ({"tools": [{"type": "retrieval"}]}, "tools.0.type", 'is "retrieval", expected'),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name", 'is "a b", expected'),
        ({"tools": [BAD_SCHEMA]},
         "tools.0.function.parameters", "of a strict function are no JSON Schema: 3 is not valid"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"name": "weather"}]}}},
         "tool_choice", "a function among weather"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NO_TEXT]}}}, "tool_choice",
         "a function among weather"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": ["auto"], "tools": TOOLS}}}, "tool_choice",
         "a function among weather"),
        ({"tools": [*TOOLS, BAD_SCHEMA],
          "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [BAD_SCHEMA]}}},
         f"tools.{len(TOOLS)}.function.parameters", "no JSON Schema: 3 is not valid"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "none", "tools": TOOLS}}}, "tool_choice",
         "expected auto, none"),
        ({"tools": TOOLS * 129}, "tools", "at most 128"),
        ({"constrain": {"task": "label", "classes": ["x"]}}, "tools", "expected one of them"),
        ({"messages": [ASKED, MADE]}, "messages", "has no role tool for the call c1, expected one after it"),
        ({"messages": [ASKED, MADE, ASKED]}, "messages", "has no role tool for the call c1"),
        ({"messages": [ASKED, FOUND | {"tool_call_id": "c1"}]}, "messages.1.tool_call_id", "after a message"),
        ({"messages": [ASKED, MADE, FOUND | {"tool_call_id": "c2"}]}, "messages.2.tool_call_id", "one of c1"),
        ({"messages": [ASKED, FOUND]}, "messages.1", "tool_call_id where the role is tool"),
        ({"messages": [ASKED | {"tool_calls": [CALL]}]}, "messages.0", "tool_calls only where the role is assistant"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "is missing"),
        ({"messages": [ASKED, MADE | {"tool_calls": [CALL | {"function": {"name": "f", "arguments": "["}}]}]},
         "messages.1.tool_calls.0.function.arguments", "no object in JSON"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused(address, changes, param, says):
    import httpx

    body = {"model": "base", "messages": [ASKED], "max_tokens": 4, "tools": TOOLS} | changes
    assert says in error_of(httpx.post(address + CHAT, json=body), 400, param=param)


def test_a_call_that_is_forced_keeps_to_its_schema(client):
    named = {"type": "function", "function": {"name": TOOLS[0]["function"]["name"]}}
    for choice in ("required", named):
        answer = ask(client, [ASKED], tool_choice=choice, max_tokens=200, temperature=1, seed=3).choices[0]
        if answer.finish_reason == "tool_calls":
            (call,) = answer.message.tool_calls
            assert call.function.name in {tool["function"]["name"] for tool in TOOLS}
            assert isinstance(json.loads(call.function.arguments), dict) and answer.message.content is None
        else:
            assert answer.finish_reason == "length" and answer.message.content.lstrip().startswith('{"name": ')


def test_a_call_of_a_strict_function_keeps_to_its_schema_or_is_none(client):
    def asked(city, **options):
        function = {"name": "weather", "strict": True, "parameters": CITY | {"properties": {"city": city}}}
        return ask(client, [ASKED], tools=[{"type": "function", "function": function}], **options)

    for options in ({}, {"seed": 1}):
        kept, broken = asked({"type": "string"}, **options).choices[0], asked({"type": "integer"}, **options).choices[0]
        for answer in (kept, broken):
            for call in answer.message.tool_calls or ():
                assert answer is kept and isinstance(json.loads(call.function.arguments)["city"], str)
    chunks = list(asked({"type": "integer"}, stream=True))
    assert not any(chunk.choices[0].delta.tool_calls for chunk in chunks)


def test_tools_may_be_allowed(engine, client, monkeypatch):
    others = [*TOOLS, {"type": "function", "function": {"name": "other"}}]
    seen, stream = [], engine.stream

    def watched(name, messages, params, *more):
        seen.append(params)
        return stream(name, messages, params, *more)

    monkeypatch.setattr(engine, "stream", watched)
    for mode in ("auto", "required"):
        allowed = {"mode": mode, "tools": [{"type": "function", "function": {"name": "weather"}}]}
        answer = ask(client, [ASKED], tools=others, tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
        # What a model writes into a call that is forced it was not taught: it may come to no end.
        for call in answer.choices[0].message.tool_calls or ():
            assert call.function.name == "weather"
        assert mode == "required" or answer.choices[0].message.tool_calls
    assert [[tool["function"]["name"] for tool in params.tools] for params in seen] == [["weather"], ["weather"]]
    assert [params.calls.forced for params in seen] == [False, True]


def test_several_calls_are_answered_in_any_order(engine, monkeypatch, client):
    seen = []
    monkeypatch.setattr(engine, "stream", lambda name, messages, *_: seen.append(messages) or (n for n in ()))
    calls = [CALL, CALL | {"id": "c2"}]
    results = [{"role": "tool", "tool_call_id": name, "content": name} for name in ("c2", "c1")]
    with contextlib.suppress(openai.APIError):
        ask(client, [ASKED, {"role": "assistant", "tool_calls": calls}, *results])
    assert [message["content"] for message in seen[0]] == ["a天气", "", "c1", "c2"]
    assert seen[0][1]["tool_calls"][0] == {"name": "weather", "arguments": {"city": "a"}}


def test_the_terminal_takes_what_a_call_gives(taught, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(taught[1])
    path = tmp_path / "tools.json"
    path.write_text(json.dumps(TOOLS[0]["function"]), encoding="utf-8")
    session = Session("base", "", SamplingParams(40, tools=read_tools(path)))
    typed = iter(["晴"])
    monkeypatch.setattr("builtins.input", lambda prompt: print(prompt) or next(typed))
    converse(session, "a天气")
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [
        '→ weather(city="a")',
        "← weather:",
        "a晴天",
    ]
    assert [message["role"] for message in session.history] == ["user", "assistant", "tool", "assistant"]
    # Without an answer to its call a question is dropped.
    session.history.clear()
    monkeypatch.setattr("builtins.input", lambda prompt: (_ for _ in ()).throw(EOFError))
    converse(session, "b天气")
    assert session.history == []
    assert session.report("b天气")["calls"] == [{"name": "weather", "arguments": {"city": "b"}}]
    run_command(session, "/tools")
    assert session.params.tools == ()
    path.write_text("[{}]", encoding="utf-8")
    with pytest.raises(ValueError, match=f"{path}: tool 1 has no name"):
        run_command(session, f"/tools {path}")


@browsing
@pytest.mark.story
def test_the_page_shows_a_call_and_takes_what_it_gives(engine, browser):
    page = make_page(engine, [])
    url = serve(page, launch_settings("127.0.0.1", free_port(), None))
    with visiting(browser, url, locale="en-GB") as visitor:
        visitor.locator("#settings > button").click()
        visitor.locator("#tools textarea").fill("[{]")
        visitor.locator("#settings > button").click()
        ask_page(visitor, "a天气")
        visitor.locator(".answer-status .error", has_text="the tools are no JSON").nth(1).wait_for()
        visitor.locator("#settings > button").click()
        visitor.locator("#tools textarea").fill(json.dumps(TOOLS))
        visitor.locator("#settings > button").click()
        ask_page(visitor, "a天气")
        visitor.locator(".answer-status", has_text="waits for what the tool gives").nth(1).wait_for()
        assert bubbles(visitor) == ['→ weather(city="a")'] * 2
        left = visitor.locator(".observation textarea").first
        left.fill("晴")
        left.press("Enter")
        visitor.locator(".message.bot", has_text="a晴天").wait_for()
        assert bubbles(visitor, "user") == ["a天气", "← 晴", "a天气"]
        assert visitor.locator(".observation:visible").count() == 1, "the other column waits on"
        # A question of its own takes the place of calls without an answer.
        ask_page(visitor, "你好")
        visitor.locator(".message.user", has_text="你好").nth(1).wait_for()
        visitor.locator("#send:enabled").wait_for()
        assert bubbles(visitor, "user") == ["a天气", "← 晴", "你好", "你好"]
        assert visitor.locator(".observation:visible").count() == 0
    page.close(verbose=False)


def test_conversations_with_calls_go_on_from_what_is_whole():
    twice = {**CALLED, "tool_calls": CALLED["tool_calls"] * 2}
    assert drop_unanswered([ASKED, CALLED]) == drop_unanswered([ASKED, CALLED, FOUND]) == []
    whole = [ASKED, CALLED, FOUND, {"role": "assistant", "content": "晴天"}]
    assert drop_unanswered([*whole, ASKED, twice, FOUND]) == whole
    assert drop_last_reply(whole) == [ASKED, CALLED, FOUND]
    assert drop_last_reply([ASKED, CALLED]) == drop_last_reply([ASKED, twice, FOUND]) == [ASKED]
    assert open_calls([ASKED, twice, FOUND]) == CALLED["tool_calls"] and open_calls(whole) == open_calls([]) == []
    call = {"name": "f", "arguments": {"x": "<b>"}}
    assert escape_messages(
        [{"role": "assistant", "content": "", "tool_calls": [call]}, FOUND | {"content": "<i>"}]
    ) == [
        {"role": "assistant", "content": '→ f(x="&lt;b&gt;")'},
        {"role": "user", "content": "← &lt;i&gt;"},
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[{]", "the tools are no JSON"),
        ("3", "tool 1 has no name"),
        ('[{"name": "f"}, {"type": "function"}]', "tool 2 has no name"),
        ('{"name": "f", "parameters": {"type": "number of days"}}', "parameters of tool f are no JSON Schema"),
        ('{"name": "f", "parameters": [1]}', "parameters of tool f are no JSON Schema"),
        (json.dumps(TOOLS * 129), "there are 129 tools, expected 128 at most"),
    ],
)
def test_definitions_are_checked(text, says):
    with pytest.raises(DefinitionsError, match=says) as caught:
        read_definitions(text)
    assert re.search("[\u4e00-\u9fff]", caught.value.text.zh)
    assert read_definitions(" ") == () and read_definitions(json.dumps(TOOLS)) == tuple(TOOLS)


def test_a_base_without_tools_says_so(made, monkeypatch):
    monkeypatch.chdir(made)
    engine = Engine(Models())
    with pytest.raises(ValueError, match="^tools can't be given to this model: "):
        engine.stream("base", [ASKED], SamplingParams(tools=tuple(TOOLS)))


def streamed(text, template=HERMES, size=1, tools=TOOLS, marks=None, reason="stop"):
    """(texts, last delta) of a text that comes in pieces."""
    tokenizer = template_tokenizer(template)
    reader = AnswerReader(tokenizer, load_prompter(tokenizer))
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    deltas = (Delta(piece, n, 1, 0.0, None) for n, piece in enumerate([*pieces, ""]))
    ended = (d if d.completion_tokens < len(pieces) else d._replace(finish_reason=reason) for d in deltas)
    found = list(read_calls_at_end(ended, reader, marks or ThoughtMarks(), tools))
    return [delta.text for delta in found], found[-1]


WRITTEN = '<tool_call>\n{"name": "weather", "arguments": {"city": "a"}}\n</tool_call>'


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize(
    ("text", "shown", "calls"),
    [
        ("好，查一下。\n" + WRITTEN, "好，查一下。", 1),
        (WRITTEN + "\n" + WRITTEN, "", 2),
        ("1 < 2，<tool> 也不是 <tool_cal", "1 < 2，<tool> 也不是 <tool_cal", 0),
        ('<tool_call>\n{"name": }\n</tool_call>', '<tool_call>\n{"name": }\n</tool_call>', 0),
        ("<think>\n要 <tool_call> 吗\n</think>\n\n" + WRITTEN, "<think>\n要 <tool_call> 吗\n</think>", 1),
        ("<think>\n" + WRITTEN, "<think>\n" + WRITTEN, 0),
    ],
)
def test_text_is_streamed_until_a_call_may_begin(text, shown, calls, size):
    texts, last = streamed(text, size=size)
    assert "".join(texts) == shown
    assert last.calls == ({"name": "weather", "arguments": {"city": "a"}},) * calls
    assert last.finish_reason == ("tool_calls" if calls else "stop")
    assert streamed(text, size=size, reason="length")[1].finish_reason == "length"


def test_words_do_not_wait_for_the_end():
    texts, _ = streamed("好的，我来查一下今天的天气。\n" + WRITTEN)
    assert texts[:3] == ["好", "的", "，"]
