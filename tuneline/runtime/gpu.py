"""GPUs that this process may use; and in a sentence why torch cannot use one that is there."""

import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

DEVICE = Path("/dev/nvidiactl")
"""What NVIDIA's driver makes."""
DRIVER = Path("/proc/driver/nvidia/version")
"""Where it says its version."""


def usable_gpus() -> int:
    """How many GPUs there are for this process, which CUDA_VISIBLE_DEVICES may choose; none with DS_ACCELERATOR=cpu.

    Raises ValueError for GPUs that torch cannot use: the CPU would else take over without a word, a hundred times slower.
    """
    import torch

    if os.environ.get("DS_ACCELERATOR") == "cpu":
        return 0
    # NVML counts GPUs whatever their driver's version is.
    count = torch.cuda.device_count()
    if not torch.cuda.is_available():
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")
        if count or (torch.version.cuda and DEVICE.exists() and not hidden):
            raise _unusable(_reason())
        return 0
    try:
        _check_kernels(count)
    except RuntimeError as error:
        # By NVML, which some libraries let torch ask instead, a driver that is too old is there, too.
        raise _unusable(_words(error)) from None
    return count


def _unusable(reason: str) -> ValueError:
    import torch

    return ValueError(
        f"torch {torch.__version__} cannot use this machine's GPU: {reason}; install a newer driver, or a torch "
        f"for an older CUDA ({reinstall('auto')}), or set DS_ACCELERATOR=cpu for the CPU"
    )


def reinstall(backend: str) -> str:
    """The command that puts another build of the same torch in its place."""
    import torch

    version = torch.__version__.partition("+")[0]
    return f"`uv pip install --torch-backend={backend} --reinstall-package torch torch=={version}`"


def _reason() -> str:
    """The driver's own words."""
    import torch

    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return _words(error)
    return "its driver does not answer"


def _words(error: Exception) -> str:
    return str(error).partition("\n")[0].partition(". ")[0]


def driver_version() -> str | None:
    """NVIDIA's driver, as `580.95.05`; None where it does not say."""
    text = DRIVER.read_text(encoding="utf-8") if DRIVER.is_file() else ""
    found = re.search(r"NVRM version:.*?\b(\d{3}\.\d+(\.\d+)?)", text)
    return found[1] if found else None


@cache
def _check_kernels(count: int) -> None:
    import torch

    kernels = torch.cuda.get_arch_list()
    for index in range(count):
        capability = torch.cuda.get_device_capability(index)
        if not has_kernels(capability, kernels):
            name, here = torch.cuda.get_device_name(index), ".".join(map(str, capability))
            raise ValueError(
                f"torch {torch.__version__} has no kernels for GPU {index}, {name} of compute capability {here}, only for "
                f"{', '.join(kernels)}: install a torch for an older CUDA "
                f"({reinstall('cu126')}), choose others by CUDA_VISIBLE_DEVICES, or set DS_ACCELERATOR=cpu for the CPU"
            )


def has_kernels(capability: tuple[int, int], kernels: Sequence[str]) -> bool:
    """Whether a GPU of that compute capability runs one of torch's builds (`sm_90`), or can compile one (`compute_90`).

    A build runs on its own major version from its minor version on (CUDA's programming guide, "Binary Compatibility").
    """
    for kernel in kernels:
        found = re.fullmatch(r"(sm|compute)_(\d+)(\d)[af]?", kernel)
        if found is None:
            continue
        built = int(found[2]), int(found[3])
        if (found[1] == "compute" or built[0] == capability[0]) and built <= capability:
            return True
    return not kernels
