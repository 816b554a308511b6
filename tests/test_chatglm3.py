"""ChatGLM3 without remote code: the reference's ids and logits, and those of computations made here.

The network is written out below from the equations of the papers (Su et al. 2021, Shazeer 2020, Zhang and Sennrich
2019), the tokenizer is compared with sentencepiece itself.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import stages.base
from tests.conftest import CONFIG, REAL, ROOT, TEXTS, base_section, dvc, method
from tuneline.base.config import Base
from tuneline.formats.example import IGNORE_INDEX
from tuneline.models.chat_format import Prompter
from tuneline.models.chatglm.adapter import import_adapter
from tuneline.models.chatglm.config import shape_of
from tuneline.models.chatglm.layout import differences, trainable_parameters, write_chatglm
from tuneline.models.chatglm.names import parts
from tuneline.models.chatglm.tokenizer import CONTROL, build
from tuneline.models.loading import load_adapter, load_model, load_tokenizer
from tuneline.train import methods
from tuneline.train.lora import resolve_targets

SIZES = {
    "grouped": {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "kv_channels": 8, "multi_query_group_num": 2,
                "ffn_hidden_size": 48},
    "one group, long": {"num_layers": 3, "hidden_size": 24, "num_attention_heads": 3, "kv_channels": 16,
                        "multi_query_group_num": 1, "ffn_hidden_size": 40, "rope_ratio": 50},
    "every head its own": {"num_layers": 1, "hidden_size": 40, "num_attention_heads": 2, "kv_channels": 12,
                           "multi_query_attention": False, "ffn_hidden_size": 64, "layernorm_epsilon": 1e-3},
}  # fmt: skip
RULES = ("nmt_nfkc", "nfkc", "identity")


def train_pieces(folder: Path, rule: str, size: int) -> Path:
    """A small SentencePiece model with ChatGLM3's settings."""
    from sentencepiece import SentencePieceTrainer

    corpus = [line for text in TEXTS * 4 for line in text.split("\n") if line] + [
        "a  b   c    d 你 好 12 345",
        "　　，。！",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_prefix=str(folder / "tokenizer"), vocab_size=size, model_type="bpe",
        normalization_rule_name=rule, byte_fallback=True, split_digits=True, remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True, character_coverage=0.98, pad_id=-1, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    (folder / "tokenizer.vocab").unlink()
    return folder / "tokenizer.model"


@pytest.fixture(scope="session")
def pieces(tmp_path_factory):
    """Three SentencePiece models, each with the tokenizer built from it."""
    from sentencepiece import SentencePieceProcessor

    made = {}
    for number, rule in enumerate(RULES):
        path = train_pieces(tmp_path_factory.mktemp(rule), rule, 400 + 20 * number)
        tokenizer = build(path)
        made[rule] = (path, SentencePieceProcessor(str(path)), tokenizer, Prompter(tokenizer).plain)
    return made


def random_tensors(config: dict, seed: int = 3) -> dict[str, torch.Tensor]:
    """A checkpoint in ChatGLM3's layout; names and shapes written out, not taken from the code under test."""
    torch.manual_seed(seed)
    hidden, inner, head = config["hidden_size"], config["ffn_hidden_size"], config["kv_channels"]
    heads = config["num_attention_heads"]
    groups = config["multi_query_group_num"] if config["multi_query_attention"] else heads
    words = config["padded_vocab_size"]
    tensors = {
        "transformer.embedding.word_embeddings.weight": torch.randn(words, hidden),
        "transformer.encoder.final_layernorm.weight": torch.rand(hidden) + 0.5,
        "transformer.output_layer.weight": torch.randn(words, hidden) / hidden**0.5,
        "transformer.rotary_pos_emb.inv_freq": torch.rand(head // 4),
    }
    for layer in range(config["num_layers"]):
        name = f"transformer.encoder.layers.{layer}."
        rows = (heads + 2 * groups) * head
        tensors |= {
            f"{name}input_layernorm.weight": torch.rand(hidden) + 0.5,
            f"{name}post_attention_layernorm.weight": torch.rand(hidden) + 0.5,
            f"{name}self_attention.query_key_value.weight": torch.randn(rows, hidden) / hidden**0.5,
            f"{name}self_attention.query_key_value.bias": torch.randn(rows) / 4,
            f"{name}self_attention.dense.weight": torch.randn(hidden, heads * head) / hidden**0.5,
            f"{name}mlp.dense_h_to_4h.weight": torch.randn(2 * inner, hidden) / hidden**0.5,
            f"{name}mlp.dense_4h_to_h.weight": torch.randn(hidden, inner) / inner**0.5,
        }
    return tensors


def equations(tensors: dict[str, torch.Tensor], config: dict, ids: list[int]) -> torch.Tensor:
    """Logits [T, V] of one sequence, in float64."""
    weight = {name.removeprefix("transformer."): tensor.double() for name, tensor in tensors.items()}
    heads, head = config["num_attention_heads"], config["kv_channels"]
    groups = config["multi_query_group_num"] if config["multi_query_attention"] else heads
    length, turned = len(ids), head // 2

    def normed(x: torch.Tensor, name: str) -> torch.Tensor:
        return x / (x.pow(2).mean(-1, keepdim=True) + config["layernorm_epsilon"]).sqrt() * weight[name]

    angles = torch.outer(
        torch.arange(length).double(),
        (10_000.0 * config.get("rope_ratio", 1)) ** (-torch.arange(0, turned, 2).double() / turned),
    )

    def rotated(x: torch.Tensor) -> torch.Tensor:
        """x [T, heads, head]: pairs of the first half of each head turn by the position's angle."""
        even, odd, rest = x[..., 0:turned:2], x[..., 1:turned:2], x[..., turned:]
        cos, sin = angles.cos()[:, None], angles.sin()[:, None]
        pairs = torch.stack([even * cos - odd * sin, odd * cos + even * sin], -1).flatten(-2)
        return torch.cat([pairs, rest], -1)

    x = weight["embedding.word_embeddings.weight"][ids]
    for layer in range(config["num_layers"]):
        name = f"encoder.layers.{layer}."
        mixed = normed(x, f"{name}input_layernorm.weight") @ weight[f"{name}self_attention.query_key_value.weight"].T
        mixed = mixed + weight[f"{name}self_attention.query_key_value.bias"]
        query, key, value = (
            part.reshape(length, -1, head) for part in mixed.split([heads * head, groups * head, groups * head], -1)
        )
        query, key = rotated(query), rotated(key)
        key, value = (part.repeat_interleave(heads // groups, 1) for part in (key, value))
        scores = torch.einsum("qhd,khd->hqk", query, key) / head**0.5
        scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
        attended = torch.einsum("hqk,khd->qhd", scores.softmax(-1), value).reshape(length, -1)
        x = x + attended @ weight[f"{name}self_attention.dense.weight"].T
        gate, up = (
            normed(x, f"{name}post_attention_layernorm.weight") @ weight[f"{name}mlp.dense_h_to_4h.weight"].T
        ).chunk(2, -1)
        x = x + (gate * gate.sigmoid() * up) @ weight[f"{name}mlp.dense_4h_to_h.weight"].T
    return normed(x, "encoder.final_layernorm.weight") @ weight["output_layer.weight"].T


def checkpoint(
    folder: Path, pieces_model: Path, sizes: dict, layout: str = "one", dtype=torch.float32
) -> tuple[dict, dict]:
    """Write a random checkpoint; returns (tensors as stored, config)."""
    from sentencepiece import SentencePieceProcessor

    words = len(SentencePieceProcessor(str(pieces_model))) + 9 + 7
    config = CONFIG | {"padded_vocab_size": words} | sizes
    tensors = {name: tensor.to(dtype) for name, tensor in random_tensors(config).items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(pieces_model, folder / "tokenizer.model")
    names = sorted(tensors)
    if layout == "one":
        save_file(tensors, folder / "model.safetensors")
    else:
        halves = [names[: len(names) // 2], names[len(names) // 2 :]]
        suffix, stem = ("safetensors", "model") if layout == "shards" else ("bin", "pytorch_model")
        files = [f"{stem}-{number:05}-of-00002.{suffix}" for number in (1, 2)]
        for file, half in zip(files, halves, strict=True):
            part = {name: tensors[name] for name in half}
            save_file(part, folder / file) if suffix == "safetensors" else torch.save(part, folder / file)
        index = {
            "metadata": {},
            "weight_map": {name: file for file, half in zip(files, halves, strict=True) for name in half},
        }
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))
    return tensors, config


def converted(source: Path, folder: Path, dtype: str = "float32") -> Path:
    params = Base.model_validate(base_section(source) | {"dtype": dtype})
    stages.base.canonical(source, None, params, folder)
    return folder


@pytest.fixture(scope="session")
def golden(tmp_path_factory):
    """The reference's checkpoint, converted, and what the reference gave for it."""
    folder = os.environ.get("TUNELINE_SAMPLES")
    if not folder or not (Path(folder) / "golden/chatglm3-tiny").is_dir():
        pytest.skip("TUNELINE_SAMPLES is unset: it names a folder with the reference's outputs")
    source = Path(folder) / "golden"
    expected = json.loads((source / "chatglm3-tiny-golden.json").read_text(encoding="utf-8"))
    logits = np.load(source / "chatglm3-tiny-logits.npz")
    return converted(source / "chatglm3-tiny", tmp_path_factory.mktemp("golden") / "native"), expected, logits


def messages_of(chat: dict) -> list[dict]:
    return [*chat["history"], {"role": "user", "content": chat["query"]}]


def test_the_references_ids(golden):
    folder, expected, _ = golden
    tokenizer = load_tokenizer(folder)
    prompter = Prompter(tokenizer)
    for entry in expected["encode"]:
        assert prompter.text(entry["text"]) == entry["ids"], entry["text"]
        if not any(word in entry["text"] for word in expected["special_tokens"]):
            assert tokenizer(entry["text"]).input_ids == entry["ids_with_special"]
    for chat in expected["chats"]:
        assert prompter.generation_prompt(messages_of(chat)) == chat["input_ids"]
    assert {word: tokenizer.convert_tokens_to_ids(word) for word in expected["special_tokens"]} == expected[
        "special_tokens"
    ]
    assert len(tokenizer) == expected["vocab_size"]


def test_the_references_logits_and_continuations(golden):
    folder, expected, logits = golden
    model = load_model(folder, torch.float32)
    for number, chat in enumerate(expected["chats"]):
        ids = torch.tensor([chat["input_ids"]])
        with torch.inference_mode():
            found = model(input_ids=ids).logits[0]
            said = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=16,
                min_new_tokens=16,
                do_sample=False,
            )
        np.testing.assert_allclose(found.numpy(), logits[f"case{number}"], rtol=1e-5, atol=1e-6)
        assert said[0, ids.shape[1] :].tolist() == chat["greedy_16"]


@pytest.mark.parametrize(("name", "layout", "rule"), zip(SIZES, ("one", "shards", "bin"), RULES, strict=True))
def test_logits_are_those_of_the_equations(tmp_path, pieces, name, layout, rule):
    tensors, config = checkpoint(tmp_path / "source", pieces[rule][0], SIZES[name], layout)
    folder = converted(tmp_path / "source", tmp_path / "native")
    model = load_model(folder, torch.float32)
    assert type(model).__name__ == "GlmForCausalLM"
    ids = torch.randint(0, config["padded_vocab_size"], (40,), generator=torch.Generator().manual_seed(9)).tolist()
    with torch.inference_mode():
        found = model(input_ids=torch.tensor([ids])).logits[0]
    torch.testing.assert_close(found.double(), equations(tensors, config, ids), rtol=0, atol=2e-5)
    # With a key-value cache it goes on as it would without.
    with torch.inference_mode():
        said = model.generate(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, 40),
            max_new_tokens=8,
            min_new_tokens=8,
            do_sample=False,
        )
    longer = said[0].tolist()
    stops = torch.tensor(Prompter(load_tokenizer(folder)).stop_ids)
    for place in range(40, 48):
        scores = equations(tensors, config, longer[:place])[-1]
        scores[stops] = -torch.inf
        assert int(scores.argmax()) == longer[place]


@pytest.mark.parametrize(
    ("stored", "dtype"), [(torch.float16, "bfloat16"), (torch.float16, "float32"), (torch.bfloat16, "float16")]
)
def test_weights_are_cast_once(tmp_path, pieces, stored, dtype):
    tensors, _ = checkpoint(tmp_path / "source", pieces["identity"][0], SIZES["grouped"], dtype=stored)
    native = load_file(converted(tmp_path / "source", tmp_path / "native", dtype) / "model.safetensors")
    qkv = tensors["transformer.encoder.layers.1.self_attention.query_key_value.weight"].to(getattr(torch, dtype))
    layer = "model.layers.1.self_attn."
    assert torch.equal(torch.cat([native[f"{layer}{name}_proj.weight"] for name in "qkv"]), qkv)
    assert {tensor.dtype for tensor in native.values()} == {getattr(torch, dtype)}
    assert sum(tensor.numel() for tensor in native.values()) == sum(
        tensor.numel() for name, tensor in tensors.items() if "inv_freq" not in name
    )
    assert json.loads((tmp_path / "native/config.json").read_text())["dtype"] == dtype


def test_a_large_checkpoint_is_written_in_several_files(tmp_path, pieces, monkeypatch):
    monkeypatch.setattr("tuneline.formats.safetensors_writer.LARGEST", 20_000)
    tensors, config = checkpoint(tmp_path / "source", pieces["nfkc"][0], SIZES["grouped"])
    folder = converted(tmp_path / "source", tmp_path / "native")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    found = load_model(folder, torch.float32)(input_ids=torch.tensor([[5, 6, 7]])).logits[0]
    torch.testing.assert_close(found.double(), equations(tensors, config, [5, 6, 7]), rtol=0, atol=2e-5)


FOUR = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]


def test_the_parameters_of_the_real_shape():
    sizes = [int(np.prod(part.shape)) for part in parts(shape_of(REAL))]
    assert sum(sizes) == 6_243_584_000
    assert len({part.chatglm for part in parts(shape_of(REAL))}) == 199


@pytest.mark.parametrize(
    ("targets", "r", "published", "native"),
    [
        # Published for ChatGLM3-6B with PEFT on its own code; 3,784,704 for q, k and v apart.
        (["query_key_value"], 8, 1_949_696, 3_784_704),
        (["query_key_value"], 16, 3_899_392, 7_569_408),
        (FOUR, 16, 29_646_848, 33_316_864),
    ],
)
def test_trainable_parameters_of_the_real_shape(real_shape, targets, r, published, native):
    tuned = methods.prepare(real_shape, method(lora={"r": r, "targets": targets}))
    trainable, total = tuned.get_nb_trainable_parameters()
    shapes = {name: one.shape for name, one in tuned.named_parameters() if one.requires_grad}
    tuned.unload()
    assert (trainable, total - trainable) == (native, 6_243_584_000)
    assert trainable_parameters(shapes) == published


def test_a_part_of_the_fused_layer_has_no_count_in_its_layout(real_shape):
    tuned = methods.prepare(real_shape, method(lora={"r": 8, "targets": ["q_proj"]}))
    shapes = {name: one.shape for name, one in tuned.named_parameters() if one.requires_grad}
    tuned.unload()
    assert trainable_parameters(shapes) is None


def first(tensors: dict, ending: str) -> str:
    return next(name for name in sorted(tensors) if name.endswith(ending))


def reshaped(tensors: dict, how: str) -> None:
    """Break the tensors in place."""
    dense, norm = first(tensors, "dense_4h_to_h.weight"), first(tensors, "input_layernorm.weight")
    if how == "missing":
        del tensors[norm]
    elif how == "renamed":
        tensors["transformer.encoder.layers.0.norm.weight"] = tensors.pop(norm)
    elif how == "transposed":
        tensors[dense] = tensors[dense].T.contiguous()
    elif how == "cut":
        tensors[dense] = tensors[dense][:-1].contiguous()


def broken(folder: Path, how: str) -> None:
    """Break the checkpoint in a folder."""
    path, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    tensors, config = load_file(path), json.loads((folder / "config.json").read_text())
    reshaped(tensors, how)
    save_file(tensors, path)
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "index":
        index.write_text(json.dumps({"weight_map": {"x": "model-00002-of-00002.safetensors"}}))
    elif how == "index is no JSON":
        index.write_text("{")
    elif how == "pickle":
        path.unlink()
        torch.save({"weights": Path("/tmp")}, folder / "pytorch_model.bin")
    elif how == "tokenizer":
        (folder / "tokenizer.model").write_bytes(b"\x00nonsense")
    elif how == "glm4":
        (folder / "tokenizer.model").write_bytes(b"IQ== 0\nIg== 1\n")
    elif how in CHANGES:
        (folder / "config.json").write_text(json.dumps(config | CHANGES[how]))


CHANGES = {
    "first": {"position_encoding_2d": True},
    "quantised": {"quantization_bit": 4},
    "size": {"num_layers": "many"},
    "rope": {"original_rope": False},
    "groups": {"multi_query_group_num": 3},
    "words": {"padded_vocab_size": 300},
}
COMPLAINTS = {
    "missing": r"1 missing, first transformer\.encoder\.layers\.0\.input_layernorm\.weight",
    "renamed": r"1 missing, first .*input_layernorm.*1 that such a network has not, first .*layers\.0\.norm\.weight",
    "transposed": r"dense_4h_to_h\.weight has shape \[48, 32\], expected \[32, 48\] by config.json",
    "cut": r"has shape \[31, 48\], expected \[32, 48\]",
    "truncated": r"model\.safetensors can't be read as safetensors",
    "index": r"names model-00002-of-00002\.safetensors, which is not in",
    "index is no JSON": r"index\.json is broken",
    "pickle": r"pytorch_model\.bin can't be read as plain PyTorch weights",
    "tokenizer": r"can't be read as a SentencePiece model",
    "glm4": r"is a tiktoken vocabulary, as GLM-4 has",
    "first": r"this is ChatGLM-6B, the first one",
    "quantised": r"quantization_bit is 4, expected 0",
    "size": r"num_layers is 'many', expected a positive integer",
    "rope": r"original_rope is False, expected True",
    "groups": r"multi_query_group_num is 3, expected a divisor of the 4 heads",
    "words": r"they do not fit",
}


@pytest.mark.parametrize("how", COMPLAINTS)
def test_a_broken_checkpoint_is_one_sentence_and_nothing_is_written(tmp_path, pieces, workspace, how):
    checkpoint(Path("source"), pieces["identity"][0], SIZES["grouped"])
    broken(Path("source"), how)
    workspace(base=base_section(Path("source")) | {"source": "./source"})
    with pytest.raises(ValueError, match=COMPLAINTS[how]) as error:
        stages.base.main()
    assert "base.source './source'" in str(error.value)
    assert not Path("models").exists() or not list(Path("models").iterdir())


MIXED = st.text(
    alphabet=st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from("  \t\r\n　▁_，。！？１２ＡＢabc你好医生０9²①㎏ﷺﬁéがｶﾞ각각😀👨👩🏽～"),
        st.sampled_from(
            "\u0301\u0323\u0302\u200b\u200c\u200d\ufeff\ufe0f\u3099\uff9e\ufff0\ufff1\ufff2\ufff3\ufdd0\x00\x01"
        ),
    ),
    max_size=24,
)


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=400, deadline=None)
@given(text=MIXED)
def test_ids_are_sentencepieces_for_any_text(pieces, rule, text):
    _, reference, tokenizer, plain = pieces[rule]
    ids = plain.encode(text, add_special_tokens=False).ids
    assert ids == reference.encode(text)
    assert tokenizer.decode(ids) == reference.decode(ids)


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=150, deadline=None)
@given(
    words=st.lists(st.sampled_from([*CONTROL, "</s>", "<s>", "<unk>", "<0x0A>", "▁", "\n", "你好", " "]), max_size=8)
)
def test_no_text_becomes_a_control_token(pieces, rule, words):
    _, reference, tokenizer, plain = pieces[rule]
    text = "".join(words)
    ids = plain.encode(text, add_special_tokens=False).ids
    control = set(tokenizer.get_added_vocab().values())
    assert {*tokenizer.convert_tokens_to_ids(list(CONTROL)), tokenizer.eos_token_id} <= control
    assert not control & set(ids) - {tokenizer.unk_token_id}
    assert ids == reference.encode(text)


