"""CPU settings: no JIT-compiled DeepSpeed ops, bounded oneDNN caches, glibc malloc thresholds."""

import ctypes
import os
from collections.abc import Callable
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
"""glibc's malloc.h."""
LARGE = 32 * 1024 * 1024
"""The most that glibc takes (HEAP_MAX_SIZE / 2)."""
FEW = 32
"""Rows that packed weights are laid out for; more and fewer give the same, only slower."""


def disable_shm_op() -> None:
    """Keep DeepSpeed from compiling its shared-memory collectives: gloo serves, and no compiler may be there.

    `is_compatible` of that op asks only for Linux, so init_distributed would fail without c++ (deepspeed 0.19.8).
    """
    from deepspeed import ops

    assert "deepspeed_shm_comm" in ops.__compatible_ops__, "DeepSpeed has renamed deepspeed_shm_comm"
    ops.__compatible_ops__["deepspeed_shm_comm"] = False


def limit_onednn_caches() -> None:
    """Bound oneDNN's cache of kernels, and that of ideep, through which PyTorch calls it: each keeps 1,024.

    One shape of a batch needs about 60, which is 100 MB, and to make one again takes a millisecond; ideep's cache grew by
    24 MB in each step, and a small one costs no time (measured: benchmarks/LOG.md).
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    os.environ.setdefault("LRU_CACHE_CAPACITY", "8")


def release_large_blocks() -> None:
    """Let malloc return blocks of 32 MB and more at once and keep up to 64 MB at the heap's end, where the C library is glibc.

    A micro-batch of 1,308 tokens has thousands of tensors of 2 to 10 MB: each in fresh pages they cost a quarter of the time
    (measured: benchmarks/LOG.md). glibc's own ways differ in the second: it returns the heap's end from 128 KB on.
    """
    _mallopt(M_MMAP_THRESHOLD, LARGE)
    _mallopt(M_TRIM_THRESHOLD, 2 * LARGE)


def retain_freed_blocks() -> None:
    """Let malloc keep what is freed, where the C library is glibc: for work that asks for the same large blocks again.

    Else each token of a batch gets its logits in fresh pages: a fifth of the time of generation, and a third of
    export's comparison (measured: benchmarks/LOG.md).
    """
    _mallopt(M_MMAP_MAX, 0)
    # An int in C: 2 GB is the largest value.
    _mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def copy_head_states(head: Any) -> Any:
    """Hand an LM head a copy of the states it gets, until the hook that is returned is removed.

    transformers hands it a view of the last position, [B, 1, H]. For bfloat16 on a CPU, torch 2.13 multiplies such a view as B
    matrices, with a copy of the head's weight for each: 8.4 GB and 30 s for the default base and 25 prompts, 1.6 s for one
    (measured: benchmarks/LOG.md).
    """
    import torch

    # Not `contiguous()`: that takes the view of a single row as it is.
    return head.register_forward_pre_hook(lambda _, states: (states[0].clone(memory_format=torch.contiguous_format),))


def packed_product(linear: Any) -> Callable[[Any], Any] | None:
    """The forward pass of a linear layer with its weight in oneDNN's own layout, a copy: for few rows, many times.

    Else oneDNN brings the weight into that layout for each product: half the time of the head's (measured:
    benchmarks/LOG.md). The results are the same bit for bit. None where that is not so: another device or dtype than bfloat16
    on a CPU, a bias, a layer that is more than linear.
    """
    import torch

    plain = type(linear) is torch.nn.Linear and linear.bias is None and "forward" not in vars(linear)
    if not (plain and linear.weight.device.type == "cpu" and linear.weight.dtype == torch.bfloat16):
        return None
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return None
    packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), FEW)
    return lambda states: torch.ops.mkldnn._linear_pointwise(states, packed, None, "none", [], "")


def switched_product(linear: Any) -> tuple[Callable[[], None], Callable[[], None]]:
    """(put `packed_product` in place, take it away again) of a linear layer; where there is none, nothing happens."""
    packed = packed_product(linear)

    def put() -> None:
        if packed is not None:
            linear.forward = packed

    def take_away() -> None:
        if packed is not None:
            vars(linear).pop("forward", None)

    return put, take_away


def _mallopt(name: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(name, value)
