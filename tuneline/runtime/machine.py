"""Facts about the machine and the libraries of a run."""

import os
import platform
import resource
import socket
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""What the drivers of NVIDIA, AMD and WSL make."""
LIBRARIES = ("torch", "transformers", "peft", "deepspeed", "accelerate", "numpy", "datasets", "dvc")
"""Those that decide results, or how they are kept."""


def choose_accelerator() -> None:
    """Tell DeepSpeed that there is no GPU: transformers imports it, and it else warns at every start."""
    if not any(Path(device).exists() for device in GPU_DEVICES):
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def library_versions(*names: str) -> dict[str, str]:
    """Installed versions by name, of LIBRARIES unless others are named."""
    return {name: _version(name) for name in names or LIBRARIES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def machine_info() -> dict[str, Any]:
    """What ran: processor, cores, Python and library versions."""
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": library_versions(),
    }


def peak_memory() -> float:
    """Peak resident memory in GB (1e9 bytes) of this process or the largest of its children so far."""
    kilobytes = max(_own_peak(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
    return round(kilobytes * 1024 / 1e9, 2)


def _own_peak() -> int:
    """In kB. getrusage's is at least that of the process that started this one; Linux also keeps the own one."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.is_file() else []
    # Some sandboxes leave it out.
    own = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if own is None else own


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
