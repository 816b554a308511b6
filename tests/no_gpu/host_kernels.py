"""The host's kernels in the place of a card's: what a CUDA operator would have computed is written into its result's memory.

Each operator first runs as it does on a card: torch's CUDA code checks devices and dtypes, allocates, chooses kernels and
launches them, which the driver counts. The driver's device memory is the host's, so then torch's CPU kernel of the same
operator computes the values there.
"""

import ctypes
from functools import cache, partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from tests.no_gpu.host_attention import attend, gradients

NATIVE_ONLY = {
    "aten::set_",
    "aten::resize_",
    "aten::record_stream",
    "aten::_resize_output_",
    "aten::empty",
    "aten::is_pinned",
}
"""Of memory, not of values."""
SIZED_BY_VALUES = {
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::unique_consecutive",
    "aten::bincount",
}
"""A card is asked how large the result is, which the host waits for; here the host knows."""
DECOMPOSED = {"aten::linalg_qr", "aten::_linalg_svd", "aten::_linalg_eigh", "aten::linalg_cholesky_ex"}
"""cuSOLVER's, which has no handle here."""
INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
"""The same where a mask chooses."""
ATTENTION = ("aten::_scaled_dot_product_", "aten::_flash_attention_")


def wide_addmm(own: Any, left: Any, right: Any, out_dtype: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """A product of bfloat16 matrices with a float32 result."""
    result = alpha * (left.to(out_dtype) @ right.to(out_dtype))
    return result + beta * own.to(out_dtype) if beta else result


def rms_norm_backward(gradient: Any, x: Any, shape: Any, rstd: Any, weight: Any, wanted: Any) -> Any:
    """By the chain rule, in float32."""
    scaled, scales = x.float() * rstd.float(), gradient.float() * (1 if weight is None else weight.float())
    of_x = rstd.float() * (scales - scaled * (scales * scaled).mean(-1, keepdim=True))
    return of_x.to(x.dtype), (gradient.float() * scaled).flatten(0, -2).sum(0) if wanted[1] else None


WITHOUT_CPU_KERNEL = {
    torch.ops.aten.addmm.dtype: wide_addmm,
    torch.ops.aten._fused_rms_norm_backward.default: rms_norm_backward,
}
"""Operators that a CPU has not."""


class HostKernels(TorchDispatchMode):
    """`without` holds the operators that have no CPU kernel, whose values remain what memory held."""

    def __init__(self) -> None:
        super().__init__()
        self.without: set[str] = set()
        self.operators: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        # In inference mode compound operators arrive whole, some of which only sometimes share memory.
        if torch.is_inference_mode_enabled() and is_compound(func):
            with self:
                return func.decompose(*args, **kwargs)
        if func.namespace == "torch_attn":
            with self:
                return whole_lines(func, args, kwargs)
        if name in INDEXED:
            args = (args[0], [places for index in args[1] for places in as_places(index)], *args[2:])
        if name in SIZED_BY_VALUES | DECOMPOSED and args[0].is_cuda:
            return sized_by_values(func, args, kwargs)
        result = func(*args, **kwargs)
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        made = [one for one in tree_leaves(result) if isinstance(one, torch.Tensor)]
        if not any(one.is_cuda for one in (*given, *made)):
            return result
        self.operators.add(name)
        if name in NATIVE_ONLY or is_view(func) or name.startswith("c10d::") or name.startswith("aten::empty"):
            return result
        try:
            return computed(func, args, kwargs, result)
        except NotImplementedError:
            self.without.add(name)
            return result


def whole_lines(func: Any, args: Any, kwargs: Any) -> Any:
    """torch.nn.attention.varlen's operator by what it calls, which is what a mode can see."""
    from torch.nn.attention import varlen

    return getattr(varlen, func._opname)._init_fn(*args, **kwargs)


def as_places(index: Any) -> list[Any]:
    """A mask's places in each of its dimensions; any other index as it is."""
    if not isinstance(index, torch.Tensor) or not index.is_cuda or index.dtype not in (torch.bool, torch.uint8):
        return [index]
    return list(sized_by_values(torch.ops.aten.nonzero, (index,), {}).unbind(1))


def sized_by_values(func: Any, args: Any, kwargs: Any) -> Any:
    """On the host; counted as a kernel, a wait, and a copy to the host."""
    devices = {one.device for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)}
    assert len(devices) == 1, f"{func} of tensors on {devices}"
    (device,) = devices
    for counter in ("launches", "waits", "copies_to_host"):
        ctypes.c_long.in_dll(ctypes.CDLL(None), f"no_gpu_{counter}").value += 1
    return tree_map(partial(on_card, device=device), func(*tree_map(on_host, args), **tree_map(on_host, kwargs)))


def on_card(values: Any, device: torch.device) -> Any:
    """A tensor of the host in memory of the card, without a copy that would be counted."""
    if not isinstance(values, torch.Tensor):
        return values
    made = torch.empty(values.shape, dtype=values.dtype, device=device)
    on_host(made).copy_(values)
    return made


@cache
def is_compound(func: Any) -> bool:
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"))


@cache
def is_view(func: Any) -> bool:
    """Whether a result shares an argument's memory and nothing is written."""
    infos = [one.alias_info for one in (*func._schema.arguments, *func._schema.returns) if one.alias_info]
    return bool(infos) and not any(info.is_write for info in infos)


def computed(func: Any, args: Any, kwargs: Any, result: Any) -> Any:
    """The operator's result with the CPU's values in it; a new tensor where only values tell its size."""
    name = func._schema.name
    args, kwargs = tree_map(on_host, args), tree_map(on_host, kwargs)
    if name.startswith(ATTENTION):
        named = dict(zip([one.name for one in func._schema.arguments], args, strict=False)) | kwargs
        values = gradients(named, len(result)) if name.endswith("backward") else attend(named, result)
    else:
        values = WITHOUT_CPU_KERNEL.get(func, func)(*args, **kwargs)
    if not isinstance(values, torch.Tensor | tuple | list):
        return values if result is not None else result
    pairs = zip(flat(result), flat(values), strict=True)
    filled = [fill(one, value) for one, value in pairs]
    return type(result)(filled) if isinstance(result, tuple | list) else filled[0]


def flat(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple | list) else [value]


def fill(made: Any, value: Any) -> Any:
    if not isinstance(made, torch.Tensor) or value is None:
        return made
    if not made.is_cuda:
        return made.copy_(value) if made.data_ptr() != value.data_ptr() else made
    if made.shape != value.shape:
        return on_card(value, made.device)
    alias = on_host(made)
    if alias.data_ptr() != value.data_ptr():
        alias.copy_(value)
    return made


def on_host(value: Any) -> Any:
    """A CUDA tensor's memory as a CPU tensor; the CPU where CUDA is named; anything else as it is."""
    if isinstance(value, torch.device) and value.type == "cuda":
        return torch.device("cpu")
    if isinstance(value, torch.Generator) and value.device.type == "cuda":
        return None
    if not isinstance(value, torch.Tensor) or not value.is_cuda:
        return value
    storage = value.untyped_storage()
    count = storage.nbytes() // value.itemsize
    if count == 0:
        return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device="cpu")
    memory = (ctypes.c_char * storage.nbytes()).from_address(storage.data_ptr())
    whole = torch.frombuffer(memory, dtype=value.dtype, count=count)
    return whole.as_strided(value.size(), value.stride(), value.storage_offset())
