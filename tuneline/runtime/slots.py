"""Slots: stages that run at once share a host's GPUs, or the cores of its CPU, and never use one together unless asked to.

Each has a lock file in the user's private folder, which frees itself when the process that holds it ends, however it ends.
"""

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tuneline.runtime.cache import private_folder
from tuneline.runtime.gpu import DEVICE
from tuneline.runtime.terminal.lines import say

SHARE = "TUNELINE_SHARE_DEVICES"
"""Variable that lets stages use one device together, when it is 1."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
STAGES: dict[str, int | None] = {"base": 1, "predict_base": None, "evaluate": None, "export": 1}
"""GPUs that a stage uses at most; None is all that are free. Training says itself how many it needs."""
UUIDS = """
import ctypes
cuda, count, device, uuid = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(), ctypes.c_int(), (ctypes.c_ubyte * 16)()
assert cuda.cuInit(0) == 0 and cuda.cuDeviceGetCount(ctypes.byref(count)) == 0
for index in range(count.value):
    assert cuda.cuDeviceGet(ctypes.byref(device), index) == 0 and cuda.cuDeviceGetUuid_v2(uuid, device) == 0
    print(bytes(uuid).hex())
"""
"""Prints the UUID of each GPU, or MIG instance, that a process may use (CUDA driver API)."""


class Slot(NamedTuple):
    """A device that one stage at a time uses."""

    label: str
    """As a sentence calls it."""
    lock: str
    """Name of its lock file: the same whatever number the device has in CUDA_VISIBLE_DEVICES."""


def gpu_slots() -> list[Slot]:
    """Of the GPUs of this process, in CUDA's order; none without NVIDIA's driver.

    A process of its own asks for them, since CUDA reads CUDA_VISIBLE_DEVICES once.
    """
    if not DEVICE.exists():
        return []
    asked = subprocess.run([sys.executable, "-c", UUIDS], capture_output=True, text=True, check=False)
    # What is wrong with them is for usable_gpus to say.
    found = asked.stdout.split() if asked.returncode == 0 else []
    return [Slot(f"GPU {name}", f"gpu-{uuid}") for name, uuid in zip(visible_names(len(found)), found, strict=True)]


def visible_names(count: int) -> list[str]:
    """Names of the GPUs of this process, as CUDA_VISIBLE_DEVICES has them."""
    names = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return names[:count] if len(names) >= count else [str(index) for index in range(count)]


def core_slots() -> list[Slot]:
    """Of the cores that this process may use."""
    return [Slot(f"core {core} of the CPU", f"core-{core}") for core in sorted(os.sched_getaffinity(0))]


def threads() -> int:
    """Threads of a process that computes on the CPU."""
    cores = len(os.sched_getaffinity(0))
    given = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(given)) if given.isdecimal() and int(given) else cores


@contextmanager
def stage_devices(stage: str) -> Iterator[None]:
    """Within the block CUDA_VISIBLE_DEVICES names GPUs that no other stage uses; without a GPU, cores are taken.

    Nothing happens for a stage that computes nothing on them. Waits until there is one.
    """
    if stage in STAGES and on_cpu():
        with claimed(stage, core_slots(), threads()):
            yield
    elif stage in STAGES and (gpus := gpu_slots()):
        with claimed(stage, gpus, 1, STAGES[stage] or len(gpus)) as indexes:
            if len(indexes) < len(gpus):
                names = visible_names(len(gpus))
                os.environ[VISIBLE] = ",".join(names[index] for index in indexes)
            yield
    else:
        yield


@contextmanager
def training_devices(processes: int) -> Iterator[list[str]]:
    """Names of a GPU for each process, that no other stage uses; none on a CPU, whose cores are taken for their threads.

    Waits until all are free: how many processes train never depends on what else runs, and so does no result.
    """
    if on_cpu():
        cores = core_slots()
        with claimed("train", cores, min(len(cores), processes * threads())):
            yield []
    elif len(gpus := gpu_slots()) >= processes:
        with claimed("train", gpus, processes) as indexes:
            names = visible_names(len(gpus))
            yield [names[index] for index in indexes]
    else:
        yield []


def on_cpu() -> bool:
    """Whether a stage computes on the CPU whatever there is; `choose_accelerator` says so where there is no GPU."""
    return os.environ.get("DS_ACCELERATOR") == "cpu"


@contextmanager
def claimed(stage: str, slots: Sequence[Slot], least: int, most: int | None = None) -> Iterator[list[int]]:
    """Hold locks of at least `least` of the slots, at most `most` (else `least`); yields which. Says what it waits for."""
    most = least if most is None else max(least, most)
    if os.environ.get(SHARE) == "1":
        yield list(range(min(most, len(slots))))
        return
    folder = private_folder("slots", socket.gethostname())
    said = ""
    while True:
        with ExitStack() as locks:
            holders: dict[str, str] = {}
            indexes: list[int] = []
            for index, slot in enumerate(slots):
                if len(indexes) < most and (holder := _take(folder / slot.lock, locks)) is None:
                    indexes.append(index)
                elif len(indexes) < most:
                    holders[slot.label] = str(holder)
            if len(indexes) >= least:
                yield indexes
                return
        if (sentence := _waiting(holders, least)) != said:
            say(f"{stage}: {sentence} ({SHARE}=1 would not wait)")
            said = sentence
        # Two that wait for the same ones must not go on meeting.
        time.sleep(random.uniform(0.5, 1.5))  # noqa: S311


def _take(path: Path, locks: ExitStack) -> str | None:
    """Lock the file until `locks` ends, and write down who; who holds it, when somebody does."""
    from zc.lockfile import LockError, LockFile

    who = f"process {os.getpid()} in {Path.cwd()}".replace("{", "{{").replace("}", "}}")
    try:
        locks.callback(LockFile(str(path), content_template=who).close)
    except LockError:
        return path.read_text(encoding="utf-8").strip() or "another process"
    return None


def _waiting(holders: dict[str, str], least: int) -> str:
    """The sentence about who holds what."""
    of: dict[str, list[str]] = {}
    for label, holder in holders.items():
        of.setdefault(holder, []).append(label)
    used = "; ".join(f"{', '.join(labels)}, which {holder} uses" for holder, labels in of.items())
    return f"waiting for {used}" if least == 1 else f"waiting until {least} are free: {used}"