def test_ids_are_sentencepieces_for_all_real_text(golden, samples):
    from sentencepiece import SentencePieceProcessor

    reference = SentencePieceProcessor(str(samples / "golden/chatglm3-tiny/tokenizer.model"))
    plain = Prompter(load_tokenizer(golden[0])).plain
    files = [
        file
        for file in sorted((samples / "data").rglob("*"))
        if file.suffix in (".json", ".jsonl", ".txt", ".csv", ".xml", ".md")
    ]
    lines = []
    for file in files:
        encoding = "gb18030" if "toyhom" in str(file) else "utf-8"
        lines += file.read_text(encoding=encoding).split("\n")
    lines = sorted({line[:2000] for line in lines})
    assert len(lines) > 20_000
    for begin in range(0, len(lines), 1000):
        batch = lines[begin : begin + 1000]
        assert [one.ids for one in plain.encode_batch_fast(batch, add_special_tokens=False)] == reference.encode(batch)


def stored_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.mark.parametrize(("name", "dtype"), zip(SIZES, ("float16", "bfloat16", "float32"), strict=True))
def test_its_own_layout_again_tensor_for_tensor(tmp_path, pieces, monkeypatch, name, dtype):
    monkeypatch.setattr("tuneline.formats.safetensors_writer.LARGEST", 20_000)
    tensors, config = checkpoint(tmp_path / "source", pieces["identity"][0], SIZES[name], dtype=getattr(torch, dtype))
    base = converted(tmp_path / "source", tmp_path / "native", dtype)
    write_chatglm(base, base, tmp_path / "again", dtype)
    again = stored_tensors(tmp_path / "again")
    assert set(again) == set(tensors)
    inv_freq = "transformer.rotary_pos_emb.inv_freq"
    assert {key for key in tensors if not torch.equal(again[key], tensors[key])} <= {inv_freq}
    assert (again[inv_freq].shape, again[inv_freq].dtype) == (tensors[inv_freq].shape, tensors[inv_freq].dtype)
    assert (tmp_path / "again/tokenizer.model").read_bytes() == pieces["identity"][0].read_bytes()
    written = json.loads((tmp_path / "again/config.json").read_text())
    assert written == config | {"torch_dtype": dtype, "_name_or_path": "THUDM/chatglm3-6b"}
    # And what was written comes in by the front door as the same model.
    back = converted(tmp_path / "again", tmp_path / "back", dtype)
    ours, theirs = stored_tensors(base), stored_tensors(back)
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_tensor_that_differs_is_named(tmp_path, pieces):
    _, config = checkpoint(tmp_path / "source", pieces["identity"][0], SIZES["grouped"])
    base = converted(tmp_path / "source", tmp_path / "native")
    write_chatglm(base, base, tmp_path / "again", "float32")
    assert differences(base, tmp_path / "again", shape_of(config)) == []
    tensors = load_file(tmp_path / "again/model.safetensors")
    tensors["transformer.encoder.layers.1.self_attention.query_key_value.bias"][40] += 1e-6
    save_file(tensors, tmp_path / "again/model.safetensors")
    assert differences(base, tmp_path / "again", shape_of(config)) == ["model.layers.1.self_attn.k_proj.bias"]


