"""Tensor names of ChatGLM and of native `Glm`: a renaming, but for query, key and value, which are one tensor there."""

from collections.abc import Iterator
from typing import NamedTuple

from tuneline.models.chatglm.config import Shape

IGNORED = ("transformer.rotary_pos_emb.inv_freq",)
"""Computed from the config, and no weight."""


LAYERS = {
    "self_attention.query_key_value": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention.dense": ("self_attn.o_proj",),
    "mlp.dense_h_to_4h": ("mlp.gate_up_proj",),
    "mlp.dense_4h_to_h": ("mlp.down_proj",),
}
"""ChatGLM's linear layers of a block, and the native ones that hold their rows in this order."""
MODULES = {
    chatglm.rpartition(".")[2]: tuple(name.rpartition(".")[2] for name in native) for chatglm, native in LAYERS.items()
}
"""The same by the last part of the names: what recipes call LoRA targets."""


OUTSIDE = {
    "transformer.embedding.word_embeddings": "model.embed_tokens",
    "transformer.encoder.final_layernorm": "model.norm",
    "transformer.output_layer": "lm_head",
}
"""Modules outside of the blocks: ChatGLM's name to the native one."""
BLOCKS = ("transformer.encoder.layers.", "model.layers.")
"""What names within a block begin with, in ChatGLM and natively."""


def native_name(name: str) -> tuple[str, ...]:
    """The native last names of a module by its last name in ChatGLM; a name of another kind is kept."""
    last = {chatglm.rpartition(".")[2]: (native.rpartition(".")[2],) for chatglm, native in OUTSIDE.items()}
    # PEFT compares ends of names: `norm` alone would be every layer's norms as well.
    last["final_layernorm"] = ("model.norm",)
    return (MODULES | last).get(name.rpartition(".")[2], (name,))


def native_modules(module: str) -> tuple[str, ...]:
    """The native modules that hold a module of ChatGLM, by its whole name; none for a name that it has not."""
    if module in OUTSIDE:
        return (OUTSIDE[module],)
    number, _, inner = module.removeprefix(BLOCKS[0]).partition(".")
    if not module.startswith(BLOCKS[0]) or not number.isdigit():
        return ()
    same = (inner,) if inner in ("input_layernorm", "post_attention_layernorm") else ()
    return tuple(f"{BLOCKS[1]}{number}.{native}" for native in LAYERS.get(inner, same))


def chatglm_name(native: str) -> str:
    """The name of a native module or parameter in ChatGLM: several have the name of what holds them together."""
    for theirs, ours in OUTSIDE.items():
        if native == ours or native.startswith(f"{ours}."):
            return theirs + native.removeprefix(ours)
    if not native.startswith(BLOCKS[1]):
        return native
    number, _, inner = native.removeprefix(BLOCKS[1]).partition(".")
    for theirs, names in LAYERS.items():
        for ours in names:
            if inner == ours or inner.startswith(f"{ours}."):
                inner = theirs + inner.removeprefix(ours)
    return f"{BLOCKS[0]}{number}.{inner}"


class Part(NamedTuple):
    """Rows of one of ChatGLM's tensors that are one of Glm's."""

    native: str
    chatglm: str
    first: int
    """First row."""
    rows: int
    shape: tuple[int, ...]
    """Of the native tensor."""
    whole: tuple[int, ...]
    """Of ChatGLM's tensor."""


def parts(shape: Shape) -> Iterator[Part]:
    """Every tensor of the network, in the order of a forward pass."""

    def one(native: str, chatglm: str, *size: int) -> Part:
        return Part(native, chatglm, 0, size[0], size, size)

    yield one("model.embed_tokens.weight", "transformer.embedding.word_embeddings.weight", shape.words, shape.hidden)
    for number in range(shape.layers):
        native, chatglm = f"model.layers.{number}.", f"transformer.encoder.layers.{number}."
        yield one(f"{native}input_layernorm.weight", f"{chatglm}input_layernorm.weight", shape.hidden)
        yield from _attention(shape, f"{native}self_attn.", f"{chatglm}self_attention.query_key_value.")
        attended = shape.query_rows
        yield one(f"{native}self_attn.o_proj.weight", f"{chatglm}self_attention.dense.weight", shape.hidden, attended)
        yield one(f"{native}post_attention_layernorm.weight", f"{chatglm}post_attention_layernorm.weight", shape.hidden)
        # Gate rows first in both.
        yield one(
            f"{native}mlp.gate_up_proj.weight", f"{chatglm}mlp.dense_h_to_4h.weight", 2 * shape.inner, shape.hidden
        )
        yield one(f"{native}mlp.down_proj.weight", f"{chatglm}mlp.dense_4h_to_h.weight", shape.hidden, shape.inner)
    yield one("model.norm.weight", "transformer.encoder.final_layernorm.weight", shape.hidden)
    yield one("lm_head.weight", "transformer.output_layer.weight", shape.words, shape.hidden)


def _attention(shape: Shape, native: str, chatglm: str) -> Iterator[Part]:
    total = shape.query_rows + 2 * shape.key_rows
    for kind, last in (("weight", (shape.hidden,)), *((("bias", ()),) if shape.qkv_bias else ())):
        first = 0
        for name, rows in (("q", shape.query_rows), ("k", shape.key_rows), ("v", shape.key_rows)):
            yield Part(f"{native}{name}_proj.{kind}", f"{chatglm}{kind}", first, rows, (rows, *last), (total, *last))
            first += rows
