"""Hostile tokenizers: tokenizer.json and its configuration, which explode, contradict the model, or are no such thing."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.faults.base_folders import Attack, base_case, change_json, hostile
from benchmarks.faults.cases import Case

REFUSED: dict[str, Attack] = {}
EITHER: dict[str, Attack] = {}
"""May be refused, or taken without harm."""
Document = dict[str, Any]


def edited(folder: Path, change: Callable[[Document], None]) -> None:
    path = folder / "tokenizer.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")


def replace(pattern: str, content: str) -> Document:
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


def normalisers(folder: Path, *several: Document) -> None:
    edited(folder, lambda document: document.update(normalizer={"type": "Sequence", "normalizers": list(several)}))


@hostile(REFUSED)
def normaliser_that_multiplies_text(folder: Path) -> None:
    normalisers(folder, *[replace("a", "aaaaaaaaaa")] * 12)


@hostile(REFUSED)
def normaliser_that_multiplies_every_character(folder: Path) -> None:
    every = {"type": "Replace", "pattern": {"Regex": "."}, "content": "xxxxxxxxxx"}
    normalisers(folder, *[every] * 10)


@hostile(REFUSED)
def normaliser_that_puts_a_book_before(folder: Path) -> None:
    normalisers(folder, {"type": "Prepend", "prepend": "x" * 20_000_000})


@hostile(EITHER)
def normaliser_that_backtracks(folder: Path) -> None:
    normalisers(folder, {"type": "Replace", "pattern": {"Regex": "(x+x+)+y|(\\\\w+\\\\s?)+$z"}, "content": ""})


@hostile(EITHER)
def splitting_that_backtracks(folder: Path) -> None:
    split = {"type": "Split", "pattern": {"Regex": "((\\w+)+)+[^\\w\\W]"}, "behavior": "Isolated", "invert": False}
    edited(
        folder,
        lambda document: document.update(
            pre_tokenizer={"type": "Sequence", "pretokenizers": [split, document["pre_tokenizer"]]}
        ),
    )


@hostile(REFUSED)
def pattern_that_is_no_pattern(folder: Path) -> None:
    normalisers(folder, {"type": "Replace", "pattern": {"Regex": "((("}, "content": ""})


@hostile(REFUSED)
def file_of_200_mb(folder: Path) -> None:
    edited(
        folder,
        lambda document: document["model"]["vocab"].update({f"word{n:08}" * 4: 420 + n for n in range(4_000_000)}),
    )


@hostile(EITHER)
def file_of_200_mb_of_white_space(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8") + " " * 200_000_000, encoding="utf-8")


@hostile(EITHER)
def added_tokens_by_the_hundred_thousand(folder: Path) -> None:
    token = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    more = [token | {"id": 420 + n, "content": f"<extra_{n}>"} for n in range(100_000)]
    edited(folder, lambda document: document["added_tokens"].extend(more))


@hostile(REFUSED)
def ids_beyond_the_embedding(folder: Path) -> None:
    edited(folder, lambda document: document["model"]["vocab"].update({"感冒": 9_999}))


@hostile(REFUSED)
def ids_beyond_32_bits(folder: Path) -> None:
    edited(folder, lambda document: document["model"]["vocab"].update({"感冒": 2**40}))


@hostile(EITHER)
def two_words_of_one_id(folder: Path) -> None:
    edited(folder, lambda document: document["model"]["vocab"].update({"感冒": 7, "发烧": 7}))


@hostile(EITHER)
def holes_in_the_ids(folder: Path) -> None:
    edited(folder, lambda document: document["model"]["vocab"].pop("a"))


@hostile(REFUSED)
def merges_of_nothing(folder: Path) -> None:
    edited(folder, lambda document: document["model"].update(merges=[["不", "在"]]))


@hostile(REFUSED)
def no_model(folder: Path) -> None:
    edited(folder, lambda document: document.pop("model"))


@hostile(REFUSED)
def an_empty_vocabulary(folder: Path) -> None:
    edited(folder, lambda document: document["model"].update(vocab={}, merges=[]))


@hostile(REFUSED)
def a_model_of_no_kind(folder: Path) -> None:
    edited(folder, lambda document: document["model"].update(type="Evil"))


@hostile(EITHER)
def decoder_that_multiplies(folder: Path) -> None:
    edited(
        folder,
        lambda document: document.update(decoder={"type": "Sequence", "decoders": [replace("a", "a" * 1000)] * 6}),
    )


@hostile(EITHER)
def template_that_adds_tokens(folder: Path) -> None:
    single = [{"SpecialToken": {"id": "<bos>", "type_id": 0}}] * 10_000 + [{"Sequence": {"id": "A", "type_id": 0}}]
    known = {"<bos>": {"id": "<bos>", "ids": [2] * 1000, "tokens": ["<bos>"] * 1000}}
    processor = {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": known}
    edited(folder, lambda document: document.update(post_processor=processor))


@hostile(EITHER)
def truncation_to_one_token(folder: Path) -> None:
    short = {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}
    edited(folder, lambda document: document.update(truncation=short))


@hostile(REFUSED)
def a_list(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("[]")


@hostile(REFUSED)
def no_json(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")


@hostile(REFUSED)
def nested_without_end(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model":' + "[" * 200_000)


@hostile(REFUSED)
def empty(folder: Path) -> None:
    (folder / "tokenizer.json").write_bytes(b"")


@hostile(REFUSED)
def no_utf_8(folder: Path) -> None:
    (folder / "tokenizer.json").write_bytes(b"\xff\xfe{}")


@hostile(REFUSED)
def a_fifo(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    os.mkfifo(folder / "tokenizer.json")


@hostile(REFUSED)
def a_folder(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").mkdir()


@hostile(REFUSED)
def gone(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


@hostile(EITHER)
def configuration_of_no_class(folder: Path) -> None:
    change_json(folder / "tokenizer_config.json", tokenizer_class="EvilTokenizer")


@hostile(EITHER)
def configuration_of_another_class(folder: Path) -> None:
    change_json(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer")


@hostile(REFUSED)
def configuration_that_is_a_list(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("[1]")


@hostile(EITHER)
def configuration_with_numbers_for_tokens(folder: Path) -> None:
    change_json(folder / "tokenizer_config.json", eos_token=7, pad_token=[1], model_max_length="long")


@hostile(EITHER)
def configuration_with_tokens_of_no_vocabulary(folder: Path) -> None:
    nowhere = {"eos_token": "<nowhere>"}
    change_json(folder / "tokenizer_config.json", **nowhere, additional_special_tokens=["<a>"] * 1000)


@hostile(REFUSED)
def a_broken_sentencepiece_model_alone(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(b"\x0a\xff\xff\xff\xff\x0f" + b"x" * 1000)
    change_json(folder / "tokenizer_config.json", tokenizer_class="LlamaTokenizer")


def cases() -> Iterator[Case]:
    for name, attack in {**REFUSED, **EITHER}.items():
        yield base_case("tokenizers", name, attack, None if name in EITHER else False)
