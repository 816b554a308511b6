"""Messages to ids: expected rows written out, and no text that forges a role."""

import json
import re
from types import SimpleNamespace

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from tests.helpers.chat_templates import bracketed
from tests.helpers.tiny_models import MARKERS, make_tokenizer
from tuneline.formats.example import IGNORE_INDEX
from tuneline.models.chat_families import family_of
from tuneline.models.chat_format import load_prompter
from tuneline.models.chat_templates import chat_template
from tuneline.models.control_tokens import without_control_tokens
from tuneline.models.loading import load_tokenizer

CHAT = [
    {"role": "system", "content": "简短"},
    {"role": "user", "content": "你好"},
    {"role": "assistant", "content": "您好"},
    {"role": "user", "content": "再见"},
    {"role": "assistant", "content": "慢走"},
]
EXPECTED = {
    "gemma": "<bos><start_of_turn>user\n简短\n\n你好<end_of_turn>\n<start_of_turn>model\n[您好<end_of_turn>]\n"
    "<start_of_turn>user\n再见<end_of_turn>\n<start_of_turn>model\n[慢走<end_of_turn>]",
    "chatml": "<|im_start|>system\n简短<|im_end|>\n<|im_start|>user\n你好<|im_end|>\n<|im_start|>assistant\n[您好<|im_end|>]\n"
    "<|im_start|>user\n再见<|im_end|>\n<|im_start|>assistant\n[慢走<|im_end|>]",
    "llama3": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n简短<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n你好<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n[您好<|eot_id|>]"
    "<|start_header_id|>user<|end_header_id|>\n\n再见<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n[慢走<|eot_id|>]",
    "glm4": "[gMASK]<sop><|system|>\n简短<|user|>\n你好<|assistant|>[\n您好<|user|>]\n再见<|assistant|>[\n慢走<eos>]",
}


@pytest.mark.parametrize("family", EXPECTED)
def test_a_whole_conversation(tokenizers, family):
    row = load_prompter(tokenizers[family]).training_row(CHAT)
    assert bracketed(row, tokenizers[family]) == EXPECTED[family]


@pytest.mark.parametrize("family", EXPECTED)
def test_only_the_last_answer(tokenizers, family):
    row = load_prompter(tokenizers[family]).training_row(CHAT, "last_answer")
    first = re.sub(r"\[(\n?您好[^\]]*)\]", r"\1", EXPECTED[family])
    assert bracketed(row, tokenizers[family]) == first


@pytest.mark.parametrize("family", EXPECTED)
def test_training_begins_with_the_generation_prompt(tokenizers, family):
    prompter = load_prompter(tokenizers[family])
    prompt = prompter.generation_prompt(CHAT[:-1])
    row = prompter.training_row(CHAT, "last_answer")
    assert row.input_ids[: len(prompt)] == prompt
    assert set(row.labels[: len(prompt)]) == {IGNORE_INDEX}


def test_a_tokenizer_saved_with_truncation_and_padding_cuts_nothing():
    tokenizer = make_tokenizer("gemma")
    tokenizer.backend_tokenizer.enable_truncation(max_length=4)
    tokenizer.backend_tokenizer.enable_padding(length=30)
    assert len(load_prompter(tokenizer).text("长" * 50)) >= 50
    assert load_prompter(tokenizer).after == load_prompter(make_tokenizer("gemma")).after


@pytest.mark.parametrize("family", EXPECTED)
def test_the_saved_template_says_the_same(tokenizers, family):
    tokenizer = make_tokenizer(family)
    tokenizer.chat_template = chat_template(family)
    rendered = tokenizer.apply_chat_template(CHAT[:-1], add_generation_prompt=True, tokenize=True, return_dict=False)
    assert rendered == load_prompter(tokenizer).generation_prompt(CHAT[:-1])


FOREIGN = [
    "<|assistant|>",
    "<|user|>",
    "<|system|>",
    "<|observation|>",
    "[gMASK]",
    "sop",
    "<|endoftext|>",
    "</s>",
    "[INST]",
]
"""Markers of families that are not the tokenizer's own."""
ALPHABET = sorted(
    {marker for markers in MARKERS.values() for marker in markers}
    | {*FOREIGN, "user\n", "model\n", "，", "a", "😀", "\n"}
)


@pytest.fixture(scope="module")
def prompters(tokenizers):
    return {family: load_prompter(tokenizer) for family, tokenizer in tokenizers.items()}


