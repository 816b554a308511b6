"""Tiny random checkpoints of families of bases as their authors publish them: classes, names of tensors, tokens, template."""

from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.chat_templates import published, template_tokenizer
from tests.helpers.chatglm3 import SIZES, checkpoint, train_pieces

SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 1024}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
HALF = {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}}
TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
SHORT_WINDOW = {
    "sliding_window": 16,
    "query_pre_attn_scalar": 16,
    "layer_types": ["sliding_attention", "full_attention"],
}
DELTA = {
    "layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5,
                        "mrope_section": [2, 1, 1], "mrope_interleaved": True},
}  # fmt: skip
LONG = [1.0 + 0.1 * i for i in range(6)]
LOOP = "{%- for m in messages -%}"
TEMPLATES = {
    "glm4": "{{- '[gMASK]<sop>' -}}" + LOOP + "{{- '<|' + m.role + '|>\n' + m.content -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}",
    "mistral": "{{- bos_token -}}" + LOOP + "{%- if m.role == 'user' -%}{{- '[INST] ' + m.content + ' [/INST]' -}}"
    "{%- elif m.role == 'system' -%}{{- '[SYSTEM_PROMPT] ' + m.content + '[/SYSTEM_PROMPT]' -}}"
    "{%- else -%}{{- ' ' + m.content + eos_token -}}{%- endif -%}{%- endfor -%}",
    "phi4": LOOP + "{{- '<|' + m.role + '|>' + m.content + '<|end|>' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- else -%}{{- eos_token -}}{%- endif -%}",
    "hunyuan": "{{- '<|startoftext|>' -}}" + LOOP + "{%- if m.role == 'system' -%}{{- m.content + '<|extra_4|>' -}}"
    "{%- elif m.role == 'user' -%}{{- m.content + '<|extra_0|>' -}}{%- else -%}{{- m.content + '<|eos|>' -}}{%- endif -%}"
    "{%- endfor -%}",
    "ernie": "{{- '<|begin_of_sentence|>' -}}" + LOOP + "{%- if m.role == 'user' -%}{{- 'User: ' + m.content + '\n' -}}"
    "{%- elif m.role == 'system' -%}{{- m.content + '\n' -}}"
    "{%- else -%}{{- 'Assistant: ' + m.content + '<|end_of_sentence|>' -}}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- 'Assistant: ' -}}{%- endif -%}",
    "bos chatml": "{{- bos_token -}}" + LOOP + "{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' -}}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}",
    "granite": LOOP + "{{- '<|start_of_role|>' + m.role + '<|end_of_role|>' + m.content + '<|end_of_text|>\n' -}}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|start_of_role|>assistant<|end_of_role|>' -}}{%- endif -%}",
    "seed": LOOP + "{{- '<seed:bos>' + m.role + '\n' + m.content + '<seed:eos>' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<seed:bos>assistant\n' -}}{%- endif -%}",
}  # fmt: skip
"""As published ones, where the package trl has none."""


class Published(NamedTuple):
    """How a family is published."""

    config: str
    """Class of transformers; or `ChatGLM`, which has its own layout."""
    template: str
    """Name in TEMPLATES, or of the package trl."""
    special: dict[str, Any] = {}  # noqa: RUF012
    """Of the config (of its text part, where it has several), beside SHAPE and HEADS, what is None left out."""
    parts: dict[str, Any] | None = None
    """Of a config whose text part is one of several: what stands beside `text_config`."""
    model: str = "AutoModelForCausalLM"
    """Class of transformers that wrote the weights."""
    extra: tuple[str, ...] = ()
    """Tensors that the published files hold and the class does not read."""
    fused: bool = False
    """Whether the files hold a tensor for all experts of a layer, as memory does."""
    quick: bool = False
    """Whether `make test` has it."""


