"""Run the main() of a stage: its help, its errors as one sentence, its time and memory on the record."""

import argparse
import os
import platform
import resource
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tuneline.runtime.atomic import write_json
from tuneline.runtime.process import die_with, dvc_pid

SPEED = Path("metrics/speed")
GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""What the drivers of NVIDIA, AMD and WSL make."""
PACKAGES = ("torch", "transformers", "peft", "deepspeed", "datasets", "dvc")

_facts: dict[str, Any] = {}


def note(**facts: Any) -> None:
    """Add facts about this run (not about its result) to metrics/speed/<stage>.json."""
    _facts.update(facts)


def run(main: Callable[[], None], description: str | None) -> None:
    """Call main() and exit: 0 on success, 1 with one sentence on stderr when input or machine is at fault.

    Set TUNELINE_TRACEBACK=1 to see where an error came from.
    """
    module = sys.modules["__main__"].__spec__
    name = module.name.rpartition(".")[2] if module else Path(sys.argv[0]).stem
    argparse.ArgumentParser(
        prog=f"python -m stages.{name}",
        description=description,
        epilog="Takes no arguments: everything is read from params.yaml. `dvc repro` runs it when needed.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    if not any(Path(device).exists() for device in GPU_DEVICES):
        # DeepSpeed, which transformers imports, else warns at every start that it found no GPU.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if (dvc := dvc_pid()) is not None:
        # Under a shell a stage may outlive its terminal on purpose; under dvc it must not outlive dvc.
        die_with(dvc)
    # Of libraries about one another's deprecations, which no user can mend.
    warnings.filterwarnings("ignore", category=FutureWarning)
    start = time.monotonic()
    try:
        main()
    except (ValueError, OSError, MemoryError) as error:
        if os.environ.get("TUNELINE_TRACEBACK"):
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        sys.exit(f"{name}: {message}")
    seconds = time.monotonic() - start
    write_json(SPEED / f"{name}.json", {"wall_seconds": round(seconds, 1), "peak_memory_gb": peak_memory(), **_facts})
    print(f"{name}: took {seconds:.1f} s, peak memory {peak_memory():.2f} GB")


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


def machine() -> dict[str, Any]:
    """What ran: processor, cores, Python and the versions of the libraries that decide results."""
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
    }