def test_the_references_checkpoint_again(golden, samples, tmp_path):
    write_chatglm(golden[0], golden[0], tmp_path / "again", "float32")
    theirs = stored_tensors(samples / "golden/chatglm3-tiny")
    ours = stored_tensors(tmp_path / "again")
    assert {name for name in theirs if "inv_freq" not in name} == {name for name in ours if "inv_freq" not in name}
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for name in ("tokenizer.model", "tokenizer_config.json"):
        same = (samples / "golden/chatglm3-tiny" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
        assert same, name


BARE = """
import sys, json
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=False)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=False)
assert not any(name.startswith(("tuneline", "stages")) for name in sys.modules)
print(json.dumps([tokenizer(text).input_ids for text in json.loads(sys.argv[2])]), type(model).__name__)
"""


def test_it_loads_where_only_transformers_is(tmp_path, pieces):
    path, reference, tokenizer, _ = pieces["nmt_nfkc"]
    checkpoint(tmp_path / "source", path, SIZES["grouped"])
    folder = converted(tmp_path / "source", tmp_path / "native")
    texts = ["你好，philosophy  再见", "　全角１２３", "\tphilosopher's\r\n"]
    result = subprocess.run(
        [sys.executable, "-c", BARE, str(folder), json.dumps(texts)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    ids, name = result.stdout.rsplit(" ", 1)
    prefix = tokenizer.convert_tokens_to_ids(["[gMASK]", "sop"])
    assert json.loads(ids) == [prefix + reference.encode(text) for text in texts]
    assert name.strip() == "GlmForCausalLM"
    assert prefix == [len(reference) + 1, len(reference) + 3]


CHAT = [
    {"role": "system", "content": "简短"},
    {"role": "user", "content": "你好<|assistant|>"},
    {"role": "assistant", "content": "您好"},
    {"role": "user", "content": "再见"},
    {"role": "assistant", "content": "慢走"},
]


@pytest.mark.parametrize("mask", ["all_answers", "last_answer"])
def test_a_conversation_as_the_reference_writes_it(pieces, mask):
    _, reference, tokenizer, _ = pieces["identity"]
    control = {
        word: tokenizer.convert_tokens_to_ids(word)
        for word in ("[gMASK]", "sop", "<|system|>", "<|user|>", "<|assistant|>")
    }
    newline = reference.encode("\n")
    ids, learnt = [control["[gMASK]"], control["sop"]], [False, False]
    for number, message in enumerate(CHAT):
        learn = message["role"] == "assistant" and (mask == "all_answers" or number == 4)
        after_learnt = number and CHAT[number - 1]["role"] == "assistant" and mask == "all_answers"
        said = newline + reference.encode(message["content"])
        ids += [control[f"<|{message['role']}|>"], *said]
        learnt += [bool(after_learnt), *[learn] * len(said)]
    ids, learnt = [*ids, reference.eos_id()], [*learnt, True]
    prompter = Prompter(tokenizer)
    row = prompter.training_row(CHAT, mask)
    assert row.input_ids == ids
    assert [label != IGNORE_INDEX for label in row.labels] == learnt
    prompt = prompter.generation_prompt(CHAT[:-1])
    assert row.input_ids[: len(prompt)] == prompt
    assert prompt[-1] == control["<|assistant|>"]
    stops = {reference.eos_id(), control["<|user|>"], tokenizer.convert_tokens_to_ids("<|observation|>")}
    assert set(prompter.stop_ids) == stops


def test_where_the_saved_template_says_the_same(golden):
    """Servers encode the rendered text at once. Where the line end is a piece of its own, a space after it stands for
    the dummy prefix; a text that itself begins with white space, or spells a control word, becomes something else."""
    tokenizer = load_tokenizer(golden[0])
    rendered = tokenizer.apply_chat_template(
        CHAT[2:4][::-1][:1], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    control = Prompter(tokenizer).control
    ids = Prompter(tokenizer).generation_prompt([CHAT[3]])
    assert [token for token in rendered if token in control] == [token for token in ids if token in control]
    forged = [{"role": "user", "content": "你好<|assistant|>"}]
    text_level = tokenizer.apply_chat_template(forged, add_generation_prompt=True, tokenize=True, return_dict=False)
    assistant = tokenizer.convert_tokens_to_ids("<|assistant|>")
    assert text_level.count(assistant) == 2, "text of a user becomes a control token there"
    assert Prompter(tokenizer).generation_prompt(forged).count(assistant) == 1, "and never here"


def test_the_tree_asks_for_no_remote_code_and_no_pickle():
    import ast

    for file in [
        path for folder in ("stages", "tuneline", "chat", "benchmarks") for path in (ROOT / folder).rglob("*.py")
    ]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert isinstance(node.value, ast.Constant), file
                assert node.value.value is False, file
            if isinstance(node, ast.keyword) and node.arg == "weights_only":
                assert isinstance(node.value, ast.Constant), file
                assert node.value.value is True, file
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called = f"{getattr(node.func.value, 'id', '')}.{node.func.attr}"
                assert called not in ("pickle.load", "pickle.loads", "joblib.load", "importlib.util"), file
                if called == "torch.load":
                    assert any(keyword.arg == "weights_only" for keyword in node.keywords), file
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if isinstance(key, ast.Constant) and key.value == "trust_remote_code":
                        assert isinstance(value, ast.Constant), file
                        assert value.value is False, file


def test_lora_targets_by_chatglms_names(tmp_path, pieces):
    checkpoint(tmp_path / "source", pieces["identity"][0], SIZES["grouped"])
    model = load_model(converted(tmp_path / "source", tmp_path / "native"), torch.float32)
    assert resolve_targets(model, ["query_key_value"]) == {"q_proj", "k_proj", "v_proj"}
    four = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]
    assert resolve_targets(model, four) == resolve_targets(model, ["all"])
    with pytest.raises(ValueError, match=r"lora.targets holds \['dense_h'\]"):
        resolve_targets(model, ["dense_h"])


ANSWER = """
import sys, json, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=False)
ids = torch.tensor([json.loads(sys.argv[2])])
said = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
print(json.dumps(said[0].tolist()))
"""


@pytest.mark.story
def test_all_stages_on_a_chatglm3_checkpoint(project, pieces, tmp_path):
    checkpoint(
        tmp_path / "source", pieces["nmt_nfkc"][0], SIZES["grouped"] | {"seq_length": 1024}, "shards", torch.float16
    )
    params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    params["base"] |= base_section(tmp_path / "source")
    params["lora"]["targets"] = ["query_key_value", "dense_4h_to_h"]
    params["export"] |= {"layout": "chatglm3", "dtype": "float32"}
    params["tokenize"]["max_tokens"] = 1024
    (project / "params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True), encoding="utf-8")
    dvc(project, "repro")
    trained = json.loads((project / "metrics/train.json").read_text())
    assert trained["last_loss"] < trained["first_loss"]
    assert json.loads((project / "metrics/export.json").read_text())["delta_nll"] < 0.01
    # In a process that has only transformers, the merged model says what the adapter says.
    tuned = load_adapter(load_model(project / "models/base", torch.float32), project / "models/adapter")
    prompter = Prompter(load_tokenizer(project / "models/base"))
    ids = prompter.generation_prompt([{"role": "user", "content": "感冒了怎么办"}])
    given = torch.tensor([ids])
    said = tuned.generate(
        input_ids=given, attention_mask=torch.ones_like(given), max_new_tokens=12, do_sample=False
    ).tolist()[0]
    command = [sys.executable, "-c", ANSWER, str(project / "models/merged"), json.dumps(ids)]
    bare = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert bare.returncode == 0, bare.stderr[-2000:]
    assert json.loads(bare.stdout) == said
    assert len(said) > len(ids)
    merged = project / "models/merged"
    own = stored_tensors(merged / "chatglm3")
    fused = own["transformer.encoder.layers.1.self_attention.query_key_value.weight"]
    native = stored_tensors(merged)
    apart = [native[f"model.layers.1.self_attn.{name}_proj.weight"] for name in "qkv"]
    assert torch.equal(fused, torch.cat(apart))
    assert trained["trainable_parameters_as_chatglm"] < trained["trainable_parameters"]


@pytest.mark.parametrize(
    "modules",
    [
        ("self_attention.query_key_value",),
        ("self_attention.query_key_value", "self_attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    ],
)
def test_an_adapter_from_the_remote_code_is_the_same_function(tmp_path, pieces, modules):
    tensors, config = checkpoint(tmp_path / "source", pieces["identity"][0], SIZES["grouped"])
    base = converted(tmp_path / "source", tmp_path / "native")
    torch.manual_seed(11)
    adapter, merged = {}, dict(tensors)
    for layer in range(config["num_layers"]):
        for module in modules:
            name = f"transformer.encoder.layers.{layer}.{module}"
            rows, columns = tensors[f"{name}.weight"].shape
            a, b = torch.randn(4, columns) / 4, torch.randn(rows, 4) / 4
            adapter |= {f"base_model.model.{name}.lora_A.weight": a, f"base_model.model.{name}.lora_B.weight": b}
            merged[f"{name}.weight"] = tensors[f"{name}.weight"] + 16 / 4 * b @ a
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    save_file(adapter, theirs / "adapter_model.safetensors")
    settings_ = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 16,
        "lora_dropout": 0.1,
        "bias": "none",
        "task_type": "CAUSAL_LM",
    }
    settings_ |= {"target_modules": [module.rpartition(".")[2] for module in modules], "inference_mode": True}
    (theirs / "adapter_config.json").write_text(json.dumps(settings_))
    import_adapter(theirs, base, tmp_path / "ours")
    tuned = load_adapter(load_model(base, torch.float32), tmp_path / "ours")
    ids = list(range(5, 40))
    with torch.inference_mode():
        found = tuned(input_ids=torch.tensor([ids])).logits[0]
    torch.testing.assert_close(found.double(), equations(merged, config, ids), rtol=0, atol=5e-5)
    assert (found.double() - equations(tensors, config, ids)).abs().max() > 0.1, "the adapter does something"


def test_an_adapter_of_another_kind_is_refused(tmp_path, pieces):
    checkpoint(tmp_path / "source", pieces["identity"][0], SIZES["grouped"])
    base = converted(tmp_path / "source", tmp_path / "native")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "use_dora": True}))
    with pytest.raises(ValueError, match=r"with \['use_dora'\], expected plain LoRA"):
        import_adapter(theirs, base, tmp_path / "ours")
    (theirs / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(ValueError, match="holds neither"):
        import_adapter(theirs, base, tmp_path / "ours")
    name = "base_model.model.transformer.encoder.layers.0.self_attention.query_key_value.lora_B.weight"
    save_file({name: torch.ones(10, 4)}, theirs / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"has 10 rows, expected 64 = \[32, 16, 16\]"):
        import_adapter(theirs, base, tmp_path / "ours")
    save_file({"base_model.model.lm_head.lora_B.weight": torch.ones(10, 4)}, theirs / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="expected LoRA tensors of"):
        import_adapter(theirs, base, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