@pytest.mark.parametrize("family", MARKERS)
@settings(max_examples=150, deadline=None)
@given(pieces=st.lists(st.sampled_from(ALPHABET) | st.text(max_size=8), max_size=10))
def test_no_text_becomes_a_control_token(tokenizers, prompters, family, pieces):
    prompter = prompters[family]
    text = "".join(pieces).encode("utf-8", "ignore").decode()
    control = set(tokenizers[family].get_added_vocab().values())
    assert prompter.control <= control
    assert not control & set(prompter.text(text))
    row = prompter.training_row([{"role": "user", "content": text}, {"role": "assistant", "content": text}])
    begins = [opening[0] for opening in prompter.opening.values()]
    assert sum(row.input_ids.count(token) for token in set(begins)) == 2
    assert prompter.plain.decode(prompter.text(text), skip_special_tokens=False) == text


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([], "ends with an assistant"),
        ([{"role": "user", "content": "x"}], "ends with an assistant"),
        ([{"role": "tool", "content": "x"}, {"role": "assistant", "content": "x"}], "which has no tools"),
        ([*CHAT[1:3], CHAT[0], *CHAT[3:]], "expected only before the first turn"),
    ],
)
def test_a_conversation_out_of_order_is_refused(tokenizers, messages, complaint):
    with pytest.raises(ValueError, match=complaint):
        load_prompter(tokenizers["gemma"]).training_row(messages)


@pytest.mark.parametrize("family", EXPECTED)
def test_many_rows_are_what_each_is_alone(tokenizers, family):
    prompter = load_prompter(tokenizers[family])
    conversations = [CHAT, CHAT[1:3], [CHAT[1], {"role": "assistant", "content": ""}]]
    assert prompter.training_rows(conversations) == [prompter.training_row(messages) for messages in conversations]
    empty = prompter.training_row(conversations[2])
    assert [label for label in empty.labels if label != IGNORE_INDEX] == [
        *prompter.lead,
        *prompter.closing,
        *prompter.last,
    ], "an empty answer still ends"


@pytest.mark.parametrize("family", EXPECTED)
def test_thoughts_stand_before_the_last_answer_alone(tokenizers, family):
    prompter = load_prompter(tokenizers[family])
    thinking = [message | ({"reasoning": "想"} if message["role"] == "assistant" else {}) for message in CHAT]
    whole, end = EXPECTED[family].rsplit("慢走", 1)
    lead = "\n" if family == "glm4" else ""
    head = whole.removesuffix(f"[{lead}")
    learnt, masked = (prompter.training_rows([thinking], "all_answers", way)[0] for way in ("learn", "mask"))
    assert bracketed(learnt, tokenizers[family]) == f"{head}[{lead}<think>\n想\n</think>\n\n慢走{end}"
    assert learnt.input_ids == masked.input_ids
    assert bracketed(masked, tokenizers[family]).endswith(f"<think>\n想\n</think>\n\n[慢走{end}")


def test_a_generation_prompt_ends_with_the_user(tokenizers):
    with pytest.raises(ValueError, match="ends with a user"):
        load_prompter(tokenizers["gemma"]).generation_prompt(CHAT)


def test_an_unknown_family_is_refused(tokenizers):
    strange = SimpleNamespace(backend_tokenizer=Tokenizer(WordLevel({"[INST]": 0}, unk_token="[INST]")))
    with pytest.raises(ValueError, match="expected <start_of_turn>"):
        family_of(strange)


@pytest.mark.parametrize("family", list(MARKERS))
def test_a_tokenizer_without_control_tokens_is_as_if_it_was_read_from_a_file(tokenizers, family):
    tokenizer = tokenizers[family]
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    kept = [
        token for token in state["added_tokens"] if not token["special"] and token["content"] not in MARKERS[family]
    ]
    read = Tokenizer.from_str(json.dumps(state | {"added_tokens": kept, "truncation": None, "padding": None}))
    assert without_control_tokens(tokenizer, MARKERS[family]).to_str() == read.to_str()
    # The one that it came from is as it was.
    assert json.loads(tokenizer.backend_tokenizer.to_str()) == state


@pytest.mark.parametrize("name", ["GemmaTokenizer", "LlamaTokenizer", "Qwen2Tokenizer"])
def test_a_saved_tokenizer_is_read_as_the_class_of_its_model_reads_it(tmp_path, tokenizers, name):
    model = json.loads(tokenizers["gemma"].backend_tokenizer.to_str())["model"]
    vocab = model["vocab"] | {"<unk>": len(model["vocab"]), "<mask>": len(model["vocab"]) + 1}
    made = getattr(transformers, name)(vocab=vocab, merges=list(map(tuple, model["merges"])), pad_token="<pad>")
    made.chat_template = "{{ messages }}"
    made.save_pretrained(tmp_path)
    ours = load_tokenizer(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert type(theirs).__name__ == name
    assert ours.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()
    assert ours.special_tokens_map == theirs.special_tokens_map
    assert ours.chat_template == theirs.chat_template == made.chat_template
    texts = ["你好  world", f" a\n\nb{ours.eos_token}"]
    assert ours(texts)["input_ids"] == theirs(texts)["input_ids"]
