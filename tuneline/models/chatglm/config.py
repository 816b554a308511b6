"""Config of a ChatGLM2 or ChatGLM3 checkpoint: recognised, checked, and converted to the native `Glm` config.

The network is the same: RMSNorm before each block, grouped-query attention with a bias on query, key and value only,
interleaved rotary positions on half of each head, a gated SiLU. Source: modeling_chatglm.py of THUDM/chatglm3-6b,
modeling_glm.py of transformers.
"""

from dataclasses import dataclass
from typing import Any

NEEDED = {
    "num_layers": int, "hidden_size": int, "num_attention_heads": int, "kv_channels": int, "ffn_hidden_size": int,
    "padded_vocab_size": int, "layernorm_epsilon": float, "seq_length": int,
}  # fmt: skip
EXPECTED: dict[str, Any] = {
    "rmsnorm": True,
    "post_layer_norm": True,
    "add_bias_linear": False,
    "apply_residual_connection_post_layernorm": False,
    "original_rope": True,
}
"""Choices of the remote code that native `Glm` has made; absent ones have these values there, too."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a ChatGLM network."""

    layers: int
    hidden: int
    heads: int
    groups: int
    """Heads of keys and of values."""
    head: int
    """Size of a head."""
    inner: int
    """Size of the feed-forward layer."""
    words: int
    """Rows of the embedding."""
    positions: int
    epsilon: float
    theta: float
    """Base of the rotary frequencies."""
    qkv_bias: bool

    @property
    def query_rows(self) -> int:
        return self.heads * self.head

    @property
    def key_rows(self) -> int:
        return self.groups * self.head


def is_chatglm(config: dict[str, Any]) -> bool:
    return config.get("model_type") == "chatglm"


def shape_of(config: dict[str, Any]) -> Shape:
    """Raises ValueError for the first ChatGLM, a quantised checkpoint, a missing size, or a choice that `Glm` lacks."""
    if "position_encoding_2d" in config or "inner_hidden_size" in config:
        raise ValueError(
            "this is ChatGLM-6B, the first one: it has another architecture (two-dimensional positions, full "
            "attention over the prompt), which is not supported; expected ChatGLM2 or ChatGLM3"
        )
    if config.get("quantization_bit"):
        raise ValueError(
            f"config.json: quantization_bit is {config['quantization_bit']}, expected 0: bring the unquantised checkpoint"
        )
    for name, kind in NEEDED.items():
        value = config.get(name)
        if isinstance(value, bool) or not isinstance(value, kind if kind is int else (int, float)) or value <= 0:
            raise ValueError(
                f"config.json: {name} is {value!r}, expected a positive {'integer' if kind is int else 'number'}"
            )
    for name, expected in EXPECTED.items():
        if config.get(name, expected) != expected:
            raise ValueError(
                f"config.json: {name} is {config[name]!r}, expected {expected} as in ChatGLM2 and ChatGLM3"
            )
    heads = config["num_attention_heads"]
    groups = config.get("multi_query_group_num", 1) if config.get("multi_query_attention") else heads
    if heads % groups:
        raise ValueError(f"config.json: multi_query_group_num is {groups}, expected a divisor of the {heads} heads")
    return Shape(
        layers=config["num_layers"],
        hidden=config["hidden_size"],
        heads=heads,
        groups=groups,
        head=config["kv_channels"],
        inner=config["ffn_hidden_size"],
        words=config["padded_vocab_size"],
        positions=config["seq_length"],
        epsilon=config["layernorm_epsilon"],
        theta=10_000.0 * config.get("rope_ratio", 1),
        qkv_bias=bool(config.get("add_qkv_bias", True)),
    )


def native_config(shape: Shape, dtype: str, pad: int, stops: list[int]) -> Any:
    """transformers' GlmConfig of the same network."""
    from transformers import GlmConfig

    return GlmConfig(
        vocab_size=shape.words,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.groups,
        head_dim=shape.head,
        max_position_embeddings=shape.positions,
        rms_norm_eps=shape.epsilon,
        attention_bias=shape.qkv_bias,
        rope_parameters={"rope_type": "default", "rope_theta": shape.theta, "partial_rotary_factor": 0.5},
        tie_word_embeddings=False,
        pad_token_id=pad,
        eos_token_id=stops,
        bos_token_id=None,
        architectures=["GlmForCausalLM"],
        dtype=dtype,
    )
