"""Tokens a second that a GPU can reach at most, from what a training step does: launches, bytes moved and products.

    python -m benchmarks.gpu.roofline [--layers 28] [--only "1 x 1024"] [--kernels] [--out FILE]

ChatGLM3-6B's shape (as Glm), LoRA r 16 on all linear layers, bfloat16: forward and backward of one micro-batch by the trainer's
own model on tensors without data (torch's FakeTensorMode). A kernel takes max(bytes / bandwidth, operations / rate of products,
3 us); a step takes what is longer, all kernels or issuing them at 10 us each. So these are estimates.

Needs torch's CUDA build and a GPU, of which nothing is asked but its name; or in its place a driver that has devices and
computes nothing, loaded before torch (LD_PRELOAD).
"""

import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu.steps import build_config, lora_method
from benchmarks.harness import argument_parser, machine_line, show, table


class Card(NamedTuple):
    """What a card reaches of its data sheet's peaks."""

    products: float
    """FLOP/s in bfloat16."""
    float32: float
    """FLOP/s of products in float32."""
    bandwidth: float
    """Bytes/s."""


CARDS = {
    "H100": Card(989e12 * 0.70, 67e12 * 0.7, 3.35e12 * 0.85),
    "A100": Card(312e12 * 0.78, 19.5e12 * 0.8, 2.04e12 * 0.85),
    "4090": Card(165e12 * 0.85, 82e12 * 0.6, 1.01e12 * 0.85),
}
SHORTEST = 3e-6
"""Seconds of a kernel that does next to nothing."""
ISSUED = 10e-6
"""Seconds from one launch to the next of Python, torch and the driver: 60 ms were measured for 5,400 launches on an idle EPYC
core with a driver that does nothing, of which a GPU machine's core takes 0.7; and 2.2 us a launch are the real driver's."""
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")
VIEWS = (
    "prim", "view", "transpose", "permute", "slice.", "expand", "unsqueeze", "squeeze", "select.", "detach", "alias", "split",
    "t.", "as_strided", "_unsafe_view", "empty", "new_empty", "chunk", "sym_", "unbind", "_reshape_alias", "lift",
)  # fmt: skip


class Setting(NamedTuple):
    name: str
    lengths: tuple[int, ...]
    dropout: float = 0.0
    checkpointing: bool = False


SETTINGS = [
    Setting("1 x 330, dropout 0.1, checkpointing (a row of chatglm3-legal-lora)", (330,), 0.1, True),
    Setting("1 x 330", (330,)),
    Setting("4 x 330 in one line", (330,) * 4),
    Setting("4 x 330 in one line, dropout 0.1 (chatglm3-legal-lora, by micro_tokens: auto)", (330,) * 4, 0.1),
    Setting("8 x 256 in one line", (256,) * 8),
    Setting("1 x 1024, dropout 0.1, checkpointing", (1024,), 0.1, True),
    Setting("1 x 1024, dropout 0.1", (1024,), 0.1),
    Setting("1 x 1024", (1024,)),
    Setting("8 x 1024 in one line", (1024,) * 8),
]


class Kernel(NamedTuple):
    name: str
    size: int
    """Bytes read and written."""
    operations: float
    dtype: str


def main() -> None:
    import torch

    parser = argument_parser(__doc__)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--only", default="", help="settings with this in their name")
    parser.add_argument("--kernels", action="store_true", help="also how often each operation is launched")
    parser.add_argument("--out", type=Path, help="Markdown goes there, too")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit(
            f"benchmarks.gpu.roofline: torch {torch.__version__} has no GPU, nor a driver in its place: see --help"
        )
    settings = [setting for setting in SETTINGS if options.only in setting.name]
    cells = (columns(setting, options) for setting in settings)
    titles = ("micro-batch", "launches", "GB moved", "TFLOP", "float32", *CARDS)
    note = "Estimates. Cards: tokens/s; what limits it and, where that is issuing, what the kernels alone would give."
    text = show(chain([f"{machine_line('transformers', 'peft')}\n\n{note}\n"], table(titles, cells)))
    if options.out:
        options.out.write_text(f"{text}\n", encoding="utf-8")


def columns(setting: Setting, options: Namespace) -> list[str]:
    kernels = measure(setting, options.layers)
    if options.kernels:
        counted = Counter(kernel.name for kernel in kernels)
        print(*(f"{count:6} {name}" for name, count in counted.most_common()), sep="\n", file=sys.stderr)
    products = sum(kernel.operations for kernel in kernels)
    wide = sum(kernel.operations for kernel in kernels if kernel.dtype == "float32")
    size = sum(kernel.size for kernel in kernels)
    rates = [rate(kernels, sum(setting.lengths), card) for card in CARDS.values()]
    return [
        setting.name,
        f"{len(kernels):,}",
        f"{size / 1e9:.0f}",
        f"{products / 1e12:.2f}",
        f"{wide / products:.1%}",
        *rates,
    ]


