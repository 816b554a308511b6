"""Dialogues with tools in the shapes that are published: definitions, calls, what functions gave, and what is no such thing."""

import json

import pytest

from tests.helpers.reading import lines, read, write

WEATHER = {
    "name": "get_weather",
    "description": "查询天气",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
TOOLS = [{"type": "function", "function": WEATHER}]
CALL = {"name": "get_weather", "arguments": {"city": "北京"}}
ASKED = {"role": "user", "content": "北京天气怎么样？"}
CALLED = {"role": "assistant", "content": "", "tool_calls": [CALL]}
GIVEN = {"role": "tool", "content": '{"temp": 3}'}
ANSWERED = {"role": "assistant", "content": "北京三度。"}
WHOLE = [ASKED, CALLED, GIVEN, ANSWERED]


def text(value) -> str:
    return json.dumps(value, ensure_ascii=False)


def openai(*entries: dict, **fields) -> dict:
    return {"messages": [ASKED, *entries], "tools": TOOLS, **fields}


def openai_call(arguments, identifier: str = "a") -> dict:
    return {"id": identifier, "type": "function", "function": {"name": "get_weather", "arguments": arguments}}


def answer_to(identifier: str, content: str) -> dict:
    return {"role": "tool", "tool_call_id": identifier, "content": content}


HERMES_SYSTEM = (
    "You are a function calling AI model. You are provided with function signatures within <tools> </tools> XML tags. "
    "You may call one or more functions.\n<tools>\n" + text(TOOLS) + "\n</tools>\nFor each function call return a json "
    "object within <tool_call></tool_call> XML tags as follows:\n<tool_call>\n{tool_call}\n</tool_call>"
)
GLAIVE_SYSTEM = (
    "SYSTEM: You are a helpful assistant with access to the following functions. Use them if required -\n"
    + json.dumps(WEATHER, ensure_ascii=False, indent=4)
)
GLAIVE_CHAT = (
    'USER: 北京天气怎么样？\n\n\nASSISTANT: <functioncall> {"name": "get_weather", "arguments": \'{"city": "北京"}\'} '
    '<|endoftext|>\n\n\nFUNCTION RESPONSE: {"temp": 3}\n\n\nASSISTANT: 北京三度。 <|endoftext|>'
)
SHAPES = {
    "OpenAI, arguments as text": openai(
        {"role": "assistant", "content": None, "tool_calls": [openai_call(text(CALL["arguments"]))]},
        {"role": "tool", "tool_call_id": "a", "content": GIVEN["content"]},
        ANSWERED,
    ),
    "OpenAI, arguments as an object": openai(
        {"role": "assistant", "tool_calls": [openai_call(CALL["arguments"])]}, answer_to("a", '{"temp": 3}'), ANSWERED
    ),
    "OpenAI's earlier functions": {
        "functions": [WEATHER],
        "messages": [
            ASKED,
            {"role": "assistant", "content": None, "function_call": CALL | {"arguments": text(CALL["arguments"])}},
            {"role": "function", "name": "get_weather", "content": '{"temp": 3}'},
            ANSWERED,
        ],
    },
    "ChatGLM3": {
        "tools": [WEATHER],
        "conversations": [
            ASKED,
            {"role": "tool", "name": "get_weather", "parameters": {"city": "北京"}, "observation": {"temp": 3}},
            ANSWERED,
        ],
    },
    "ShareGPT": {
        "tools": text([WEATHER]),
        "conversations": [
            {"from": "human", "value": ASKED["content"]},
            {"from": "function_call", "value": text(CALL)},
            {"from": "observation", "value": GIVEN["content"]},
            {"from": "gpt", "value": ANSWERED["content"]},
        ],
    },
    "ms-swift": {
        "tools": text(TOOLS),
        "messages": [
            ASKED,
            {"role": "tool_call", "content": text(CALL)},
            {"role": "tool_response", "content": GIVEN["content"]},
            ANSWERED,
        ],
    },
    "Hermes": {
        "conversations": [
            {"from": "system", "value": HERMES_SYSTEM},
            {"from": "human", "value": ASKED["content"]},
            {"from": "gpt", "value": f"<tool_call>\n{text(CALL)}\n</tool_call>"},
            {"from": "tool", "value": f"<tool_response>\n{GIVEN['content']}\n</tool_response>"},
            {"from": "gpt", "value": ANSWERED["content"]},
        ]
    },
    "Hermes, as Python writes it": {
        "tools": repr(TOOLS),
        "conversations": [
            {"from": "human", "value": ASKED["content"]},
            {"from": "gpt", "value": f"<tool_call>\n{CALL!r}\n</tool_call>"},
            {"from": "human", "value": f"<tool_response>\n{GIVEN['content']}\n</tool_response>"},
            {"from": "gpt", "value": ANSWERED["content"]},
        ],
    },
    "a question and its answer in each turn": {
        "tools": [WEATHER],
        "conversation": [
            {"input": ASKED["content"], "output": f"<tool_call>\n{text(CALL)}\n</tool_call>"},
            {"input": f"<tool_response>\n{GIVEN['content']}\n</tool_response>", "output": ANSWERED["content"]},
        ],
    },
    "glaive": {"system": GLAIVE_SYSTEM, "chat": GLAIVE_CHAT},
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_a_published_shape(tmp_path, shape):
    result = read(write(tmp_path / "a.jsonl", lines(SHAPES[shape])))
    assert result.reasons == []
    (record,) = result.records
    assert record["messages"] == WHOLE
    assert record["tools"] == TOOLS
    assert record["task"] == "tools"
    assert not result.counts.unused
    from_system = shape in ("Hermes", "glaive")
    assert result.counts.repairs == ({"tools_from_system": 1} if from_system else {})


def test_the_same_in_another_shape_is_a_duplicate_and_another_call_is_none(tmp_path):
    other = json.loads(text(SHAPES["ms-swift"]).replace("北京\\\\\\", "上海\\\\\\").replace('\\"北京\\"', '\\"上海\\"'))
    assert other != SHAPES["ms-swift"]
    rows = [SHAPES["ChatGLM3"], SHAPES["ShareGPT"], other, SHAPES["ms-swift"] | {"tools": []}]
    ids = [record["id"] for record in read(write(tmp_path / "a.jsonl", lines(*rows))).records]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


def test_what_is_said_before_a_call_belongs_to_it(tmp_path):
    thought = {"role": "assistant", "content": "我来查一下。"}
    row = SHAPES["ChatGLM3"] | {"conversations": [ASKED, thought, *SHAPES["ChatGLM3"]["conversations"][1:]]}
    result = read(write(tmp_path / "a.jsonl", lines(row)))
    assert result.records[0]["messages"] == [ASKED, CALLED | thought, GIVEN, ANSWERED]
    hermes = {"from": "gpt", "value": f"<think>先查</think>我来查一下。\n<tool_call>\n{text(CALL)}\n</tool_call>"}
    turns = SHAPES["Hermes"]["conversations"]
    result = read(write(tmp_path / "b.jsonl", lines({"conversations": [*turns[:2], hermes, *turns[3:]]})))
    assert result.records[0]["messages"][1] == CALLED | thought | {"reasoning": "先查"}


def test_several_calls_at_once_with_their_answers_in_order(tmp_path):
    calls = [openai_call('{"city": "北京"}', "one"), openai_call('{"city": "上海"}', "two")]
    row = openai(
        {"role": "assistant", "tool_calls": calls}, answer_to("two", "五度"), answer_to("one", "三度"), ANSWERED
    )
    (record,) = read(write(tmp_path / "a.jsonl", lines(row))).records
    assert [call["arguments"]["city"] for call in record["messages"][1]["tool_calls"]] == ["北京", "上海"]
    assert [message["content"] for message in record["messages"][2:4]] == ["三度", "五度"]
    turns = [
        ("user", "x"),
        ("tool_call", text(CALL)),
        ("tool_call", text(CALL)),
        ("tool_response", "1"),
        ("assistant", "y"),
    ]
    row = {"messages": [{"role": role, "content": content} for role, content in turns]}
    (record,) = read(write(tmp_path / "b.jsonl", lines(row))).records
    assert record["messages"][1]["tool_calls"] == [CALL, CALL]
    assert "tools" not in record


def test_a_dialogue_may_end_with_a_call_or_call_nothing(tmp_path):
    rows = [openai(CALLED), openai(CALLED, GIVEN), openai(ANSWERED), openai(ANSWERED, tools=[])]
    result = read(write(tmp_path / "a.jsonl", lines(*rows)))
    assert [record["messages"] for record in result.records] == [[ASKED, CALLED]] * 2 + [[ASKED, ANSWERED]] * 2
    assert [record["task"] for record in result.records] == ["tools"] * 3 + ["qa"]
    assert result.counts.repairs == {"dropped_last_observation": 1}


def test_marks_of_calls_and_of_answers(tmp_path):
    masked = {"role": "tool", "name": "get_weather", "parameters": {"city": "北京"}, "observation": "3", "loss": False}
    row = {"tools": [WEATHER], "conversations": [ASKED, masked, ANSWERED]}
    (record,) = read(write(tmp_path / "a.jsonl", lines(row))).records
    assert [message.get("learn") for message in record["messages"]] == [None, False, None, None]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (openai({"role": "assistant", "tool_calls": [openai_call('{"city": ')]}), "call_unreadable"),
        (openai({"role": "assistant", "tool_calls": [openai_call("[1]")]}), "call_unreadable"),
        (openai({"role": "assistant", "tool_calls": [openai_call({"n": 2**70})]}), "call_unreadable"),
        (openai({"role": "assistant", "tool_calls": [openai_call({"n": "\ufffd"})]}), "broken_characters_in_call"),
        (openai({"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}), "call_unreadable"),
        (openai({"role": "assistant", "content": "<tool_call>{no}</tool_call>"}), "call_unreadable"),
        (openai(CALLED, ANSWERED), "call_without_observation"),
        (openai(CALLED, ASKED, ANSWERED), "call_without_observation"),
        (openai(GIVEN, ANSWERED), "observation_without_call"),
        (openai(CALLED, GIVEN, GIVEN, ANSWERED), "observation_without_call"),
        (openai(CALLED, GIVEN, ASKED, ANSWERED), "observation_without_answer"),
        (openai(ANSWERED, tools="get_weather(city)"), "tools_unreadable"),
        (openai(ANSWERED, tools=[{"description": "x"}]), "tools_unreadable"),
    ],
)
def test_what_can_not_be_read_is_rejected_with_its_reason(tmp_path, row, reason):
    good = openai(CALLED, GIVEN, ANSWERED)
    assert read(write(tmp_path / "a.jsonl", lines(row, good))).reasons == [reason]


def test_deep_arguments_are_rejected_and_do_not_end_the_stage(tmp_path):
    deep = "[" * 300 + "]" * 300
    row = openai({"role": "assistant", "tool_calls": [openai_call(f'{{"n": {deep}}}')]})
    assert read(write(tmp_path / "a.jsonl", lines(row, openai(ANSWERED)))).reasons == ["call_unreadable"]


def test_what_else_an_entry_holds_is_counted(tmp_path):
    row = openai(CALLED | {"weight": "x"}, GIVEN | {"status": "ok"}, ANSWERED)
    assert read(write(tmp_path / "a.jsonl", lines(row))).counts.unused == {"messages.weight": 1, "messages.status": 1}


@pytest.mark.parametrize(
    ("system", "rest"),
    [
        (
            f"请简短。\n\n# Tools\n\nYou may call …\n<tools>\n{text(TOOLS[0])}\n</tools>\n\n<tool_call>\n…\n</tool_call>",
            "请简短。",
        ),
        (f"{HERMES_SYSTEM}\n\n请简短。", "请简短。"),
        ("Tags are <tools>none</tools>", "Tags are <tools>none</tools>"),
        ("<tools>{broken</tools>", "<tools>{broken</tools>"),
    ],
)
def test_system_prompts_keep_what_is_not_of_tools(tmp_path, system, rest):
    row = {"messages": [{"role": "system", "content": system}, ASKED, ANSWERED]}
    (record,) = read(write(tmp_path / "a.jsonl", lines(row))).records
    assert record["messages"][0]["content"] == rest
    assert record.get("tools") == (TOOLS if rest == "请简短。" else None)


def test_a_system_prompt_of_glaives_without_functions(tmp_path):
    row = {"system": "SYSTEM: You have no access to external functions.", "chat": GLAIVE_CHAT}
    (record,) = read(write(tmp_path / "a.jsonl", lines(row))).records
    assert record["messages"] == [{"role": "system", "content": "You have no access to external functions."}, *WHOLE]


def test_a_question_that_calls_answer(tmp_path):
    row = {"id": 7, "query": ASKED["content"], "tools": text([WEATHER]), "answers": text([CALL, CALL])}
    broken = row | {"answers": text([CALL | {"arguments": "{"}])}
    plain = row | {"answers": "三度。", "query": "另一个问题是什么？"}
    result = read(write(tmp_path / "a.jsonl", lines(row, plain, broken)))
    called, spoken = result.records
    assert called["messages"] == [ASKED, CALLED | {"tool_calls": [CALL, CALL]}]
    assert (called["tools"], called["task"], spoken["task"]) == (TOOLS, "tools", "tools")
    assert spoken["tools"] == TOOLS
    assert result.reasons == ["call_unreadable"]
    assert result.counts.unused == {"id": 2}


def test_a_pair_keeps_its_tools_whatever_its_answer_is(tmp_path):
    row = {"instruction": ASKED["content"], "input": "", "tools": text([WEATHER])}
    tagged = row | {"output": f"我查。<tool_call>{text(CALL)}</tool_call>"}
    nothing = row | {"query": "别的问题？", "output": "[]"}
    result = read(write(tmp_path / "a.jsonl", lines(tagged, nothing)))
    (record,) = result.records
    assert record["messages"] == [ASKED, {"role": "assistant", "content": "我查。", "tool_calls": [CALL]}]
    assert (record["tools"], record["task"], result.reasons) == (TOOLS, "tools", ["empty_answer"])
    named = {"q": ASKED["content"], "apis": text([WEATHER]), "a": text([CALL])}
    columns = {"question": "q", "answer": "a", "tools": "apis"}
    (record,) = read(write(tmp_path / "b.jsonl", lines(named)), columns=columns).records
    assert record["messages"] == [ASKED, CALLED] and record["tools"] == TOOLS


def test_parameters_by_their_names_alone_become_a_schema(tmp_path):
    bare = {
        "city": {"type": "str, optional", "description": "城市"},
        "days": {"type": "List[int]"},
        "type": {"type": "X"},
    }
    row = {"query": ASKED["content"], "tools": text([WEATHER | {"parameters": bare}]), "answers": text([CALL])}
    (record,) = read(write(tmp_path / "a.jsonl", lines(row))).records
    assert record["tools"][0]["function"]["parameters"] == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "城市"},
            "days": {"type": "array"},
            "type": {"format": "X"},
        },
    }


