"""Write safetensors files a tensor at a time, so that a model larger than memory can be written.

Layout: the size of a JSON header as uint64, the header, the tensors one after the other
(https://github.com/huggingface/safetensors, "Format").
"""

import json
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tuneline.runtime.progress import ProgressBar
from tuneline.runtime.storage.room import require_room

if TYPE_CHECKING:
    import torch

NAMES = {
    "float32": ("F32", 4), "float16": ("F16", 2), "bfloat16": ("BF16", 2), "float64": ("F64", 8), "int64": ("I64", 8),
    "int32": ("I32", 4), "int16": ("I16", 2), "int8": ("I8", 1), "uint8": ("U8", 1), "bool": ("BOOL", 1),
    "float8_e4m3fn": ("F8_E4M3", 1),
}  # fmt: skip
"""A dtype in the format's words, and its bytes."""
LARGEST = 4_000_000_000
"""Bytes of a file, unless one tensor alone is larger."""


class Tensor(NamedTuple):
    name: str
    shape: tuple[int, ...]
    read: "Callable[[], torch.Tensor]"
    dtype: str | None = None
    """Where it is not that of all tensors."""


def header(entries: Sequence[tuple[str, str, tuple[int, ...], int]], metadata: dict[str, str] | None = None) -> bytes:
    """The beginning of a file of (name, dtype in the format's words, shape, bytes), in this order."""
    described: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    begin = 0
    for name, dtype, shape, size in entries:
        described[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, begin + size]}
        begin += size
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write_shards(
    folder: Path, tensors: Sequence[Tensor], dtype: str, what: str = "base: weights", largest: int | None = None
) -> None:
    """Write the tensors, which are of `dtype` or say another, as model.safetensors, or as several files with an index.

    `what` stands before the progress bar; `largest` is LARGEST where it is None.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = [tensor if tensor.dtype else tensor._replace(dtype=dtype) for tensor in tensors]
    require_room(folder, sum(map(_size, tensors)))
    # The widest first, so that each begins at a multiple of its width.
    tensors.sort(key=lambda tensor: -NAMES[str(tensor.dtype)][1])
    shards = _shards(tensors, LARGEST if largest is None else largest)
    names = [
        "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        for number in range(1, len(shards) + 1)
    ]
    with ProgressBar(what, len(tensors), "tensors") as bar:
        for name, shard in zip(names, shards, strict=True):
            entries = [(tensor.name, NAMES[str(tensor.dtype)][0], tensor.shape, _size(tensor)) for tensor in shard]
            with (folder / name).open("wb") as file:
                file.write(header(entries, {"format": "pt"}))
                for tensor in shard:
                    file.write(_bytes(tensor))
                    bar.update()
    if len(shards) > 1:
        total = sum(map(_size, tensors))
        weight_map = {tensor.name: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        path = folder / "model.safetensors.index.json"
        path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _size(tensor: Tensor) -> int:
    return NAMES[str(tensor.dtype)][1] * prod(tensor.shape)


def _shards(tensors: Sequence[Tensor], largest: int) -> list[list[Tensor]]:
    shards: list[list[Tensor]] = [[]]
    size = 0
    for tensor in tensors:
        bytes_ = _size(tensor)
        if shards[-1] and size + bytes_ > largest:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += bytes_
    return shards


def _bytes(tensor: Tensor) -> memoryview:
    import torch

    value = tensor.read().contiguous()
    assert tuple(value.shape) == tensor.shape, f"{tensor.name} has shape {tuple(value.shape)}, not {tensor.shape}"
    return value.reshape(-1).view(torch.uint8).numpy().data
