"""Loading of models and tokenizers, here alone: safetensors, native classes, no remote code, no network.

torch and transformers are imported inside, so that `--help` of a stage stays instant.
"""

import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tuneline.formats.closed_folder import check_closed
from tuneline.models.gpu.float16 import BFLOAT16, auto_dtype, float16_fault, oldest_gpu
from tuneline.runtime.errors import is_out_of_memory, sentence
from tuneline.runtime.gpu import usable_gpus
from tuneline.runtime.progress import restyle_library_bars
from tuneline.runtime.terminal.lines import warn

if TYPE_CHECKING:
    import torch

TRAINED_WEIGHTS = "changed.safetensors"
"""In an adapter's folder: tensors of the base that were trained themselves, by name."""
BASE = Path("models/base")
ADAPTER = Path("models/adapter")
MERGED = Path("models/merged")
UNMERGED_ADAPTER_DIR = "adapter"
"""In the merged folder: an adapter that can't be merged."""

Dtype = Literal["auto", "bfloat16", "float16", "float32"]


def load_tokenizer(folder: Path) -> Any:
    """The folder's fast tokenizer, padding on the left as generation needs."""
    from transformers import TokenizersBackend

    _need(folder / "tokenizer.json", folder)
    # As the file has it. A class of the model's own would take the tokenizer apart and build it anew; and the list of added
    # tokens, which the file has, too, would be sought by parsing all of it in Python: two seconds for the default base.
    options: dict[str, Any] = {"added_tokens_decoder": {}, "local_files_only": True, "padding_side": "left"}
    return TokenizersBackend.from_pretrained(folder, trust_remote_code=False, **options)


def load_model(
    folder: Path,
    dtype: "torch.dtype",
    device: "torch.device | None" = None,
    quantize: str | None = None,
    limits: "Mapping[int, int] | None" = None,
) -> Any:
    """The folder's causal language model in `dtype`, in eval mode, frozen, its key-value cache left on.

    It is read straight to `device`, or its layers are dealt to several GPUs: `limits` are bytes by GPU. Under ZeRO-3 DeepSpeed
    shards it as it is read. `quantize` (nf4 or int8) stores linear layers so, by bitsandbytes. Raises ValueError when the
    folder is not closed, or its files hold other tensors than its config.json asks for: under ZeRO-3 where some are missing
    alone, since transformers reports no others there; `base` has compared them all.
    """
    import torch

    from tuneline.formats.safetensors_reader import entries
    from tuneline.models.gpu.attention import repeat_where_no_kernel_takes_groups

    restyle_library_bars()
    # Hopper and Blackwell would take it for every call: wrong answers with few key heads (pytorch#193893), not a number in
    # its backward pass with a mask (pytorch#196678), and a plan to be made for each new length.
    torch.backends.cuda.enable_cudnn_sdp(False)
    # Parts of a float16 product would be summed in float16, which ends at 65,504.
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    repeat_where_no_kernel_takes_groups()
    _need(folder / "config.json", folder)
    if not entries(folder):
        raise ValueError(f"{folder} holds no weights: expected *.safetensors there; run `dvc repro base`")
    placed = _quantization(quantize, dtype) | _destination(device, limits)
    model = load_whole(folder, config=model_config(folder), dtype=dtype, use_safetensors=True, **placed)
    return model.requires_grad_(False).eval()


def load_whole(folder: Path, **options: Any) -> Any:
    """The causal language model of a folder; raises ValueError unless it is closed, and its tensors are the model's."""
    from transformers import AutoModelForCausalLM

    from tuneline.models.conversion.whole import check_report, refuse_adapter

    check_closed(folder)
    refuse_adapter(folder)
    # What is of another shape is in the report then, and not an error of many lines.
    options |= {"local_files_only": True, "ignore_mismatched_sizes": True, "output_loading_info": True}
    try:
        model, report = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False, **options)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(f"{folder} does not load: {sentence(error)}") from error
    check_report(model, report)
    return model


def _destination(device: "torch.device | None", limits: "Mapping[int, int] | None") -> dict[str, Any]:
    """Where from_pretrained reads weights to: main memory, unless said."""
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

    if limits is not None:
        return {"device_map": "auto", "max_memory": dict(limits)}
    if device is None or device.type == "cpu" or is_deepspeed_zero3_enabled():
        return {}
    return {"device_map": {"": device}}


def _quantization(quantize: str | None, dtype: "torch.dtype") -> dict[str, Any]:
    import importlib.util

    if quantize is None:
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(
            f"lora.quantize is {quantize!r}, which needs bitsandbytes: uv pip install bitsandbytes, or set null"
        )
    from transformers import BitsAndBytesConfig

    if quantize == "int8":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    settings = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": dtype}
    return {"quantization_config": BitsAndBytesConfig(load_in_4bit=True, **settings)}