@pytest.mark.parametrize(
    "given", [["Beijing", "Shanghai"], [{"date": "1", "value": "12"}], [{"id": 1, "text": "hi"}], []]
)
def test_a_list_that_a_function_gave_is_written_whole(tmp_path, given):
    (record,) = read(write(tmp_path / "a.jsonl", lines(openai(CALLED, GIVEN | {"content": given}, ANSWERED)))).records
    assert record["messages"][2]["content"] == text(given)


def test_thoughts_may_speak_of_calls(tmp_path):
    said = f"<think>I should use <tool_call> now.</think><tool_call>{text(CALL)}</tool_call>"
    (record,) = read(write(tmp_path / "a.jsonl", lines(openai({"role": "assistant", "content": said})))).records
    assert record["messages"][1]["tool_calls"] == [CALL]
    assert record["messages"][1]["reasoning"] == "I should use <tool_call> now."


@pytest.mark.parametrize("shape", ["Hermes", "glaive"])
def test_another_system_prompt_leaves_the_tools(tmp_path, shape):
    (record,) = read(write(tmp_path / "a.jsonl", lines(SHAPES[shape])), system="请简短。").records
    assert record["messages"] == [{"role": "system", "content": "请简短。"}, *WHOLE]
    assert record["tools"] == TOOLS