def rate(kernels: list[Kernel], tokens: int, card: Card) -> str:
    """Tokens/s of a card, and by what it is limited."""
    computed = sum(seconds(kernel, card) for kernel in kernels)
    issued = len(kernels) * ISSUED
    if issued > computed:
        return f"{tokens / issued:,.0f} (issuing; {tokens / computed:,.0f})"
    return f"{tokens / computed:,.0f}"


def seconds(kernel: Kernel, card: Card) -> float:
    products = card.float32 if kernel.dtype == "float32" else card.products
    return max(kernel.size / card.bandwidth, kernel.operations / products, SHORTEST)


def measure(setting: Setting, layers: int) -> list[Kernel]:
    """The kernels of forward and backward of one micro-batch."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    model, collate = prepared(setting, layers)
    with FakeTensorMode(allow_non_fake_inputs=True):
        batch = on_device(model, collate, setting.lengths)
        counting = _counting(setting.lengths)
        with counting:
            model(**batch)["loss"].backward()
    kernels: list[Kernel] = counting.kernels
    return kernels


def prepared(setting: Setting, layers: int) -> tuple[Any, Any]:
    """(the model as it trains, without storage, its collate function)."""
    import torch
    from transformers import AutoModelForCausalLM

    from tuneline.train.collate import collator
    from tuneline.train.run import prepare_model
    from tuneline.train.trainer.autocast import autocast_forward

    torch.backends.cuda.enable_cudnn_sdp(False)
    config, method = build_config("6B", smoke=False), lora_method()
    config.num_hidden_layers = layers
    method = method._replace(lora=method.lora.model_copy(update={"dropout": setting.dropout}))
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).requires_grad_(False)
        collate = collator(base, packed=True)
        model = prepare_model(base, method, setting.checkpointing).train()
    autocast_forward(model, torch.device("cuda"), torch.bfloat16)
    return model, collate


def on_device(model: Any, collate: Any, lengths: tuple[int, ...]) -> dict[str, Any]:
    """A micro-batch on the GPU, half of it supervised; the model gets its storage there, too."""
    import torch

    from tuneline.train.loss_forward import install_loss_forward

    device, supervised = torch.device("cuda"), sum(lengths) // 2
    give_storage(model, device)
    # Which positions are supervised is data, and there is none.
    install_loss_forward(
        model.get_base_model(),
        lambda hidden, labels: (hidden.reshape(-1, hidden.shape[-1])[:supervised], labels.reshape(-1)[:supervised]),
    )
    rows = [torch.zeros(length, dtype=torch.long) for length in lengths]
    batch = collate([(row, row, 1) for row in rows])
    del batch["step_tokens"]
    return {name: one.to(device) if isinstance(one, torch.Tensor) else one for name, one in batch.items()}


def give_storage(model: Any, device: Any) -> None:
    """Put tensors of the device in the place of those on meta; what is in them does not matter."""
    import torch

    for module in model.modules():
        for name, one in module._parameters.items():
            if one is not None:
                made = torch.empty_like(one, device=device)
                module._parameters[name] = torch.nn.Parameter(made, requires_grad=one.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty_like(buffer, device=device)


def _counting(lengths: tuple[int, ...]) -> Any:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    def on_gpu(tree: Any) -> Iterator[torch.Tensor]:
        return (one for one in tree_leaves(tree) if isinstance(one, torch.Tensor) and one.device.type == "cuda")

    class Counting(TorchDispatchMode):
        """Notes each operation that launches a kernel."""

        def __init__(self) -> None:
            super().__init__()
            self.kernels: list[Kernel] = []

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            name = str(func).removeprefix("aten.")
            given, made = list(on_gpu((args, kwargs))), list(on_gpu(result))
            if name.startswith(VIEWS) or not (given or made):
                return result
            size = sum(one.numel() * one.element_size() for one in [*given, *made])
            self.kernels.append(Kernel(name, size, *operations(name, list(on_gpu(args)), lengths)))
            return result

    return Counting()


def operations(name: str, given: list[Any], lengths: tuple[int, ...]) -> tuple[float, str]:
    """(floating-point operations, dtype) of a product or of causal attention; others have none worth counting."""
    if name.partition(".")[0].rstrip("_") in PRODUCTS:
        left, right = [one for one in given if one.dim() >= 2][-2:]
        return 2.0 * left.numel() * right.shape[-1], str(right.dtype).removeprefix("torch.")
    if "attention" in name or "varlen_attn" in name:
        backward = "backward" in name
        query = given[1 if backward else 0]
        heads, rows = (query.shape[1], lengths) if query.dim() == 3 else (query.shape[1], (query.shape[2],))
        squares = sum(length**2 for length in rows) / 2
        factor = 2.5 if backward else 1
        return 4.0 * heads * query.shape[-1] * squares * factor, str(query.dtype).removeprefix("torch.")
    return 0.0, ""


if __name__ == "__main__":
    main()
