"""Commands on cards that are none: the environment with torch's CUDA build, and the driver in NVIDIA's place."""

import json
import os
import subprocess
from pathlib import Path

from tests.helpers.commands import one_rank
from tests.helpers.paths import ROOT

VENV = Path(os.environ.get("CUDA_VENV") or ROOT / ".cuda").absolute()
"""An environment with requirements.lock as the package index gives it, where torch is its CUDA build (`make test-cuda`)."""


def missing() -> str | None:
    """Why this machine has no such environment."""
    from shutil import which

    if not list(VENV.glob("lib/python3.*/site-packages/torch/lib/libtorch_cuda.so")):
        return f"no environment with torch's CUDA build at {VENV} (`make test-cuda` makes it, 5 GB; CUDA_VENV names another)"
    absent = [name for name in ("gcc", "nm") if which(name) is None]
    return f"no {' and '.join(absent)}" if absent else None


def packages() -> Path:
    """The environment's site-packages."""
    (found,) = VENV.glob("lib/python3.*/site-packages")
    return found


def environment(libraries: list[Path], **settings: str) -> dict[str, str]:
    """Of a process with the driver's devices; `settings` are the driver's (driver.c) and the process's own."""
    hidden = ("CUDA_VISIBLE_DEVICES", "DS_ACCELERATOR", "LD_PRELOAD", "VIRTUAL_ENV")
    inherited = {name: value for name, value in os.environ.items() if name not in hidden}
    path = f"{VENV / 'bin'}:{os.environ['PATH']}"
    return inherited | one_rank() | {"PATH": path, "LD_PRELOAD": ":".join(map(str, libraries))} | settings


def run(
    libraries: list[Path], module: str, given: object, folder: Path, **settings: str
) -> subprocess.CompletedProcess:
    """Run a module of the tests with one argument, a value as JSON, in a folder."""
    command = [str(VENV / "bin/python"), "-m", module, json.dumps(given)]
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(libraries, **settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
