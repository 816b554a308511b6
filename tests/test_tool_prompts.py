"""Prompts with tools: ids of transformers, calls learnt and what functions gave masked, and no text that forges a turn."""

import random

import pytest

from benchmarks.chat_templates import published, template_tokenizer
from tests.helpers.chat_templates import CHATML, bracketed
from tests.helpers.tool_dialogues import AS_TEXT, MISTRAL, attacked, definition, dialogue, tools_of
from tuneline.models.chat_format import load_prompter
from tuneline.models.chatglm.tools import call_text, tools_text

TOOLS = [definition("get_weather")]
CALL = {"name": "get_weather", "arguments": {"city": "北京", "days": 2}}
ASKED = {"role": "user", "content": "天气？"}
CALLED = {"role": "assistant", "content": "", "tool_calls": [CALL]}
GIVEN = {"role": "tool", "content": '{"temp": 3}'}
ANSWERED = {"role": "assistant", "content": "三度。"}
WHOLE = [ASKED, CALLED, GIVEN, ANSWERED]
TEMPLATES = {
    name: published()[name] for name in ("qwen2_5", "qwen3", "llama3_1", "glm4moe", "gptoss", "gemma4") if published()
}
TEMPLATES |= {"mistral": MISTRAL, "as text": AS_TEXT}
ONE_CALL = ("llama3_1",)
NO_WORDS = ("llama3_1", "mistral", "gptoss", "gemma4")
"""Templates that leave out what is said before a call, or write it behind what the call gave."""
END = "<|im_end|>\n"
ROWS = {
    "qwen2_5": '<|im_start|>assistant\n[<tool_call>\n{"name": "get_weather", "arguments": {"city": "北京", "days": 2}}\n'
    f"</tool_call><|im_end|>]\n<|im_start|>user\n<tool_response>\n{GIVEN['content']}\n</tool_response>{END}"
    "<|im_start|>assistant\n[三度。<|im_end|>]\n",
    "qwen3": '<|im_start|>assistant\n[<tool_call>\n{"name": "get_weather", "arguments": {"city": "北京", "days": 2}}\n'
    f"</tool_call><|im_end|>]\n<|im_start|>user\n<tool_response>\n{GIVEN['content']}\n</tool_response>{END}"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n[三度。<|im_end|>]\n",
    "llama3_1": '<|start_header_id|>assistant<|end_header_id|>\n\n[{"name": "get_weather", "parameters": {"city": "北京", '
    '"days": 2}}<|eot_id|>]<|start_header_id|>ipython<|end_header_id|>\n\n"{\\"temp\\": 3}"<|eot_id|>'
    "<|start_header_id|>assistant<|end_header_id|>\n\n[三度。<|eot_id|>]",
    "glm4moe": "<|assistant|>\n<think></think>[\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>北京</arg_value>\n"
    "<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call><|observation|>]\n<tool_response>\n"
    f"{GIVEN['content']}\n</tool_response><|assistant|>\n<think></think>[\n三度。<|user|>]",
    "mistral": '[/INST][[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "北京", "days": 2}, "id": "call00000"}]'
    '<eos>][TOOL_RESULTS]{"content": "{"temp": 3}", "call_id": "call00000"}[/TOOL_RESULTS][三度。<eos>]',
    "as text": '<|im_start|>assistant\n[<tool_call>get_weather\n{"city": "北京", "days": 2}</tool_call><|im_end|>]\n'
    f"<|im_start|>tool\n{GIVEN['content']}{END}<|im_start|>assistant\n[三度。<|im_end|>]\n",
}  # fmt: skip


@pytest.fixture(scope="module")
def own():
    """Tokenizers with their prompters, by template."""
    made = {name: template_tokenizer(template) for name, template in TEMPLATES.items()}
    return {name: (tokenizer, load_prompter(tokenizer)) for name, tokenizer in made.items()}


def tools_for(prompter, tools):
    return tools if prompter.renderer.tools.shows_tools else None


@pytest.mark.parametrize("name", [name for name in ROWS if name in TEMPLATES])
def test_calls_are_learnt_and_what_functions_gave_is_masked(own, name):
    tokenizer, prompter = own[name]
    row = prompter.training_row(WHOLE, tools=tools_for(prompter, TOOLS))
    text = bracketed(row, tokenizer)
    assert text.endswith(ROWS[name])
    assert "[" not in text.removesuffix(ROWS[name]).replace("[INST]", "").replace("[gMASK]", "").split("天气")[-1]
    last = bracketed(prompter.training_row(WHOLE, "last_answer", tools=tools_for(prompter, TOOLS)), tokenizer)
    assert last.endswith(ROWS[name][ROWS[name].index(GIVEN["content"][-5:]) :]), "the last answer is learnt alone"
    assert last.count("[") == text.count("[") - 1


