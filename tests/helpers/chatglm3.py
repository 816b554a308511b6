"""ChatGLM3 checkpoints made here, and what their network computes.

The network is written out from the equations of the papers (Su et al. 2021, Shazeer 2020, Zhang and Sennrich 2019).
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.helpers.tiny_models import TEXTS, base_section
from tuneline.base.canonicalize import canonicalize
from tuneline.models.config import Base

CONFIG = {
    "model_type": "chatglm", "architectures": ["ChatGLMModel"], "add_bias_linear": False, "add_qkv_bias": True,
    "apply_residual_connection_post_layernorm": False, "multi_query_attention": True, "original_rope": True,
    "post_layer_norm": True, "rmsnorm": True, "layernorm_epsilon": 1e-5, "seq_length": 256, "quantization_bit": 0,
}  # fmt: skip
"""Of a ChatGLM3 checkpoint, sizes left out."""
REAL = CONFIG | {
    "num_layers": 28, "hidden_size": 4096, "num_attention_heads": 32, "kv_channels": 128, "multi_query_group_num": 2,
    "ffn_hidden_size": 13696, "padded_vocab_size": 65024, "seq_length": 8192,
}  # fmt: skip
"""ChatGLM3-6B."""
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
    canonicalize(source, None, params, folder)
    return folder


def stored_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
