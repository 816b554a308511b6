"""Names of base models as people know them, from what config.json says of their kind and shape."""

from typing import Any

KNOWN = {
    ("gemma3_text", 18, 640): "Gemma 3 270M",
    ("gemma3_text", 26, 1152): "Gemma 3 1B",
    ("glm", 28, 4096): "ChatGLM3-6B",
    ("qwen3", 28, 1024): "Qwen3 0.6B",
    ("qwen3", 28, 2048): "Qwen3 1.7B",
}
"""By model_type, num_hidden_layers and hidden_size."""
FAMILIES = {
    "gemma3_text": "Gemma 3",
    "gemma3": "Gemma 3",
    "gemma2": "Gemma 2",
    "gemma": "Gemma",
    "glm": "GLM",
    "llama": "Llama",
    "mistral": "Mistral",
    "phi3": "Phi-3",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
}
"""By model_type, for a shape that is not known."""


def model_name(config: dict[str, Any], parameters: int | None = None) -> str:
    """The name, or for a shape that is not known the family and the number of parameters."""
    kind = config["model_type"]
    known = KNOWN.get((kind, config.get("num_hidden_layers", 0), config.get("hidden_size", 0)))
    if known:
        return known
    family = FAMILIES.get(kind, kind.removesuffix("_text").replace("_", " ").capitalize())
    return f"{family} ({size(parameters)})" if parameters else family


def size(parameters: int) -> str:
    """A number of parameters as it is spoken of: 268M, 6.2B."""
    for unit, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if parameters >= unit:
            return f"{parameters / unit:.3g}{letter}"
    return str(parameters)
