"""Tiny random bases with tokenizers trained here, as a user would bring them and as the base stage writes them."""

from pathlib import Path

MARKERS = {
    "gemma": ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"],
    "chatml": ["<pad>", "<eos>", "<|im_start|>", "<|im_end|>"],
    "llama3": ["<pad>", "<eos>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    "glm4": ["<pad>", "<eos>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"],
}
FIRST = {"gemma": "<bos>", "llama3": "<|begin_of_text|>"}
TEXTS = [
    "感冒一般一周左右会自行好转，请多休息、多喝温水。",
    "根据《中华人民共和国民法典》第二百零九条，不动产物权的设立、变更、转让和消灭，经依法登记，发生效力。",
    "The quick brown fox jumps over the lazy dog.\n\nuser model assistant system",
]


def make_tokenizer(family: str):
    """A byte-level BPE tokenizer with the family's control tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=MARKERS[family],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    bos = {"bos_token": FIRST[family]} if family in FIRST else {}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", **bos)


def make_base(folder: Path, family: str = "gemma", model: str = "gemma3") -> Path:
    """A random two-layer model with its tokenizer, as a checkpoint folder."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(family)
    shape = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 2048}
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    torch.manual_seed(5)
    if model == "gemma3":
        config = Gemma3TextConfig(**shape, **heads, **ends, sliding_window=64, query_pre_attn_scalar=16)
        network = Gemma3ForCausalLM(config)
    else:
        config = LlamaConfig(**shape, **heads, **ends, tie_word_embeddings=False)
        network = LlamaForCausalLM(config)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def canonical(source: Path, folder: Path, dtype: str) -> Path:
    """A checkpoint as the base stage writes it."""
    from tuneline.base.canonicalize import canonicalize
    from tuneline.models.config import Base
    from tuneline.runtime.hashing import write_sums

    params = Base.model_validate(base_section(source) | {"dtype": dtype})
    canonicalize(source, None, params, folder)
    write_sums(folder)
    return folder


def base_section(folder: Path) -> dict:
    from tuneline.runtime.hashing import folder_sha256

    section = {"source": str(folder), "revision": None, "sha256": folder_sha256(folder), "dtype": "bfloat16"}
    return section | {"max_perplexity_zh": None, "max_perplexity_en": None}
