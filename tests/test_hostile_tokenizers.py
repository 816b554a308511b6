"""Tokenizers of strangers: huge, exploding or ambiguous ones end in one sentence before this process loads them."""

import json
import os

import pytest

from tests.helpers.chatglm3 import train_pieces
from tests.helpers.tiny_models import base_section, make_base, make_tokenizer
from tuneline.base.canonicalize import canonicalize
from tuneline.models.config import Base
from tuneline.models.untrusted import tokenizers
from tuneline.models.untrusted.limited_process import LimitedProcess, Limits
from tuneline.models.untrusted.tokenizers import SIZES, try_tokenizer

LIMITS = Limits(cpu_seconds=1.5, memory_mb=1500, wall_seconds=120)
TIME, MEMORY = "takes more than 1.5 seconds of computing", "takes more than 1500 MB of memory"
NESTED = r"((([a-z]+)+)+)+$"


@pytest.fixture(scope="module")
def child():
    process = LimitedProcess(LIMITS)
    yield process
    process.close()


@pytest.fixture
def limited(monkeypatch, child):
    monkeypatch.setattr(tokenizers, "_child", lambda: child)


@pytest.fixture
def folder(tmp_path):
    make_tokenizer("gemma").save_pretrained(tmp_path)
    return tmp_path


def replace(pattern, content, kind="String"):
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def split(pattern, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": "Isolated", "invert": False}


def sequence(name, parts):
    return {"type": "Sequence", name: parts}


def added(number, text):
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": text, "special": False, **flags}


def twice(values):
    vocabulary = values["model"]["vocab"]
    first, second = list(vocabulary)[-2:]
    vocabulary[second] = vocabulary[first]


def padded(values):
    values["padding"] = {
        "strategy": {"Fixed": 10**10}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "<pad>",
    }  # fmt: skip


def long_template(values):
    piece = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
    values["post_processor"] = {
        "type": "TemplateProcessing", "single": [piece] * 1500 + [{"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}},
    }  # fmt: skip


HOSTILE = {
    "replacements in a row": (
        lambda v: v.update(normalizer=sequence("normalizers", [replace("a", "aaaaaaaa")] * 30)),
        "replaces texts by ones 1.24e\\+27 times as long",
    ),
    "of a rare character": (
        lambda v: v.update(normalizer=sequence("normalizers", [replace("龘", "龘龘龘龘")] * 12)), "replaces texts by ones",
    ),
    "one into the next": (
        lambda v: v.update(
            normalizer=sequence("normalizers", [replace(chr(97 + n), chr(98 + n) * 9) for n in range(12)])
        ),
        "replaces texts by ones",
    ),
    "a long replacement": (lambda v: v.update(normalizer=replace("中", "x" * 10**6)), "replaces texts by ones 1e\\+06"),
    "of nothing": (lambda v: v.update(normalizer=replace("", "x" * 99, "Regex")), "replaces texts by ones 99"),
    "nested loops": (lambda v: v.update(pre_tokenizer=split(NESTED)), f"{TIME}|fails"),
    "nested loops over a rare character": (
        lambda v: v.update(pre_tokenizer=split(r"((龘+)+)+$")), f"{TIME}|fails",
    ),
    "nested loops in a normaliser": (lambda v: v.update(normalizer=replace(NESTED, "x", "Regex")), f"{TIME}|fails"),
    "alternatives": (lambda v: v.update(pre_tokenizer=split(r"(a|a|aa)+$")), f"{TIME}|fails"),
    "a decoder that grows": (
        lambda v: v.update(decoder=sequence("decoders", [v["decoder"], *[replace("a", "aaaa")] * 20])),
        f"{TIME}|{MEMORY}|characters of the",
    ),
    "endless padding": (padded, f"{TIME}|{MEMORY}|makes 10000000000 ids"),
    "thousands of ids for nothing": (long_template, "makes 15.. ids of"),
    "a million added tokens": (
        lambda v: v["added_tokens"].extend(added(1000 + n, f"<{n}>") for n in range(100_001)),
        "has 100006 added tokens",
    ),
    "one id twice": (twice, "gives 1 of its"),
    "no words": (lambda v: v["model"].update(vocab={}, merges=[]), "can't be read|has 0 tokens"),
    "dropout": (lambda v: v["model"].update(dropout=0.5), "each time, expected no dropout"),
    "no model": (lambda v: v.pop("model"), "is no object with a model"),
    "an unknown model": (lambda v: v["model"].update(type="Magic"), "can't be read"),
    "merges of unknown words": (lambda v: v["model"]["merges"].append(["龘", "龘"]), "can't be read"),
    "a broken pattern": (lambda v: v.update(pre_tokenizer=split("((")), "can't be read"),
    "thousands of parts": (
        lambda v: v.update(pre_tokenizer=sequence("pretokenizers", [split("a", "String")] * 30_000)), "more than 20000 parts",
    ),
    "a list for the pattern": (
        lambda v: v.update(pre_tokenizer={"type": "Split", "pattern": [1], "behavior": "Isolated", "invert": False}),
        "can't be read",
    ),
}  # fmt: skip


def hostile(folder, name):
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    change, says = HOSTILE[name]
    change(values)
    path.write_text(json.dumps(values))
    return says


@pytest.mark.parametrize("name", HOSTILE)
def test_one_sentence(limited, folder, name):
    says = hostile(folder, name)
    with pytest.raises(ValueError, match=says) as error:
        try_tokenizer(folder)
    assert str(error.value).startswith("its tokenizer (tokenizer.json) ")
    assert len(str(error.value)) < 500
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    ["[]", "null", "{", '{"model": 1}', "[" * 10_000, "\x00\xff", ""],
    ids=["list", "null", "cut", "no model", "deep", "binary", "empty"],
)
def test_what_is_no_tokenizer(limited, folder, content):
    (folder / "tokenizer.json").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match="its tokenizer "):
        try_tokenizer(folder)


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "vocab.json", "x.tiktoken"]
)
def test_a_file_of_200_megabytes_is_not_even_read(limited, folder, name):
    assert any((folder / name).match(pattern) for pattern in SIZES)
    with (folder / name).open("ab") as file:
        os.truncate(file.fileno(), 200 * 10**6)
    with pytest.raises(ValueError, match=rf"{name} has 200 MB, expected at most \d+ MB"):
        try_tokenizer(folder)


@pytest.mark.parametrize("family", ["gemma", "chatml", "llama3", "glm4"])
def test_others_are_taken(limited, tmp_path, family):
    tokenizer = make_tokenizer(family)
    tokenizer.save_pretrained(tmp_path)
    assert try_tokenizer(tmp_path) == max(tokenizer.backend_tokenizer.get_vocab(False).values())


def test_a_sentencepiece_model_is_converted_in_the_child(tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizers, "_child", lambda: LimitedProcess(Limits(60, 6144, 300)))
    train_pieces(tmp_path, "identity", 400)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    assert try_tokenizer(tmp_path) >= 399
    assert try_tokenizer(tmp_path, chatglm=True) >= 399


@pytest.mark.parametrize("name", ["nested loops", "replacements in a row", "one id twice", "endless padding"])
def test_the_base_stage_says_so(limited, tmp_path, name):
    source = make_base(tmp_path / "source")
    says = hostile(source, name)
    with pytest.raises(ValueError, match=says) as error:
        canonicalize(source, None, Base.model_validate(base_section(source)), tmp_path / "base")
    assert str(error.value).startswith("base.source ")


def test_a_tokenizer_that_loads_and_encodes_nothing(limited, tmp_path):
    source = make_base(tmp_path / "source")
    path = source / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "BertTokenizer"}))
    with pytest.raises(ValueError, match=r"^base\.source .*tokenizer.*WordPiece"):
        canonicalize(source, None, Base.model_validate(base_section(source)), tmp_path / "base")


def test_a_vocabulary_that_the_embedding_has_no_rows_for(limited, tmp_path):
    source = make_base(tmp_path / "source")
    path = source / "tokenizer.json"
    values = json.loads(path.read_text())
    values["model"]["vocab"]["龘"] = 5000
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="its vocabulary has a token with the id 5000, and its embedding"):
        canonicalize(source, None, Base.model_validate(base_section(source)), tmp_path / "base")