def test_much_white_space_takes_no_time(tmp_path):
    blank = " " * 50_000 + "x"
    said = {"role": "assistant", "content": f"{blank}<tool_call>{text(CALL)}</tool_call>"}
    row = openai(ASKED | {"content": f"<tool_response>{blank}"}, said)
    (record,) = read(write(tmp_path / "a.jsonl", lines(row))).records
    assert record["messages"][1]["content"] == "x"


def test_the_task_can_be_named_and_tools_ignored(tmp_path):
    path = write(tmp_path / "a.jsonl", lines(openai(ANSWERED)))
    assert read(path, task="qa").records[0]["task"] == "qa"
    assert "tools" not in read(path, ignore=["tools"]).records[0]
    renamed = {"messages": [ASKED, ANSWERED], "api": TOOLS}
    path = write(tmp_path / "b.jsonl", lines(renamed))
    assert read(path, columns={"tools": "api"}).records[0]["tools"] == TOOLS
    assert read(write(tmp_path / "c.jsonl", lines(renamed)), task="tools").records[0]["task"] == "tools"


def test_what_stands_beside_a_function_is_kept_or_the_record_is_refused(tmp_path):
    strict, odd = {"type": "function", "function": WEATHER, "strict": True}, WEATHER | {"type": "retrieval"}
    other = {"type": "function", "name": "another", "function": WEATHER}
    rows = [{"messages": [ASKED, ANSWERED], "tools": [tool]} for tool in (strict, odd, other)]
    reading = read(write(tmp_path / "a.jsonl", lines(*rows)))
    assert [record["tools"][0]["function"] for record in reading.records] == [WEATHER | {"strict": True}, odd]
    assert [reject["reason"] for reject in reading.rejects] == ["tools_unreadable"]
