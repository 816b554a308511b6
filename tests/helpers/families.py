"""A tiny random checkpoint of every family of bases that the README's table names."""

from pathlib import Path

from tests.helpers.tiny_models import make_tokenizer

SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 512}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
GLM = {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}}
FAMILIES = {
    "Llama 3": ("llama3", "LlamaConfig", {"tie_word_embeddings": False}),
    "Llama with ChatML": ("chatml", "LlamaConfig", {"tie_word_embeddings": False, "attention_bias": True}),
    "Qwen2": ("chatml", "Qwen2Config", {"tie_word_embeddings": True}),
    "Qwen3": ("chatml", "Qwen3Config", {"tie_word_embeddings": True}),
    "Gemma 3": ("gemma", "Gemma3TextConfig", {"sliding_window": 16, "query_pre_attn_scalar": 16}),
    "GLM-4": ("glm4", "GlmConfig", {"tie_word_embeddings": False, "attention_bias": True} | GLM),
    "GLM-4-0414": ("glm4", "Glm4Config", {"tie_word_embeddings": False} | GLM),
}


def raw_checkpoint(name: str, folder: Path) -> Path:
    """A random model of the family with a tokenizer of its markers, as its authors would publish it."""
    import torch
    import transformers

    markers, config_class, special = FAMILIES[name]
    tokenizer = make_tokenizer(markers)
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    config = getattr(transformers, config_class)(vocab_size=len(tokenizer), **SHAPE, **HEADS, **ends, **special)
    torch.manual_seed(7)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def train_a_little(model, row, steps: int = 40) -> list[float]:
    """Losses per learnt token of a few optimizer steps on one row."""
    import torch

    ids, labels = torch.tensor([row.input_ids]), torch.tensor([row.labels])
    learnt = int((labels != -100).sum())
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=0.02)
    losses = []
    for _ in range(steps):
        loss = model(input_ids=ids, labels=labels)["loss"] / learnt
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses
