"""Random checkpoints in the shape of ChatGLM3-6B: ChatGLM's own layout, or native Glm with tokenizer and LoRA adapter."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

from tuneline.formats import safetensors_writer

CHATGLM3_6B = {
    "model_type": "chatglm", "num_layers": 28, "hidden_size": 4096, "num_attention_heads": 32, "kv_channels": 128,
    "multi_query_attention": True, "multi_query_group_num": 2, "ffn_hidden_size": 13696, "padded_vocab_size": 65024,
    "layernorm_epsilon": 1e-5, "seq_length": 8192,
}  # fmt: skip
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"]
MARKERS = ["<pad>", "<eos>", "[gMASK]", "sop", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]


def chatglm_config(layers: int) -> dict[str, Any]:
    return CHATGLM3_6B | {"num_layers": layers}


def write_chatglm(folder: Path, layers: int) -> None:
    """Float16 shards of about 1.8 GB under ChatGLM's names."""
    from tuneline.models.chatglm.config import shape_of
    from tuneline.models.chatglm.names import parts

    safetensors_writer.LARGEST = 1_800_000_000
    config = chatglm_config(layers)
    write_noise(folder, {part.chatglm: part.whole for part in parts(shape_of(config))}, "float16")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def write_native(base: Path, adapter: Path, layers: int) -> int:
    """A bfloat16 base with a tokenizer, and a LoRA adapter as PEFT saves one; returns the base's parameters."""
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    from tuneline.models.loading import empty_model

    parameters = write_base(base, chatglm_config(layers))
    model = empty_model(base)
    lora = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=TARGETS, inference_mode=True)
    write_noise(adapter, shapes_of(get_peft_model_state_dict(get_peft_model(model, lora))), "float32")
    (adapter / "model.safetensors").rename(adapter / "adapter_model.safetensors")
    lora.save_pretrained(str(adapter))
    return parameters


def write_base(base: Path, config: dict[str, Any]) -> int:
    """A bfloat16 base in native Glm with a tokenizer, of a config of ChatGLM's; returns its parameters."""
    from tuneline.models.chatglm.config import native_config, shape_of
    from tuneline.models.loading import empty_model
    from tuneline.runtime.hashing import write_sums

    base.mkdir(parents=True)
    native_config(shape_of(config), "bfloat16", 0, write_tokenizer(base)).save_pretrained(base)
    parameters = write_noise(base, shapes_of(empty_model(base).state_dict()), "bfloat16")
    write_sums(base)
    return parameters


def shapes_of(weights: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in weights.items()}


def write_tokenizer(folder: Path) -> list[int]:
    """Byte tokenizer with ChatGLM3's markers, and a generation config; returns the ids that stop an answer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GenerationConfig, PreTrainedTokenizerFast

    from tuneline.models.chat_format import load_prompter
    from tuneline.models.chat_templates import chat_template

    vocabulary = [*MARKERS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    model = Tokenizer(models.BPE({token: number for number, token in enumerate(vocabulary)}, []))
    model.pre_tokenizer, model.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    model.add_special_tokens(MARKERS)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, pad_token="<pad>", eos_token="<eos>")  # noqa: S106
    tokenizer.chat_template = chat_template("chatglm3")
    tokenizer.save_pretrained(folder)
    stops = load_prompter(tokenizer).stop_ids
    GenerationConfig(eos_token_id=stops, pad_token_id=0).save_pretrained(folder)
    return stops


def write_noise(folder: Path, shapes: dict[str, tuple[int, ...]], dtype: str) -> int:
    """Shards of small numbers, the same few over and over: drawing billions takes minutes; returns how many."""
    import torch

    def noise(shape: tuple[int, ...]) -> torch.Tensor:
        few = torch.randn(2**20, generator=torch.Generator().manual_seed(len(shape))).mul(0.02)
        count = math.prod(shape)
        return few.to(getattr(torch, dtype)).repeat(-(-count // len(few)))[:count].reshape(shape)

    tensors = [safetensors_writer.Tensor(name, shape, partial(noise, shape)) for name, shape in shapes.items()]
    safetensors_writer.write_shards(folder, tensors, dtype)
    return sum(math.prod(shape) for shape in shapes.values())