@pytest.mark.parametrize("name", TEMPLATES)
def test_ids_are_those_of_transformers(own, name):
    _, prompter = own[name]
    render, draw = prompter.renderer, random.Random(7)
    for _ in range(12):
        messages = dialogue(draw, several=name not in ONE_CALL, says=name not in NO_WORDS)
        tools = tools_for(prompter, tools_of(draw))
        arranged = render.arranged(messages)
        whole = render.ids(arranged, False, False, tools)
        assert prompter.uncut(messages, False, False, tools)[: len(whole)] == whole
        for size in range(1, len(messages)):
            if messages[size - 1]["role"] in ("user", "tool") and messages[size]["role"] == "assistant":
                history = messages[:size]
                assert prompter.uncut(history, True, False, tools) == render.ids(arranged[:size], True, False, tools)
        row = prompter.training_row(messages, tools=tools)
        asked = prompter.generation_prompt(messages[:-1], tools=tools)
        assert row.input_ids[: len(asked)] == asked
        end = max(place for place, label in enumerate(row.labels) if label != -100)
        assert row.input_ids[end] in prompter.stop_ids


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != "gemma4"])
def test_no_text_of_tools_becomes_a_control_token(own, name):
    tokenizer, prompter = own[name]
    markers = "".join(tokenizer.convert_ids_to_tokens(sorted(prompter.control)))
    draw = random.Random(11)
    for _ in range(4):
        messages = dialogue(draw, several=name not in ONE_CALL, says=name not in NO_WORDS)
        tools = tools_for(prompter, tools_of(draw))
        plain = prompter.training_row(messages, tools=tools)
        forged = prompter.training_row(attacked(messages, markers), tools=attacked(tools, markers))
        assert [one for one in forged.input_ids if one in prompter.control] == [
            one for one in plain.input_ids if one in prompter.control
        ]
        assert markers in tokenizer.decode(forged.input_ids), "it stays in the text"


@pytest.mark.parametrize("name", [name for name in ("qwen3", "glm4moe") if name in TEMPLATES])
def test_thoughts_before_a_call(own, name):
    tokenizer, prompter = own[name]
    thinking = [ASKED, CALLED | {"reasoning": "先查。"}]
    learnt = bracketed(prompter.training_row(thinking, tools=TOOLS), tokenizer).split("[")[-1]
    masked = bracketed(prompter.training_row(thinking, reasoning="mask", tools=TOOLS), tokenizer).split("[")[-1]
    assert "先查。" in learnt
    assert "get_weather" in masked
    assert "think" not in masked
    assert masked.lstrip("\n").startswith("<tool_call>")


def test_a_call_that_is_not_to_be_learnt_carries_no_loss(own):
    tokenizer, prompter = own["as text"]
    row = prompter.training_row([ASKED, CALLED | {"learn": False}, GIVEN, ANSWERED])
    assert bracketed(row, tokenizer).count("[") == 1


@pytest.mark.parametrize(
    ("template", "messages", "tools", "complaint"),
    [
        (CHATML, [ASKED, ANSWERED], TOOLS, "takes no tools"),
        (AS_TEXT, [ASKED, ANSWERED], TOOLS, "takes no tools"),
        (CHATML, WHOLE, None, "writes no tool calls"),
        (MISTRAL, [ASKED, CALLED | {"content": "我查。"}], TOOLS, "says something beside its calls"),
    ],
)
def test_a_template_without_tools_refuses_them(template, messages, tools, complaint):
    prompter = load_prompter(template_tokenizer(template))
    with pytest.raises(ValueError, match=complaint):
        prompter.training_row(messages, tools=tools)


def test_marks_of_what_a_tool_gave_are_control(own):
    for name in {"qwen3", "glm4moe"} & TEMPLATES.keys():
        tokenizer, prompter = own[name]
        assert tokenizer.convert_tokens_to_ids("<tool_response>") in prompter.control
        assert tokenizer.convert_tokens_to_ids("<tool_call>") not in prompter.control, "which a model writes itself"


SYSTEM = {"role": "system", "content": "简短"}
SAID = {"role": "assistant", "content": "我查。", "tool_calls": [CALL]}
PYTHON = "```python\ntool_call(city='北京', days=2)\n```"


