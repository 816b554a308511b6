"""What a training process on a CPU sets before it begins: no compiler, and no memory that nobody uses."""

import ctypes
import os

M_MMAP_THRESHOLD = -3
"""glibc's malloc.h."""
LARGE = 2 * 1024 * 1024


def avoid_compiler() -> None:
    """Keep DeepSpeed from compiling its shared-memory collectives: gloo serves, and no compiler may be there.

    `is_compatible` of that op asks only for Linux, so init_distributed would fail without c++ (deepspeed 0.19.8).
    """
    from deepspeed import ops

    assert "deepspeed_shm_comm" in ops.__compatible_ops__, "DeepSpeed has renamed deepspeed_shm_comm"
    ops.__compatible_ops__["deepspeed_shm_comm"] = False


def keep_few_kernels() -> None:
    """Bound oneDNN's cache of kernels, of which it keeps 1,024 and 100 MB for each shape of a batch.

    One shape needs about 60, and to make one again takes a millisecond (measured: benchmarks/LOG.md).
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")


def give_back_large_blocks() -> None:
    """Let malloc return blocks of 2 MB and more at once, where the C library is glibc.

    By default it raises that limit to 32 MB as it goes (mallopt(3), M_MMAP_THRESHOLD) and keeps a heap full of holes:
    up to 1.5 GB here, for no gain in speed (measured: benchmarks/LOG.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE)
