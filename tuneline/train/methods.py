"""Fine-tuning methods: which parameters of a base train, what is saved of them, and how they are loaded again.

PEFT has all but `freeze` and `full`, whose changed tensors are kept in a file of their own.
"""

from fnmatch import fnmatchcase
from math import prod
from pathlib import Path
from typing import Any

from tuneline.models.adapters.attach import ZERO_AT_START
from tuneline.models.adapters.peft_config import normalise_config
from tuneline.models.chatglm.layout import trainable_parameters
from tuneline.models.chatglm.names import chatglm_name
from tuneline.models.loading import TRAINED_WEIGHTS
from tuneline.train.config.ptuning import PTuning
from tuneline.train.lora import lora_config
from tuneline.train.sections import Method

PROMPT_LEARNING = ("p_tuning", "prefix", "prompt")
"""What can't be merged: it is no weight of the base."""


def prepare(model: Any, method: Method) -> Any:
    """The model with exactly the method's parameters trainable, in float32.

    Raises ValueError for a target, module or pattern that names nothing, or an embedding that is tied.
    """
    from peft import get_peft_model

    name = method.tune.method
    if name in ("freeze", "full"):
        tuned = model
        for parameter in chosen(model, method):
            parameter.requires_grad_(True)
    else:
        config = lora_config(model, method.lora) if name == "lora" else prompt_config(name, method.ptuning)
        tuned = get_peft_model(model, config, autocast_adapter_dtype=True)
        if name == "lora" and method.lora.bias != "none":
            _check_biases(tuned, method.lora.bias)
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return tuned


def _check_biases(tuned: Any, bias: str) -> None:
    """Raises ValueError where there is none to train."""
    if not any(one.requires_grad and name.endswith(".bias") for name, one in tuned.named_parameters()):
        where = "the layers in lora.target_modules have" if bias == "lora_only" else "the base has"
        raise ValueError(f"lora.bias is {bias}, expected none: {where} no bias")


def chosen(model: Any, method: Method) -> list[Any]:
    """The parameters of the base that `freeze` or `full` trains."""
    if method.tune.method == "full":
        return list(model.parameters())
    layers, named = model.base_model.layers, dict(model.named_parameters())
    count = method.freeze.layers
    if count > len(layers):
        raise ValueError(f"freeze.layers is {count}, expected at most the {len(layers)} layers of the base")

    def matches(name: str, pattern: str) -> bool:
        glm = model.config.model_type == "glm"
        return fnmatchcase(name, pattern) or (glm and fnmatchcase(chatglm_name(name), pattern))

    unmatched = [pattern for pattern in method.freeze.patterns if not any(matches(name, pattern) for name in named)]
    if unmatched:
        raise ValueError(f"freeze.patterns holds {unmatched}, expected names like {list(named)[-3:]}")
    matched = [one for name, one in named.items() if any(matches(name, pattern) for pattern in method.freeze.patterns)]
    last = [parameter for layer in list(layers)[len(layers) - count :] for parameter in layer.parameters()]
    return [*last, *(parameter for parameter in matched if all(parameter is not other for other in last))]


def prompt_config(name: str, params: PTuning) -> Any:
    """PEFT's configuration of virtual tokens."""
    from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig

    common: dict[str, Any] = {"task_type": "CAUSAL_LM", "num_virtual_tokens": params.num_virtual_tokens}
    if name == "p_tuning":
        return PromptEncoderConfig(**common, encoder_hidden_size=params.encoder_hidden_size)
    if name == "prefix":
        hidden = {"encoder_hidden_size": params.encoder_hidden_size} if params.projection else {}
        return PrefixTuningConfig(**common, prefix_projection=params.projection, **hidden)
    return PromptTuningConfig(**common)


def save(model: Any, method: Method, folder: Path, initial: Path | None = None) -> None:
    """Write what was trained, the same bytes for the same weights; `initial` is PiSSA's adapter before training.

    Raises ValueError when a tensor is empty (ZeRO-3 can do that, peft#2500) or nothing was trained.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    if method.tune.method in ("freeze", "full"):
        tensors = {
            name: tensor.detach().cpu().contiguous()
            for name, tensor in model.named_parameters()
            if tensor.requires_grad
        }
        save_file(tensors, folder / TRAINED_WEIGHTS, metadata={"format": "pt"})
    else:
        options = {"path_initial_model_for_weight_conversion": str(initial)} if initial else {}
        # Adapted embeddings are saved as their update: PEFT would add the base's own, which it has.
        model.save_pretrained(str(folder), save_embedding_layers=False, **options)
        # PEFT's model card is an empty form.
        (folder / "README.md").unlink(missing_ok=True)
        normalise_config(folder)
    (path,) = folder.glob("*.safetensors")
    with safe_open(str(path), framework="pt") as file:
        names = list(file.keys())
        trained = [name for name in names if any(part in name for part in ZERO_AT_START)] or names
        empty = [name for name in names if 0 in file.get_slice(name).get_shape()]
        if empty or not any(bool(file.get_tensor(name).any()) for name in trained):
            raise ValueError(
                f"the trained adapter is empty ({empty or f'{trained[0]} and all like it are zero'}): nothing was trained"
            )


def counts(model: Any) -> dict[str, Any]:
    """Parameters of a prepared model, shards of ZeRO-3 counted whole; ChatGLM's also as its own layout counts them."""
    shapes = {name: tuple(getattr(one, "ds_shape", one.shape)) for name, one in model.named_parameters()}
    trained = {name: shapes[name] for name, one in model.named_parameters() if one.requires_grad}
    trainable, total = (sum(map(prod, of.values())) for of in (trained, shapes))
    result: dict[str, Any] = {"trainable_parameters": trainable, "total_parameters": total}
    if model.config.model_type == "glm" and any("lora_A" in name for name in trained):
        result["trainable_parameters_as_chatglm"] = trainable_parameters(trained)
    return result | {"trainable_share": round(trainable / total, 6)}
