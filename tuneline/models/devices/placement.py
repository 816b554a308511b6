"""Choice of devices for a model that answers: a process for each GPU, one over all of them, or the CPU, by free memory."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

from tuneline.formats.safetensors_reader import entries
from tuneline.models.devices.streaming import stream_layers
from tuneline.models.loading import (
    Dtype,
    empty_model,
    load_adapter,
    load_model,
    load_narrow_adapter,
    pick_device,
    pick_dtype,
)
from tuneline.runtime.children import in_children
from tuneline.runtime.gpu import usable_gpus

if TYPE_CHECKING:
    import torch

GB = 1e9
WORK = 1.5 * GB
"""Bytes that a GPU has to have beside the weights: CUDA's libraries, keys and values, logits. It may not suffice for long
prompts, and then the error says what to lower."""

LEAST = 0.3
"""Of a model: what a GPU has room for, or the CPU is left to compute alone."""


class Place(NamedTuple):
    """Where one process computes."""

    device: "torch.device"
    limits: dict[int, int] | None = None
    """Bytes by GPU, for a model that is larger than any: its layers are dealt to several, or some stay in main memory."""

    @property
    def name(self) -> str:
        if self.limits is None:
            return str(self.device)
        return f"GPUs {', '.join(map(str, self.limits))}" if len(self.limits) > 1 else f"{self.device} and main memory"


class Placement(NamedTuple):
    places: list[Place]
    """One for each process."""
    sentence: str = ""
    """What a user should know of it, without a name of the stage."""


def choose(need: float, free: Sequence[float], jobs: int, *, main: float = 0.0, spread: bool = True) -> Placement:
    """Places for a model of `need` bytes, at most `jobs` of them, by the free bytes of each GPU, and of `main` memory.

    Without a GPU: the CPU. With those that are too small: several together or one with main memory, unless the model may not
    be `spread`; or the CPU.
    """
    import torch

    if not free:
        return Placement([Place(torch.device("cpu"))])
    large = [index for index, bytes_ in enumerate(free) if need + WORK <= bytes_]
    if large:
        small = [index for index in range(len(free)) if index not in large]
        places = [Place(torch.device("cuda", index)) for index in large[:jobs]]
        left = f"GPU {', '.join(map(str, small))} is left out: the model needs {(need + WORK) / GB:.1f} GB, {_listed(free)}"
        return Placement(places, left if small and jobs > len(large) else "")
    wanted = f"the model needs {(need + WORK) / GB:.1f} GB of a GPU, {_listed(free)}"
    limits = {index: int(bytes_ - WORK) for index, bytes_ in enumerate(free) if bytes_ > WORK}
    # Layers are dealt whole, so a part of each GPU stays free.
    if spread and len(limits) > 1 and need <= 0.9 * sum(limits.values()):
        device = torch.device("cuda", min(limits))
        return Placement(
            [Place(device, limits)], f"{wanted}: its layers are dealt to GPUs {', '.join(map(str, limits))}"
        )
    largest = max(limits, key=lambda index: limits[index], default=None)
    if spread and largest is not None and limits[largest] >= LEAST * need and main >= need:
        found = Place(torch.device("cuda", largest), {largest: limits[largest]})
        how = f"the rest of its layers stays in main memory, and is copied to GPU {largest} for each token"
        return Placement([found], f"{wanted}: {how}, which is slow")
    return Placement([Place(torch.device("cpu"))], f"{wanted}: the CPU computes, which is slow")


def _listed(free: Sequence[float]) -> str:
    return f"free are {', '.join(f'{bytes_ / GB:.1f}' for bytes_ in free)}"


def place(folder: Path, dtype: Dtype, key: str, jobs: int = 1) -> Placement:
    """Places for the folder's model in `dtype`, for at most `jobs` processes; `key` is the parameter that says the dtype.

    Raises ValueError where neither a GPU nor main memory has room for it.
    """
    gpus = usable_gpus()
    if not gpus:
        return choose(0, [], jobs)
    chosen = pick_dtype(dtype, pick_device(), key, folder)
    main = float(psutil.virtual_memory().available)
    found = choose(weight_bytes(folder, chosen), free_memory(gpus), jobs, main=main)
    cpu = found.places[0].device
    if cpu.type == "cpu":
        need = weight_bytes(folder, pick_dtype(dtype, cpu, key, folder))
        if need > main:
            raise ValueError(
                f"{found.sentence}, and it needs {need / GB:.1f} GB of main memory, of which {main / GB:.1f} GB are free: "
                "free a GPU, or take a smaller base (base.source)"
            )
    return found


def load_at(place: Place, folder: Path, dtype: "torch.dtype", adapter: Path | None = None) -> Any:
    """The folder's model at a place, with an adapter unmerged on top if one is given."""
    streamed = place.limits is not None and len(place.limits) == 1
    on_cpu = place.device.type == "cpu"
    model = load_model(folder, dtype, None if streamed else place.device, limits=None if streamed else place.limits)
    if adapter is not None:
        # On a CPU the time that another dtype saves is not worth another result.
        model = load_adapter(model, adapter) if on_cpu else load_narrow_adapter(model, adapter, dtype)
    if streamed:
        assert place.limits is not None
        model = stream_layers(model, place.device, sum(place.limits.values()))
    return model


def place_layerwise(folder: Path, dtype: "torch.dtype") -> Placement:
    """The place for the folder's model, stored in `dtype` and computed in float32 one layer at a time."""
    gpus = usable_gpus()
    if not gpus:
        return choose(0, [], 1)
    need = layerwise_bytes(empty_model(folder), dtype.itemsize)
    return choose(need, free_memory(gpus), 1, spread=False)


def weight_bytes(folder: Path, dtype: "torch.dtype") -> float:
    """Of the folder's weights in a dtype, by its files."""
    return float(dtype.itemsize * sum(math.prod(entry.shape) for entry in entries(folder).values()))


def free_memory(gpus: int) -> list[float]:
    """Free bytes of each GPU. A process of its own asks where there are several: who asks holds memory on each from then on."""
    if gpus == 1:
        return _ask(gpus)
    return in_children(_ask, [gpus], ["the question how much memory the GPUs have"])[0]


def _ask(gpus: int) -> list[float]:
    import torch

    return [float(torch.cuda.mem_get_info(index)[0]) for index in range(gpus)]


def layerwise_bytes(model: Any, stored_bytes: int) -> float:
    """Of a model as it is stored, and in float32 what lies outside its layers and one layer: what export holds of it."""
    layers = [sum(parameter.numel() for parameter in layer.parameters()) for layer in model.base_model.layers]
    total = sum(parameter.numel() for parameter in model.parameters())
    return stored_bytes * total + 4.0 * (total - sum(layers) + max(layers))
