"""Tool calls read out of answers: the inverse of what a template writes, and of what models write nearly so."""

import json
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.chat_templates import published, template_tokenizer
from tests.helpers.call_templates import CALLING
from tuneline.models.calls.answers import AnswerReader
from tuneline.models.calls.reading import Calling, read_calls, types
from tuneline.models.calls.rendered import template_syntax
from tuneline.models.calls.syntax import CHATGLM3, HERMES, KNOWN
from tuneline.models.chat_format import load_prompter
from tuneline.models.template_render import TemplateRenderer

PUBLISHED = (
    "qwen2_5", "qwen3", "qwen3_5_nothink", "glm4moe", "llama3_1", "gemma4_v5", "lfm2_2_5", "nemotron_3_nano", "deepseekv3",
)  # fmt: skip
TEMPLATES = CALLING | {name: text for name, text in published().items() if name in PUBLISHED}
SINGLE = ("llama3_1",)
"""Those that refuse two calls in an answer."""
CANNOT = {"lfm2_2_5": "'\\", "gemma4_v5": "\\"}
"""Characters that a template does not escape in a string."""
FORGED = ("<parameter", "</parameter", "<arg_", "</arg_", '<|"|>', "<escape>", "tool_call", "QxQ")
NAMES = st.sampled_from(["get_weather", "search", "a.b-c", "查询"])
KEYS = st.sampled_from(["city", "days", "where", "名称"])
PLAIN = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")) | st.sampled_from('\n"{}()[]:,='), max_size=12
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)
CALLS = st.lists(
    st.fixed_dictionaries({"name": NAMES, "arguments": st.dictionaries(KEYS, VALUES, max_size=3)}),
    min_size=1,
    max_size=3,
)
WEATHER = {"name": "get_weather", "arguments": {"city": "北京"}}
TEXT = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "x", "parameters": TEXT}}]


@cache
def made(name):
    renderer = TemplateRenderer(
        template_tokenizer(TEMPLATES[name], markers="<|python_tag|><|observation|><escape>[TOOL_CALLS][ARGS]")
    )
    found = template_syntax(renderer)
    assert found, name
    return renderer, *found


def written(renderer, ending, calls, content=""):
    """What the template writes after its generation prompt, up to the answer's end."""
    asked = [{"role": "user", "content": "x"}]
    tools = [{"type": "function", "function": {"name": "x", "description": "x", "parameters": TEXT}}]
    for as_text in (False, True):
        given_calls = [
            {"type": "function", "id": "call00000", "function": {
                "name": call["name"],
                "arguments": json.dumps(call["arguments"], ensure_ascii=False) if as_text else call["arguments"],
            }}
            for call in calls
        ]  # fmt: skip
        answer = {"role": "assistant", "content": content, "tool_calls": given_calls}
        try:
            texts = [
                renderer.tokenizer.apply_chat_template(
                    messages, tools=tools, tokenize=False, add_generation_prompt=asks, enable_thinking=False,
                    thinking=False, chat_template=renderer.template,
                )
                for messages, asks in ((asked, True), ([*asked, answer], False))
            ]  # fmt: skip
        except Exception:
            continue
        size = next((n for n, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts)))
        text = texts[1][size:] if texts[1].startswith(texts[0]) else "<" * (texts[1][size - 1] == "<") + texts[1][size:]
        return text[: text.rindex(ending)] if ending and ending in text else text
    raise AssertionError("the template refuses it")


def typed(calls):
    """Definitions by which text is told from numbers."""
    kinds = {str: "string", bool: "boolean", int: "integer", list: "array", dict: "object", type(None): "null"}
    functions: dict = {}
    for call in calls:
        for key, value in call["arguments"].items():
            functions.setdefault(call["name"], {}).setdefault(key, set()).add(kinds[type(value)])
    return [
        {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {
            key: {"type": sorted(found)} for key, found in keys.items()
        }}}}
        for name, keys in functions.items()
    ]  # fmt: skip


