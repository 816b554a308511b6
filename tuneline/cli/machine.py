"""The machine that a plan is for: this one, or one described by its GPUs."""

import os
import re
import shutil
import sys
from typing import Any, NamedTuple

from tuneline.runtime.machine import library_versions

GB = 1e9
BFLOAT16 = (8, 0)
"""Compute capability that GPUs compute in bfloat16 from (Ampere)."""


class Machine(NamedTuple):
    device: Any
    """torch.device."""
    dtype: str
    """Of `auto`: bfloat16, float16 or float32."""
    gpus: int
    memory: float
    """Bytes that a process can have: free on its GPU, or free in main memory over all processes."""
    described: bool
    """Whether it is another machine than this one, of which only the GPUs are known."""


def described_machine(gpu_memory: float, gpus: int, capability: str = "8.0") -> Machine:
    """A machine with that many GPUs of `gpu_memory` GB and of a compute capability; from 8.0 on they have bfloat16."""
    import torch

    from tuneline.models.gpu.float16 import auto_dtype

    if gpu_memory <= 0 or gpus < 1:
        raise ValueError(
            f"--gpu-memory is {gpu_memory:g} and --gpus is {gpus}, expected GB above 0 and a number above 0"
        )
    found = re.fullmatch(r"(\d+)\.(\d)", capability)
    if found is None:
        raise ValueError(f"--capability is {capability!r}, expected a compute capability such as 7.5")
    gpu = (int(found[1]), int(found[2]))
    dtype = auto_dtype(gpu, bfloat16=gpu >= BFLOAT16)
    return Machine(torch.device("cuda"), dtype, gpus, gpu_memory * GB, described=True)


def this_machine() -> Machine:
    import psutil
    import torch

    from tuneline.models.loading import pick_device, pick_dtype
    from tuneline.runtime.gpu import usable_gpus

    device = pick_device()
    on_gpu = device.type == "cuda"
    memory = float(torch.cuda.mem_get_info(device)[0]) if on_gpu else float(psutil.virtual_memory().available)
    dtype = str(pick_dtype("auto", device)).removeprefix("torch.")
    return Machine(device, dtype, usable_gpus(), memory, described=False)


def facts() -> dict[str, str]:
    """Processor, memory, disk, GPUs, compute dtype and versions of this machine, in words."""
    import psutil
    import torch

    from tuneline.models.loading import has_bfloat16, pick_device, pick_dtype
    from tuneline.runtime.gpu import driver_version

    device = pick_device()
    memory = psutil.virtual_memory()
    gpus = gpu_facts()
    auto = str(pick_dtype("auto", device)).removeprefix("torch.")
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory.total / GB:.1f} GB, {memory.available / GB:.1f} free",
        "disk": f"{shutil.disk_usage('.').free / GB:.1f} GB free",
        **(gpus or {"GPUs": "none"}),
        **({"driver": driver_version() or "does not say its version"} if gpus else {}),
        "CUDA": torch.version.cuda or "this torch has none",
        "bfloat16": "native" if has_bfloat16(device) else f"emulated (slow), so {auto} is used",
        "auto dtype": auto,
        "python": sys.version.split()[0],
        **library_versions("torch", "transformers", "peft", "deepspeed", "dvc"),
    }


def gpu_facts() -> dict[str, str]:
    """Name, memory and architecture of each GPU that may be used."""
    import torch

    from tuneline.models.devices.placement import free_memory
    from tuneline.runtime.gpu import usable_gpus

    count = usable_gpus()
    found = {}
    for index, free in enumerate(free_memory(count) if count else []):
        gpu = torch.cuda.get_device_properties(index)
        memory = f"{gpu.total_memory / GB:.1f} GB, {free / GB:.1f} free"
        found[f"GPU {index}"] = f"{gpu.name}, {memory}, sm_{gpu.major}{gpu.minor}"
    return found


def answering_facts() -> dict[str, str]:
    """Where `predict_base`, `evaluate` and export's comparison would compute; nothing before there is a base."""
    from tuneline.evaluate.config import Evaluate
    from tuneline.evaluate.predict import DTYPE
    from tuneline.export.layerwise_fp32 import stored_dtype
    from tuneline.models.devices.placement import place, place_layerwise
    from tuneline.models.loading import BASE
    from tuneline.runtime.gpu import usable_gpus
    from tuneline.runtime.params import load

    if not (BASE / "config.json").is_file() or not any(BASE.glob("*.safetensors")):
        return {}
    answers = place(BASE, load(Evaluate).dtype, DTYPE, max(1, usable_gpus()))
    compared = place_layerwise(BASE, stored_dtype(BASE))
    rows = {"answers, on": answers, "export compares, on": compared}
    return {
        name: ", ".join(one.name for one in found.places) + (f" ({found.sentence})" if found.sentence else "")
        for name, found in rows.items()
    }
