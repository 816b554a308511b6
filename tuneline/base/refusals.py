"""What `base` refuses by a checkpoint's config.json and tokenizer alone."""

from typing import Any

from tuneline.models.chat_format import Prompter
from tuneline.models.config import Base


def refuse_remote_code(config: dict[str, Any], params: Base) -> None:
    """Raises ValueError for an architecture that exists only as code inside checkpoints (InternLM2, Baichuan, Qwen 1)."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = config.get("model_type")
    if config and not (isinstance(kind, str) and kind in CONFIG_MAPPING):
        carried = (
            ", and the checkpoint brings code of its own for it, which is never run" if "auto_map" in config else ""
        )
        raise ValueError(
            f"base.source {params.source!r}: config.json has model_type {kind!r}, which transformers does not have"
            f"{carried}; expected an architecture of transformers (llama, qwen2, qwen3, gemma3_text, glm, glm4 …), or ChatGLM2 "
            "or ChatGLM3 (chatglm)"
        )


def refuse_quantised(config: dict[str, Any], params: Base) -> None:
    """Raises ValueError for weights of fewer bits, but those that transformers makes whole when it reads them."""
    text = config.get("text_config") or {}
    found = config.get("quantization_config") or text.get("quantization_config")
    if found and (text or found.get("quant_method") != "mxfp4"):
        raise ValueError(
            f"base.source {params.source!r}: config.json has a quantization_config ({found.get('quant_method')}), expected the "
            "unquantised checkpoint, whose weights an adapter is merged into (lora.quantize makes them small while training)"
        )


def check_words(prompter: Prompter, config: Any, highest: int | None = None) -> None:
    """Raises ValueError for a prompt, or a vocabulary up to the id `highest`, that the embedding has no rows for."""
    row = prompter.training_row([{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}])
    for what, largest in (("prompt", max(*prompter.stop_ids, *row.input_ids)), ("vocabulary", highest or 0)):
        if largest >= config.vocab_size:
            raise ValueError(
                f"its {what} has a token with the id {largest}, and its embedding {config.vocab_size} rows; expected "
                "tokenizer and weights of one checkpoint"
            )