def clear(value, name, inside=False) -> bool:
    """Whether a value can be told in this syntax at all."""
    if isinstance(value, dict):
        return all(clear(one, name, True) for one in value.values())
    if isinstance(value, list):
        return all(clear(one, name, True) for one in value)
    if not isinstance(value, str):
        return not (inside and name == "lfm2_2_5")
    return not any(part in value for part in (*FORGED, *CANNOT.get(name, "")))


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=60, deadline=None)
@given(calls=CALLS, content=st.sampled_from(["", "我来查一下。"]))
def test_reading_is_the_inverse_of_writing(name, calls, content):
    renderer, syntax, ending = made(name)
    calls = calls[:1] if name in SINGLE else calls
    calls = [c | {"arguments": {k: v for k, v in c["arguments"].items() if clear(v, name)}} for c in calls]
    if syntax.kind == "keyed":
        # Without a schema of its own a text cannot be told from a number; with one that allows both, neither.
        schemas = typed(calls)
        mixed = [p for t in schemas for p in t["function"]["parameters"]["properties"].values() if len(p["type"]) > 1]
        if mixed:
            return
    text = written(renderer, ending, calls, content)
    read = read_calls(text, [syntax], typed(calls))
    assert (read.calls, read.faults) == (calls, []), text
    assert read.content in ("", content)
    assert read_calls("  " + text.strip(), [syntax], typed(calls)).calls == calls, "as a decoder gives it back"


TAUGHT = (
    "Mistral",
    "Ministral",
    "Hermes",
    "qwen3",
    "qwen3_5_nothink",
    "glm4moe",
    "llama3_1",
    "gemma4_v5",
    "lfm2_2_5",
    "gptoss",
)


@pytest.mark.parametrize("name", TAUGHT)
@pytest.mark.parametrize("answered", [False, True])
def test_what_is_taught_is_read(name, answered):
    """The ids that carry loss are an answer that is read as the calls it was made of, up to the token that ends it."""
    calls = [{"name": "get_weather", "arguments": {"city": "上 海\n", "days": 3}}]
    calls = calls if name in (*SINGLE, "gptoss") else [*calls, WEATHER]
    talk = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "", "tool_calls": calls}]
    talk += (
        [{"role": "tool", "content": "x"} for _ in calls] + [{"role": "assistant", "content": "y"}] if answered else []
    )
    taught_and_read(template_tokenizer((TEMPLATES | published())[name]), talk, calls)


@pytest.mark.parametrize("content", ["", "我来查一下。"])
@pytest.mark.parametrize("answered", [False, True])
def test_chatglm3s_calls_are_read(pieces, answered, content):
    calls = [{"name": "get_weather", "arguments": {"city": "上 'x\"", "from": [3, None, True]}}]
    talk = [{"role": "user", "content": "x"}, {"role": "assistant", "content": content, "tool_calls": calls}]
    talk += [{"role": "tool", "content": "x"}, {"role": "assistant", "content": "y"}] if answered else []
    for _, _, tokenizer, _ in pieces.values():
        taught_and_read(tokenizer, talk, calls, content)


def taught_and_read(tokenizer, talk, calls, content="") -> None:
    prompter = load_prompter(tokenizer)
    reader = AnswerReader(tokenizer, prompter)
    row = prompter.training_row(talk, tools=TOOLS)
    learnt = [token for token in row.labels if token != -100]
    end = next(place for place, token in enumerate(learnt) if token in reader.stop_ids)
    said = prompter.thought_marks.split(reader.decode(learnt[:end]).strip(), prompter.opens_thoughts(False))
    assert reader.read(said.answer, TOOLS) == Calling(content, calls)
    # Without tools control tokens of calls are nothing.
    assert not any(name in reader.read(said.answer, None).content for name in reader.of_calls)


def test_a_form_that_is_not_read_is_refused():
    tokenizer = template_tokenizer(published()["muse_glimmer"])
    reader = AnswerReader(tokenizer, load_prompter(tokenizer))
    with pytest.raises(ValueError, match="writes calls in a form of its own, which can't be read in answers"):
        reader.read("x", TOOLS)