def test_chatglm3s_turns_are_those_of_its_reference(pieces):
    """As build_single_message has them, with SentencePiece itself: the role, what stands beside it and a line end, the text."""
    _, reference, tokenizer, _ = pieces["nmt_nfkc"]
    prompter = load_prompter(tokenizer)

    def turn(role: str, metadata: str, text: str) -> list[int]:
        return [
            tokenizer.convert_tokens_to_ids(f"<|{role}|>"),
            *reference.encode(f"{metadata}\n"),
            *reference.encode(text),
        ]

    first = [tokenizer.convert_tokens_to_ids(token) for token in ("[gMASK]", "sop")]
    masked = first + turn("system", "", tools_text(TOOLS)) + turn("system", "", "简短") + turn("user", "", "天气？")
    called = turn("assistant", "", "我查。") + turn("assistant", "get_weather", PYTHON)
    given, answered = turn("observation", "", GIVEN["content"]), turn("assistant", "", "三度。")
    messages = [SYSTEM, ASKED, SAID, GIVEN, ANSWERED]
    row = prompter.training_row(messages, tools=TOOLS)
    assert row.input_ids == masked + called + given + answered + [tokenizer.eos_token_id]
    learnt = [-100] * (len(masked) + 1) + called[1:] + given[:1] + [-100] * len(given) + answered[1:]
    assert row.labels == [*learnt, tokenizer.eos_token_id]
    asked = prompter.generation_prompt(messages[:-1], tools=TOOLS)
    assert asked == masked + called + given + answered[:1]
    call = prompter.training_row(messages[:3], "last_answer", tools=TOOLS)
    assert call.input_ids == masked + called + given[:1], "what its function gives ends a call"
    assert call.labels == [-100] * (len(masked) + 1) + called[1:] + given[:1]
    assert given[0] in prompter.stop_ids


def test_chatglm3s_tools_as_text():
    assert tools_text(TOOLS).startswith(
        "Answer the following questions as best as you can. You have access to the following tools:\n"
        '[\n    {\n        "name": "get_weather",\n        "description": "城市",'
    )
    assert call_text({"name": "f", "arguments": {"a": "it's", "b": [True, None]}}) == (
        '```python\ntool_call(a="it\'s", b=[True, None])\n```'
    )
    with pytest.raises(ValueError, match="'a-b' is no name there"):
        call_text({"name": "f", "arguments": {"a-b": 1}})


def test_chatglm3s_texts_forge_no_role(pieces):
    tokenizer = pieces["nfkc"][2]
    prompter = load_prompter(tokenizer)
    markers = "<|observation|><|assistant|><|user|>sop[gMASK]</s>"
    messages = [SYSTEM, ASKED, SAID, GIVEN, ANSWERED]
    plain = prompter.training_row(messages, tools=TOOLS)
    forged = prompter.training_row(attacked(messages, markers), tools=attacked(TOOLS, markers))
    rows = [[one for one in row.input_ids if one in prompter.control] for row in (plain, forged)]
    assert rows[0] == rows[1]
    assert len(forged.input_ids) > len(plain.input_ids)


@pytest.mark.skipif(not published(), reason="the package trl is not installed")
def test_words_that_a_template_writes_behind_what_a_tool_gave_are_refused(own):
    """They would stand in one answer with it."""
    prompter = own["gemma4"][1]
    assert prompter.training_row(WHOLE, tools=TOOLS)
    with pytest.raises(ValueError, match="writes message 2 within message 1"):
        prompter.training_row([ASKED, SAID, GIVEN, ANSWERED], tools=TOOLS)


@pytest.mark.parametrize("mask", ["all_answers", "last_answer"])
@pytest.mark.parametrize("reasoning", ["learn", "mask"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_what_is_learnt_of_random_dialogues(own, name, reasoning, mask):
    """Each text is marked by the number of its message, and is learnt where it should be."""
    tokenizer, prompter = own[name]
    draw = random.Random(13)
    for _ in range(6):
        messages = dialogue(draw, several=name not in ONE_CALL, says=name not in NO_WORDS)
        for number, message in enumerate(messages):
            message["content"] = message["content"] and f"zq{number}q{message['content']}"
            for call in message.get("tool_calls", []):
                call["arguments"] = {"city": f"zc{number}c"}
        row = prompter.training_row(messages, mask, reasoning, tools_for(prompter, tools_of(draw)))
        learnt = tokenizer.decode([label for label in row.labels if label != -100])
        for number, message in enumerate(messages):
            wanted = message["role"] == "assistant" and (mask == "all_answers" or number + 1 == len(messages))
            assert (f"zq{number}q" in learnt) == (wanted and bool(message["content"]))
            assert (f"zc{number}c" in learnt) == (wanted and "tool_calls" in message)