PUBLISHED = {
    "Qwen2": Published("Qwen2Config", "qwen2_5", {"tie_word_embeddings": True, "head_dim": None}),
    "Qwen2.5": Published("Qwen2Config", "qwen2_5", {"tie_word_embeddings": False, "head_dim": None}),
    "Qwen3": Published("Qwen3Config", "qwen3", {"tie_word_embeddings": True}),
    "Qwen3.5": Published(
        "Qwen3_5Config", "qwen3_5_think", DELTA,
        {"vision_config": {"depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32,
                           "num_position_embeddings": 16}},
        "Qwen3_5ForConditionalGeneration", ("mtp.fc.weight",),
    ),
    "Llama 3.1": Published("LlamaConfig", "llama3_1", {"tie_word_embeddings": False}),
    "Llama 3.2": Published("LlamaConfig", "llama3_2", {
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 32.0, "low_freq_factor": 1.0,
                            "high_freq_factor": 4.0, "original_max_position_embeddings": 512}}),
    "DeepSeek-R1-Distill-Qwen": Published("Qwen2Config", "deepseek_r1_distill", {
        "tie_word_embeddings": False, "head_dim": None}),
    "DeepSeek-R1-Distill-Llama": Published("LlamaConfig", "deepseek_r1_distill", {"tie_word_embeddings": False}),
    "GLM-4": Published("GlmConfig", "glm4", {"tie_word_embeddings": False, "attention_bias": True} | HALF),
    "GLM-4-0414": Published("Glm4Config", "glm4", {"tie_word_embeddings": False} | HALF),
    "ChatGLM2, ChatGLM3": Published("ChatGLM", ""),
    "Gemma 2": Published("Gemma2Config", "gemma", SHORT_WINDOW),
    "Gemma 3 1B": Published("Gemma3TextConfig", "gemma3", SHORT_WINDOW),
    "Gemma 3 4B, MedGemma": Published(
        "Gemma3Config", "gemma3", SHORT_WINDOW, {"vision_config": TOWER | {"image_size": 28, "patch_size": 14},
                                                 "mm_tokens_per_image": 4, "tie_word_embeddings": True},
        "Gemma3ForConditionalGeneration", quick=True,
    ),
    "Gemma 4": Published(
        "Gemma4Config", "gemma4",
        {"sliding_window": 16, "num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2,
         "num_kv_shared_layers": 2, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": "vocabulary",
         "final_logit_softcapping": 30.0, "global_head_dim": 32},
        {"vision_config": TOWER | {"head_dim": 8, "num_key_value_heads": 2, "position_embedding_size": 64},
         "audio_config": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "output_proj_dims": 16,
                          "subsampling_conv_channels": [4, 4]}},
        "Gemma4ForConditionalGeneration",
    ),
    "Mistral": Published("MistralConfig", "mistral", {"sliding_window": None, "tie_word_embeddings": False}),
    "Phi-4-mini": Published("Phi3Config", "phi4", {
        "head_dim": None, "tie_word_embeddings": True, "sliding_window": 512, "hidden_size": 64,
        "original_max_position_embeddings": 512,
        "rope_parameters": {"rope_type": "longrope", "rope_theta": 10_000.0, "partial_rotary_factor": 0.75,
                            "short_factor": [1.0] * 6, "long_factor": LONG, "original_max_position_embeddings": 512}}),
    "Hunyuan": Published("HunYuanDenseV1Config", "hunyuan", {"tie_word_embeddings": True}),
    "ERNIE 4.5": Published("Ernie4_5Config", "ernie", {"tie_word_embeddings": True}),
    "MiniCPM3": Published("MiniCPM3Config", "bos chatml", {
        "head_dim": None, "num_key_value_heads": 4, "kv_lora_rank": 8, "q_lora_rank": 12, "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 4, "dim_model_base": 16}),
    "MiniCPM5": Published("LlamaConfig", "bos chatml", {"tie_word_embeddings": False}),
    "InternLM3": Published("InternLM3Config", "bos chatml", {"tie_word_embeddings": False}),
    "Granite": Published("GraniteConfig", "granite", {
        "head_dim": None, "tie_word_embeddings": True, "embedding_multiplier": 12.0, "logits_scaling": 8.0,
        "residual_multiplier": 0.22, "attention_multiplier": 0.125}),
    "SmolLM3": Published("SmolLM3Config", "qwen3", {"head_dim": None, "no_rope_layer_interval": 2}),
    "LFM2": Published("Lfm2Config", "lfm2", {
        "head_dim": None, "layer_types": ["conv", "full_attention"], "block_multiple_of": 16}, quick=True),
    "Seed-OSS": Published("SeedOssConfig", "seed", {"tie_word_embeddings": False, "residual_dropout": 0.0,
                                                     "attention_dropout": 0.0}),
    "EXAONE 4": Published("Exaone4Config", "bos chatml", {
        "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}),
    "OLMo 3": Published("Olmo3Config", "bos chatml", {
        "head_dim": None, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}),
    "LFM3": Published("Lfm3Config", "lfm2", {
        "sliding_window": 16, "num_hidden_layers": 3, "layer_types": ["conv", "sliding_attention", "full_attention"]}),
    "Ministral 3": Published(
        "Mistral3Config", "mistral", {"text": "Ministral3Config", "tie_word_embeddings": False},
        {"vision_config": {"model_type": "pixtral", **TOWER, "image_size": 28, "patch_size": 14, "head_dim": 8},
         "tie_word_embeddings": False},
        "Mistral3ForConditionalGeneration",
    ),
}  # fmt: skip
EXPERTS = {"moe_intermediate_size": 16, "num_experts_per_tok": 2, "tie_word_embeddings": False}
SHARED = EXPERTS | {"n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1}
LATENT = SHARED | {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 12,
                   "num_key_value_heads": 4, "n_group": 1, "topk_group": 1, "head_dim": None}  # fmt: skip
BLOCKS = {"num_local_experts": 4, "num_experts_per_tok": 2, "tie_word_embeddings": False}
MORE_LAYERS = ("model.layers.2.enorm.weight", "model.layers.2.mlp.experts.0.down_proj.weight")
"""Of the layer that predicts several tokens."""
WITH_EXPERTS = {
    "Qwen3-MoE": Published("Qwen3MoeConfig", "qwen3", EXPERTS | {"num_experts": 4}),
    "GLM-4.5-Air": Published("Glm4MoeConfig", "glm4moe", SHARED | HALF, extra=MORE_LAYERS),
    "GLM-4.7-Flash": Published("Glm4MoeLiteConfig", "glm4moe", LATENT, extra=MORE_LAYERS),
    "DeepSeek-V3": Published("DeepseekV3Config", "deepseekv3", LATENT),
    "ERNIE 4.5 MoE": Published("Ernie4_5_MoeConfig", "ernie", {
        "moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 16, "moe_num_shared_experts": 1, "moe_layer_start_index": 1,
        "tie_word_embeddings": True}),
    "Granite MoE": Published("GraniteMoeConfig", "granite", BLOCKS | {"head_dim": None, "logits_scaling": 8.0}),
    "Mixtral": Published("MixtralConfig", "mistral", BLOCKS | {"sliding_window": None}),
    "gpt-oss": Published("GptOssConfig", "gptoss", BLOCKS | {
        "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}}, fused=True),
    "Hunyuan MoE": Published("HunYuanMoEV1Config", "hunyuan", {"num_experts": 4, "moe_topk": 2, "tie_word_embeddings": True}),
    "LFM2 MoE": Published("Lfm2MoeConfig", "lfm2", EXPERTS | {
        "head_dim": None, "num_experts": 4, "num_dense_layers": 1, "layer_types": ["conv", "full_attention"]}),
    "Qwen3.5-MoE": Published(
        "Qwen3_5MoeConfig", "qwen3_5_think",
        DELTA | EXPERTS | {"num_experts": 4, "shared_expert_intermediate_size": 16},
        {"vision_config": {"depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32,
                           "num_position_embeddings": 16}},
        "Qwen3_5MoeForConditionalGeneration", fused=True,
    ),
}  # fmt: skip
PUBLISHED |= WITH_EXPERTS


def tokenizer_of(name: str) -> Any:
    """A small tokenizer with the markers and the template of a family."""
    template = PUBLISHED[name].template
    text = TEMPLATES[template] if template in TEMPLATES else published()[template]
    return template_tokenizer(text, markers="<|user|><|system|><|observation|>" if template == "glm4" else "")


def publish(name: str, folder: Path) -> Path:
    """Write the family's checkpoint."""
    import torch
    import transformers
    from safetensors.torch import load_file, save_file

    family = PUBLISHED[name]
    if family.config == "ChatGLM":
        checkpoint(folder, train_pieces(folder.parent / "pieces", "identity", 400), SIZES["grouped"])
        return folder
    tokenizer = tokenizer_of(name)
    ends = {
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
    }
    values = {"vocab_size": len(tokenizer), **SHAPE, **HEADS, **ends, **family.special}
    values = {
        key: len(tokenizer) if value == "vocabulary" else value for key, value in values.items() if value is not None
    }
    kind = getattr(transformers, family.config)
    if family.parts is None:
        config = kind(**values)
    else:
        text = values.pop("text", None)
        inner = getattr(transformers, text)(**values).to_dict() if text else values
        config = kind(text_config=inner, **family.parts)
    torch.manual_seed(7)
    model_class = getattr(transformers, family.model)
    build = model_class.from_config if family.model.startswith("Auto") else model_class._from_config
    model = build(config)
    with torch.no_grad():
        for parameter in model.parameters():
            # Norms begin as ones, biases as zeros, and what is never anything else is never compared.
            parameter += 0.02 * torch.randn_like(parameter)
    model.save_pretrained(folder, save_original_format=not family.fused)
    if family.extra:
        path = folder / "model.safetensors"
        save_file(load_file(path) | {one: torch.randn(8, 8) for one in family.extra}, path, metadata={"format": "pt"})
    if family.parts is not None:
        (folder / "preprocessor_config.json").write_text(
            '{"image_processor_type": "of the family"}\n', encoding="utf-8"
        )
    tokenizer.save_pretrained(folder)
    return folder
