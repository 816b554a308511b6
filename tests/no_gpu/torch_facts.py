"""What torch's CUDA build says of itself, and which attention kernel it chooses for our calls on cards of each capability.

python -m tests.no_gpu.torch_facts '"<folder of a base>"'

It writes facts.json: {"build": …, "cards": {capability: {"bfloat16", "attention"}}}.
"""

import json
import os
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from tests.no_gpu.host_kernels import whole_lines
from tuneline.models.loading import has_bfloat16, load_model
from tuneline.models.packed_attention import packed_attention

CAPABILITIES = ("7.5", "8.0", "8.9", "9.0", "10.0")
SHAPES = {"ChatGLM3": (32, 2, 128), "Qwen2.5": (14, 2, 64), "Gemma 3": (4, 1, 256)}
"""Heads, groups of keys and values, numbers a head."""
WINDOW = 512


class Choice(TorchDispatchMode):
    """Notes which kernels attend."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "torch_attn":
            with self:
                return whole_lines(func, args, kwargs or {})
        name = func._schema.name
        found = [kind for kind in ("cudnn", "flash", "efficient") if "attention" in name and kind in name]
        self.kernels |= set(found) or ({"math"} if "softmax" in name else set())
        return func(*args, **kwargs or {})


def tensors(
    shape: tuple[int, int, int], rows: int, length: int, seen: int, dtype: torch.dtype, *, trains: bool
) -> list[torch.Tensor]:
    """Query, key and value as a model hands them on: [rows, heads, length, d], the others of `seen` positions."""
    heads, groups, size = shape
    sizes = ((heads, length), (groups, seen), (groups, seen))
    return [
        torch.zeros(rows, places, count, size, dtype=dtype, device="cuda").transpose(1, 2).requires_grad_(trains)
        for count, places in sizes
    ]


def training(shape: tuple[int, int, int], dtype: torch.dtype, window: int | None = None) -> None:
    """Rows of which one is longer than a window."""
    given = tensors(shape, 1, 1024, 1024, dtype, trains=True)
    out, _ = packed_attention(torch.nn.Identity(), *given, None, lengths=(768, 256), sliding_window=window)
    out.sum().backward()


def transformers(
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    rows: int,
    length: int,
    seen: int,
    *,
    masked: bool,
    trains: bool = False,
) -> None:
    """transformers' attention, of generation and of padded rows."""
    mask = torch.ones(rows, 1, length, seen, dtype=torch.bool, device="cuda") if masked else None
    module = SimpleNamespace(num_key_value_groups=shape[0] // shape[1], is_causal=True, training=trains, layer_idx=0)
    given = tensors(shape, rows, length, seen, dtype, trains=trains)
    with torch.set_grad_enabled(trains):
        out, _ = sdpa_attention_forward(module, *given, mask, scaling=shape[2] ** -0.5)
        if trains:
            out.sum().backward()


CALLS: dict[str, Callable[..., None]] = {
    "training, packed": training,
    "training, packed, longer than a window": lambda *given: training(*given, window=WINDOW),
    "training, padded": lambda *given: transformers(*given, 2, 300, 300, masked=False, trains=True),
    "training, after a prefix": lambda *given: transformers(*given, 2, 300, 316, masked=True, trains=True),
    "prompts, padded": lambda *given: transformers(*given, 4, 300, 300, masked=True),
    "a prompt": lambda *given: transformers(*given, 1, 300, 300, masked=False),
    "a token, padded": lambda *given: transformers(*given, 4, 1, 301, masked=True),
    "a token": lambda *given: transformers(*given, 1, 1, 301, masked=False),
}


def chosen() -> dict[str, Any]:
    """Of this process's card."""
    device = torch.device("cuda", 0)
    native = has_bfloat16(device)
    dtype = torch.bfloat16 if native else torch.float16
    found: dict[str, dict[str, str]] = {}
    for call, attend in CALLS.items():
        for name, shape in SHAPES.items():
            with Choice() as choice:
                attend(shape, dtype)
            found.setdefault(call, {})[name] = " and ".join(sorted(choice.kernels))
    return {"bfloat16": native, "attention": found}


def on_card(capability: str, path: Path) -> None:
    """In a process of its own, since a card's properties are read once."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.environ["NO_GPU_CAPABILITY"] = capability
            path.write_text(json.dumps(chosen()))
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0, capability


def build() -> dict[str, Any]:
    numbers = {
        name: version(package) for name, package in (("cudnn", "nvidia-cudnn-cu13"), ("nccl", "nvidia-nccl-cu13"))
    }
    own = {"torch": torch.__version__.partition("+")[0], "cuda": torch.version.cuda}
    return own | numbers | {"architectures": torch._C._cuda_getArchFlags().split()}


def main() -> None:
    warnings.filterwarnings("ignore")
    # Which kernels may be chosen is set where models are loaded.
    load_model(Path(json.loads(sys.argv[1])), torch.float32)
    for capability in CAPABILITIES:
        on_card(capability, Path(f"{capability}.json"))
    cards = {capability: json.loads(Path(f"{capability}.json").read_text()) for capability in CAPABILITIES}
    Path("facts.json").write_text(json.dumps({"build": build(), "cards": cards}))


if __name__ == "__main__":
    main()
