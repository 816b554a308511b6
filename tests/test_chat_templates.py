"""A base's own chat template: ids as transformers gives them, masks to the token, no forged turn, or a refusal."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.chat_templates import (
    conversation,
    differences,
    forged_tokens,
    measure,
    published,
    template_tokenizer,
)
from tests.helpers.chat_templates import CHATML, DATED, FOLLOWED, FORGETS, HYBRID, REFUSED, bracketed
from tuneline.models.chat_format import load_prompter
from tuneline.models.template_check import template_rules

SPELLED = ["<|im_start|>", "<|im_end|>", "<eos>", "<|user|>", "<start_of_turn>", "\n"]
ROLES = "<|system|><|user|><|assistant|>"
THINKING = [
    {"role": "system", "content": "简短"},
    {"role": "user", "content": "你好"},
    {"role": "assistant", "content": "您好", "reasoning": "问候"},
    {"role": "user", "content": "再见"},
    {"role": "assistant", "content": "慢走", "reasoning": "告别"},
]
PLAIN = [{"role": message["role"], "content": message["content"]} for message in THINKING]
SHORT = PLAIN[1:3]
BEFORE = "<|im_start|>system\n简短<|im_end|>\n<|im_start|>user\n你好<|im_end|>\n<|im_start|>assistant\n"
AGAIN = "\n<|im_start|>user\n再见<|im_end|>\n<|im_start|>assistant\n"
ROWS = {
    ("ChatML", "plain"): f"{BEFORE}[您好<|im_end|>]{AGAIN}[慢走<|im_end|>]\n",
    ("ChatML", "thinking"): f"{BEFORE}[<think>\n问候\n</think>\n\n您好<|im_end|>]{AGAIN}"
    "[<think>\n告别\n</think>\n\n慢走<|im_end|>]\n",
    ("hybrid", "plain"): f"{BEFORE}[您好<|im_end|>]{AGAIN}<think>\n\n</think>\n\n[慢走<|im_end|>]\n",
    ("hybrid", "thinking"): f"{BEFORE}[您好<|im_end|>]{AGAIN}[<think>\n告别\n</think>\n\n慢走<|im_end|>]\n",
    ("forgets", "plain"): "<bos>简短<|user|>你好<|assistant|>[您好<eos>]<|user|>再见<|assistant|><think>\n"
    "[\n</think>\n\n慢走<eos>]",
    ("forgets", "thinking"): "<bos>简短<|user|>你好<|assistant|>[您好<eos>]<|user|>再见<|assistant|><think>\n"
    "[告别\n</think>\n\n慢走<eos>]",
    ("endless", "plain"): "[gMASK]<sop><|system|>\n简短<|user|>\n你好<|assistant|>[\n您好<|user|>]\n再见"
    "<|assistant|>[\n慢走<|user|>]",
    ("no system", "plain"): "<bos><start_of_turn>user\n简短\n\n你好<end_of_turn>\n<start_of_turn>model\n[您好<end_of_turn>]\n"
    "<start_of_turn>user\n再见<end_of_turn>\n<start_of_turn>model\n[慢走<end_of_turn>]\n",
    ("words", "plain"): "System: 简短\n\nUser: 你好\n\nAssistant:[ 您好<eos>]\n\nUser: 再见\n\nAssistant:[ 慢走<eos>]\n\n",
    ("parts", "plain"): "<|im_start|>system: 简短<|im_end|><|im_start|>user: 你好<|im_end|><|im_start|>assistant:"
    "[ 您好<|im_end|>]<|im_start|>user: 再见<|im_end|><|im_start|>assistant:[ 慢走<|im_end|>]",
    ("dated", "plain"): "<|im_start|>system\nToday is 26 Jul 2024.<|im_end|>\n"
    f"{BEFORE}[您好<|im_end|>]{AGAIN}[慢走<|im_end|>]\n",
}  # fmt: skip


@pytest.fixture(scope="module")
def own():
    """Tokenizers with their prompters, by template."""
    made = {name: template_tokenizer(template, markers=ROLES) for name, template in FOLLOWED.items()}
    return {name: (tokenizer, load_prompter(tokenizer)) for name, tokenizer in made.items()}


@pytest.mark.parametrize(("name", "kind"), ROWS)
def test_a_whole_conversation(own, name, kind):
    tokenizer, prompter = own[name]
    messages = THINKING if kind == "thinking" else PLAIN
    row = prompter.training_row(messages)
    assert bracketed(row, tokenizer) == ROWS[name, kind]
    asked = prompter.generation_prompt(messages[:-1], thinking=kind == "thinking")
    assert row.input_ids[: len(asked)] == asked
    last = prompter.training_row(messages, "last_answer")
    assert bracketed(last, tokenizer).count("[") == 1 + (name == "endless"), "and the bracket of a marker"
    end = max(place for place, label in enumerate(row.labels) if label != -100)
    assert row.input_ids[end] in prompter.stop_ids


@pytest.mark.parametrize("name", FOLLOWED)
def test_ids_are_those_of_transformers(own, name):
    tokenizer, prompter = own[name]
    draw = random.Random(5)
    for _ in range(60):
        messages = conversation(draw)
        assert differences(prompter, tokenizer, messages, draw) == []
        assert forged_tokens(prompter, tokenizer, messages, draw) == 0


@pytest.mark.parametrize("kind", ["sentencepiece", "swallowing"])
@pytest.mark.parametrize("name", ["ChatML", "endless", "no system", "words"])
def test_other_tokenizers(name, kind):
    tokenizer = template_tokenizer(FOLLOWED[name], kind, ROLES)
    prompter = load_prompter(tokenizer)
    draw = random.Random(6)
    for _ in range(60):
        messages = prompter.renderer.arranged(conversation(draw))
        thinking = "reasoning" in messages[-1]
        assert prompter.uncut(messages, False, thinking)[: -1 if name == "endless" else None] == prompter.renderer.ids(
            messages, False, thinking
        )
        row, asked = prompter.training_row(messages), prompter.generation_prompt(messages[:-1], thinking)
        assert row.input_ids[: len(asked)] == asked


@pytest.mark.parametrize("name", FOLLOWED)
@settings(max_examples=40, deadline=None)
@given(pieces=st.lists(st.sampled_from(SPELLED) | st.text(max_size=5), max_size=8))
def test_no_text_becomes_a_control_token(own, name, pieces):
    tokenizer, prompter = own[name]
    text = "x" + "".join(pieces).encode("utf-8", "ignore").decode() + "x"
    rows = [
        prompter.training_row([{"role": "user", "content": said}, {"role": "assistant", "content": said}])
        for said in ("x", text)
    ]
    plain, forged = ([token for token in row.input_ids if token in prompter.control] for row in rows)
    assert forged == plain
    assert prompter.control >= {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}


@pytest.mark.parametrize("name", FOLLOWED)
def test_what_a_model_writes_before_an_answer(own, name):
    _, prompter = own[name]
    row, asked = prompter.training_row(SHORT), prompter.generation_prompt(SHORT[:1])
    assert row.input_ids[len(asked) :][: len(prompter.lead)] == prompter.lead
    assert bool(prompter.lead) == (name in ("forgets", "endless", "words", "parts"))


def test_thoughts_are_masked_or_learnt(own):
    tokenizer, prompter = own["hybrid"]
    (row,) = prompter.training_rows([THINKING], "last_answer", "mask")
    assert bracketed(row, tokenizer).endswith("<think>\n告别\n</think>\n\n[慢走<|im_end|>]\n")
    assert row.input_ids == prompter.training_row(THINKING).input_ids


def test_an_answer_that_is_not_to_be_learnt_carries_no_loss(own):
    tokenizer, prompter = own["ChatML"]
    row = prompter.training_row([*PLAIN[:2], PLAIN[2] | {"learn": False}, *PLAIN[3:]])
    assert bracketed(row, tokenizer) == ROWS["ChatML", "plain"].replace("[您好<|im_end|>]", "您好<|im_end|>")


def test_thoughts_that_a_client_gives_back_are_treated_as_such(own):
    _, prompter = own["hybrid"]
    shown = [PLAIN[1], {"role": "assistant", "content": "<think>\n问候\n</think>\n\n您好"}, PLAIN[3]]
    assert prompter.generation_prompt(shown) == prompter.generation_prompt(PLAIN[1:4])
    assert prompter.training_row(shown[:2]) == prompter.training_row(THINKING[1:3])


def test_added_tokens_that_are_not_special_stay_tokens_of_text(own):
    tokenizer, prompter = own["hybrid"]
    think = tokenizer.convert_tokens_to_ids("<think>")
    assert prompter.text("a<think>b") == tokenizer("a<think>b", add_special_tokens=False).input_ids
    row = prompter.training_row([{"role": "user", "content": "write <think>"}, SHORT[1]])
    assert row.input_ids.count(think) == 2
    assert think not in prompter.control


def test_roles_that_are_not_special_are_control_all_the_same():
    tokenizer = template_tokenizer(
        FORGETS.replace("<|user|>", "<｜User｜>").replace("<|assistant|>", "<｜Assistant｜>")
    )
    prompter = load_prompter(tokenizer)
    forged = tokenizer.convert_tokens_to_ids("<｜Assistant｜>")
    assert not tokenizer.added_tokens_decoder[forged].special
    row = prompter.training_row([{"role": "user", "content": "x<｜Assistant｜>y"}, SHORT[1]])
    assert row.input_ids.count(forged) == 1
    assert forged not in prompter.text("x<｜Assistant｜>y")


def test_an_answer_that_begins_with_white_space_begins_after_the_generation_prompt(own):
    tokenizer, prompter = own["ChatML"]
    messages = [SHORT[0], {"role": "assistant", "content": "\n\n  1. 休息"}]
    row, asked = prompter.training_row(messages), prompter.generation_prompt(messages[:1])
    assert row.input_ids[: len(asked)] == asked
    assert tokenizer.decode(row.input_ids[len(asked) :]) == "\n\n  1. 休息<|im_end|>\n"


@pytest.mark.parametrize(
    ("content", "template", "message"),
    [
        ("a</think>b", HYBRID, "does something of its own to this content: it writes 'b<"),
        ("x", CHATML + "{%- if messages[-1].content == 'x' -%}!{%- endif -%}", "it writes '!'"),
    ],
)
def test_what_a_template_does_to_a_content_is_said(content, template, message):
    prompter = load_prompter(template_tokenizer(template))
    with pytest.raises(ValueError, match=message):
        prompter.training_row([SHORT[0], {"role": "assistant", "content": content}])


@pytest.mark.parametrize("name", REFUSED)
def test_a_template_that_is_not_followed_is_refused(name):
    template, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        load_prompter(template_tokenizer(template))


def test_what_a_template_does_of_its_own_is_listed(own):
    rules = {name: " ".join(template_rules(prompter)) for name, (_, prompter) in own.items()}
    assert rules["ChatML"] == ""
    assert "leaves out the thoughts of earlier answers" in rules["hybrid"]
    assert "forgets thoughts" in rules["forgets"]
    assert "<|user|> is put there" in rules["endless"]
    assert "has no system prompt" in rules["no system"]
    assert "strips white space or line ends around texts of assistant, user" in rules["no system"]
    assert "list of parts" in rules["parts"]
    assert "26 July 2024" in rules["dated"]
    assert "ordinary words, which a text can spell" in rules["words"]


def test_markers_that_the_tokenizer_does_not_know_are_words():
    tokenizer = template_tokenizer("")
    tokenizer.chat_template = CHATML
    prompter = load_prompter(tokenizer)
    assert template_rules(prompter) == [
        "it ends no last answer: <eos> is put there",
        "it tells turns apart by ordinary words, which a text can spell, too",
    ]
    assert bracketed(prompter.training_row(SHORT), tokenizer).endswith("assistant\n[您好<|im_end|>\n<eos>]")


def test_the_date_is_the_same_on_every_day():
    prompter = load_prompter(template_tokenizer(DATED.replace("%d %b %Y", "%Y-%m-%d %H")))
    assert "2024-07-26 00" in prompter.renderer.render(SHORT)


@pytest.mark.parametrize("name", sorted(published()) or ["none"])
def test_published_templates(name):
    if name == "none":
        pytest.skip("the package trl, which ships published chat templates, is not installed")
    outcome = measure(name, 10)
    assert (outcome.equal, outcome.forged) == (10, 0)


@pytest.mark.matrix
@pytest.mark.parametrize("name", sorted(published()))
def test_published_templates_at_length(name):
    outcome = measure(name, 10_000)
    assert (outcome.equal, outcome.forged) == (10_000, 0)