def load_adapter(model: Any, folder: Path, name: str = "default") -> Any:
    """The model with what was trained on top, unmerged, in eval mode; or, for `freeze` and `full`, in place.

    `name` is PEFT's for the adapter, where several go onto one model.
    Raises ValueError when the adapter is missing, does not fit, or would change nothing.
    """
    if (folder / TRAINED_WEIGHTS).is_file():
        from tuneline.models.adapters.changed import with_changed

        return with_changed(model, folder / TRAINED_WEIGHTS)
    from tuneline.models.adapters.attach import attach
    from tuneline.models.adapters.source import read_adapter

    return attach(model, read_adapter(folder, model.config.to_dict()), name)


def load_narrow_adapter(model: Any, folder: Path, dtype: "torch.dtype") -> Any:
    """load_adapter, and what is added is in `dtype`, too: PEFT makes it float32, and then computes in float32 with it."""
    own = {id(parameter) for parameter in model.parameters()}
    tuned = load_adapter(model, folder)
    for parameter in tuned.parameters():
        if id(parameter) not in own:
            parameter.data = parameter.data.to(dtype)
    return tuned


def load_merged(folder: Path, dtype: "torch.dtype", device: "torch.device | None" = None) -> Any:
    """What export wrote: a plain model or, where the method can't be merged, the base with its adapter beside it."""
    model = load_model(folder, dtype, device)
    beside = folder / UNMERGED_ADAPTER_DIR
    return load_adapter(model, beside) if beside.is_dir() else model


def model_config(folder: Path) -> Any:
    """The transformers config of a model's folder."""
    from tuneline.models.untrusted.native_config import native_config

    return native_config(folder)


def empty_model(folder: Path) -> Any:
    """The folder's network without weights: shapes and names, in no memory."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(model_config(folder), trust_remote_code=False)
    return model.requires_grad_(False)


def can_merge(model: Any) -> bool:
    """Whether what was trained is a change of weights, and not virtual tokens."""
    return not (hasattr(model, "active_peft_config") and model.active_peft_config.is_prompt_learning)


def pick_device() -> "torch.device":
    """The GPU of this process when there is one, else the CPU. Raises ValueError for a GPU that torch cannot use."""
    import torch

    if usable_gpus():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def pick_dtype(
    name: Dtype, device: "torch.device", key: str = "dtype", base: Path | Mapping[str, Any] | None = None
) -> "torch.dtype":
    """The dtype of computation: `auto` is bfloat16 where the hardware computes in it, float16 on older GPUs, else float32.

    base: the folder of what is computed, or its config; where float16 is too small for it, `auto` is float32. Raises ValueError
    for float16 then, and on a CPU, where it was measured 160 times slower than float32; both name the parameter `key`.
    """
    import torch

    if isinstance(base, Path):
        _need(base / "config.json", base)
    config = json.loads((base / "config.json").read_text(encoding="utf-8")) if isinstance(base, Path) else base
    fault = None if config is None else float16_fault(config)
    if name == "float16" and device.type == "cpu":
        raise ValueError(
            f"{key} is float16 and the device is a CPU, expected auto, bfloat16 or float32 (160 times faster)"
        )
    if name == "float16" and fault:
        raise ValueError(f"{key} is float16, expected auto, bfloat16 or float32 for this base: {fault}")
    if name == "auto":
        gpu = oldest_gpu() if device.type == "cuda" else None
        name = auto_dtype(gpu, fault, bfloat16=has_bfloat16(device))
        if gpu and fault and name == "float32":
            _say(f"{key} auto is float32 on this GPU, which has no bfloat16: {fault}")
    chosen = getattr(torch, name)
    assert isinstance(chosen, torch.dtype)
    return chosen


@cache
def _say(sentence: str) -> None:
    """Once, and by one process of several."""
    if os.environ.get("RANK", "0") == "0":
        warn(sentence)


def device_name(device: "torch.device") -> str:
    """The GPU's name, or which instructions the CPU build uses: what decides rounding."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.backends.cpu.get_cpu_capability()}"


def has_bfloat16(device: "torch.device") -> bool:
    """Whether bfloat16 is native: emulated, it is slower than float32 (8 times on an AVX2 CPU)."""
    import torch

    if device.type == "cuda":
        return oldest_gpu() >= BFLOAT16
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    native = "avx512_bf16" in flags or "amx_bf16" in flags or " bf16" in flags
    return native and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _need(path: Path, folder: Path) -> None:
    if not path.is_file():
        raise ValueError(f"{folder} has no {path.name}: run `dvc repro`, which writes the folder")