@pytest.mark.parametrize("name", TEMPLATES)
@given(
    text=st.text(max_size=60)
    | st.lists(
        st.sampled_from(["{", "}", '"name"', ":", '"x"', "\n", "x", "(", ")", "<tool_call>", ","]), max_size=20
    ).map("".join)
)
@settings(max_examples=40, deadline=None)
def test_any_text_is_read(name, text):
    _, syntax, _ = made(name)
    read = read_calls(text, [syntax])
    assert read.calls or read.faults or read.content == text.strip()


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "北京"}}\n</tool_call>',
        '<tool_call>{"arguments": {"city": "北京"}, "name": "get_weather"}</tool_call>',
        '<tool_call>\n{"name": "get_weather", "arguments": "{\\"city\\": \\"北京\\"}"}',
        "<tool_call>\n<function=get_weather>\n<parameter=city>\n北京\n</parameter>\n</function>\n</tool_call>",
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>北京</arg_value>\n</tool_call>",
        'get_weather\n{"city": "北京"}',
        '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "北京"}, "id": "abcdefghi"}]',
        '[TOOL_CALLS]get_weather[ARGS]{"city": "北京"}',
        '<|python_tag|>{"name": "get_weather", "parameters": {"city": "北京"}}',
        '{"name": "get_weather", "parameters": {"city": "北京"}}',
        '{"type": "function", "function": {"name": "get_weather", "arguments": {"city": "北京"}}}',
        "get_weather\n```python\ntool_call(city='北京')\n```",
        '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "北京"}}]<|/tool_call|>',
        "<start_function_call>call:get_weather{city:<escape>北京<escape>}<end_function_call>",
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{"city": "北京"}\n```'
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    ],
)
def test_syntaxes_in_use(text):
    read = read_calls(text, KNOWN, TOOLS)
    assert (read.calls, read.content, read.faults) == ([WEATHER], "", [])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('<tool_call>\n{"name": "get_weather", "arguments": {"city": }\n</tool_call>', "a call is no JSON"),
        ('<tool_call>\n{"name": "get_weather"}\n</tool_call>', "no name or no arguments"),
        ('<tool_call>\n{"name": "f", "arguments": ["x"]}\n</tool_call>', "arguments are list, expected an object"),
        ('<tool_call>\n{"name": "f", "arguments": {"x": NaN}}\n</tool_call>', "a call is no JSON: NaN"),
        ('<tool_call>\n{"name": "f", "arguments": {"x": 1e999}}\n</tool_call>', "a number that can't be written"),
        ('<tool_call>\n{"name": "f", "arguments": {"x": 100000000000000000000}}\n</tool_call>', "exceeds 64-bit"),
        ('<tool_call>\n{"name": "f", "arguments": {"x": "\\ud83d"}}\n</tool_call>', "surrogates not allowed"),
        ("<tool_call>\n" + "[" * 100_000, "recursion"),
    ],
)
def test_a_call_that_cannot_be_read_is_said_and_stays(text, fault):
    read = read_calls(text, [HERMES])
    assert read.calls == [] and fault in read.faults[0] and read.content == text.strip()
    both = read_calls(f'{text}\n<tool_call>{{"name": "g", "arguments": {{}}}}</tool_call> 完', [HERMES])
    assert both.calls == [{"name": "g", "arguments": {}}] and len(both.faults) == 1
    assert both.content.startswith("<tool_call>") and both.content.endswith("完")


@pytest.mark.parametrize(
    "inside",
    ["x=__import__('os').system('id')", "x=open('f')", "*[1]", "1", "x=f'{1}'", "x=[y for y in 'ab']", "x={1}"],
)
def test_nothing_is_evaluated(inside):
    text = f"f\n```python\ntool_call({inside})\n```"
    read = read_calls(text, [CHATGLM3])
    assert read.calls == [] and read.content == text


def test_names_of_arguments_that_python_reserves():
    read = read_calls("book\n```python\ntool_call(from='Rome, in = b', class=1)\n```", [CHATGLM3])
    assert read.calls == [{"name": "book", "arguments": {"from": "Rome, in = b", "class": 1}}]


def test_types_that_are_null():
    assert types({"type": None, "enum": None}) == []
    assert types({"type": None, "anyOf": [{"type": "string"}]}) == ["string"]


def test_an_answer_without_calls_is_text():
    for text in (
        '他说 {"name": "x"}。',
        "步骤\n一、{水}",
        "def f(x):\n    return x",
        '{"name": "x", "age": 3}',
        "1 < 2",
    ):
        assert read_calls(text, KNOWN, TOOLS) == read_calls(text, [HERMES]) and read_calls(text, KNOWN).content == text
