"""A stage in a fork of this process, which has imported all that stages import: what a start costs is paid once.

`fresh` starts a Python of its own instead, as a user does: slower, and the attack meets the imports, too.
"""

import ctypes
import io
import os
import resource
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from benchmarks.faults.outcomes import Run
from benchmarks.harness import ROOT

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "TUNELINE_WORKERS": "1",
    "PYTHONWARNINGS": "ignore",
    "PIP_NO_INDEX": "1",
}
# In this order: the hub's modules import one another.
LIBRARIES = (
    "torch", "transformers", "peft", "accelerate", "deepspeed", "datasets", "pyarrow.parquet",
    "deepspeed.runtime.zero.muon.original_muon", "rouge_score.rouge_scorer", "sacrebleu", "openpyxl", "defusedxml.ElementTree",
    "dvc.utils.hydra",
)  # fmt: skip
OVERRIDE_CAPABILITIES = (1, 2)
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: what lets root read what nobody may read."""


class Limits(NamedTuple):
    """Of a run."""

    seconds: float = 60.0
    memory: int | None = None
    """Bytes of address space beyond what the process has at its start; half as many again for what is left of a page."""
    file_size: int | None = None
    unprivileged: bool = False
    """Whether root is kept from what permissions forbid."""
    stdin: str = ""


PLAIN = Limits()


class Signal(NamedTuple):
    """To send a run after some seconds."""

    number: int
    after: float


def import_all() -> None:
    """Import what the stages import, in this process."""
    os.environ.update(ENVIRONMENT)
    from tuneline.runtime.code import code_lists
    from tuneline.runtime.machine import choose_accelerator

    choose_accelerator()
    for name in LIBRARIES:
        import_module(name)

    for files in code_lists(ROOT).values():
        for name in files:
            if name.endswith(".py") and name.startswith("tuneline/"):
                import_module(name.removesuffix(".py").replace("/", ".").removesuffix(".__init__"))


def run_forked(
    stage: str,
    folder: Path,
    limits: Limits = PLAIN,
    sent: Signal | None = None,
    env: Mapping[str, str] | None = None,
) -> Run:
    """`python -m stages.<stage>` in a project's folder, in a fork."""
    return run_function(lambda: _run_module(stage), folder, limits, sent, env)


def run_function(
    function: Callable[[], None],
    folder: Path,
    limits: Limits = PLAIN,
    sent: Signal | None = None,
    env: Mapping[str, str] | None = None,
) -> Run:
    """A function in a fork whose working directory is a project's folder."""
    # Not in files, which a full disk would not take.
    streams = [os.memfd_create(name) for name in ("in", "out", "err")]
    os.write(streams[0], limits.stdin.encode())
    os.lseek(streams[0], 0, os.SEEK_SET)
    own = _own(folder)
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os._exit(_child(function, folder, limits, own | dict(env or {}), streams))
    status, peak = _wait(pid, started, limits.seconds, sent)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    _, out, err = map(_taken, streams)
    return Run(status, out, err, time.monotonic() - started, peak)


def run_fresh(
    stage: str,
    folder: Path,
    limits: Limits = PLAIN,
    sent: Signal | None = None,
    env: Mapping[str, str] | None = None,
) -> Run:
    """The same in a Python that starts anew."""

    def start() -> None:
        os.execv(sys.executable, [sys.executable, "-m", f"stages.{stage}"])  # noqa: S606

    return run_function(start, folder, limits, sent, dict(env or {}))


def _taken(stream: int) -> str:
    with os.fdopen(stream, "rb") as file:
        file.seek(0)
        return file.read().decode(errors="replace")


def _own(folder: Path) -> dict[str, str]:
    """Folders beside the project for what goes elsewhere."""
    beside = folder.parent / f"{folder.name}.scratch"
    temporary = folder.parent / f"{folder.name}.tmp"
    temporary.mkdir(exist_ok=True)
    return {"TUNELINE_SCRATCH": str(beside), "TMPDIR": str(temporary), "XDG_CACHE_HOME": str(temporary / "cache")}


def _child(
    function: Callable[[], None], folder: Path, limits: Limits, env: Mapping[str, str], streams: Sequence[int]
) -> int:
    """In the fork: become what a stage's process is, run, and say what it ends with."""
    end_with_parent()
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    sys.stdin, sys.stdout, sys.stderr = (io.TextIOWrapper(os.fdopen(n, m), line_buffering=True) for n, m in _STREAMS)
    # As before Python's own start: a stage takes its signals as soon as it is imported.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.update(ENVIRONMENT)
    os.environ.update(env)
    os.chdir(folder)
    status = 0
    try:
        _limit(limits)
        function()
    except SystemExit as end:
        status = _status(end)
    except BaseException:
        traceback.print_exc()
        status = 1
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    return status


def end_with_parent() -> None:
    """Let the kernel kill this process when the one that forked it is gone (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)


_STREAMS = ((0, "rb"), (1, "wb"), (2, "wb"))


def _status(end: SystemExit) -> int:
    if isinstance(end.code, int) or end.code is None:
        return end.code or 0
    print(end.code, file=sys.stderr)
    return 1


def _limit(limits: Limits) -> None:
    if limits.unprivileged and os.getuid() == 0:
        _drop_capabilities()
    if limits.memory is not None:
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
        most = pages * resource.getpagesize() + limits.memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    if limits.file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file_size, limits.file_size))


def _drop_capabilities() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    libc.capget(header, data)
    for number in OVERRIDE_CAPABILITIES:
        libc.prctl(24, number, 0, 0, 0)
        for place in range(3):
            data[place] &= ~(1 << number)
    if libc.capset(header, data):
        raise OSError(ctypes.get_errno(), "capabilities could not be dropped")


def _run_module(stage: str) -> None:
    sys.argv = [f"stages/{stage}.py"]
    sys.path.insert(0, str(Path.cwd()))
    from tuneline.runtime import packages

    # The project's own, as its own code would have it.
    packages.catalogue.__defaults__ = (Path("tuneline/packages.yaml").absolute(),)
    runpy.run_module(f"stages.{stage}", run_name="__main__", alter_sys=True)


def _wait(pid: int, started: float, seconds: float, sent: Signal | None) -> tuple[int | None, int]:
    """(exit status, peak resident bytes)."""
    waiting = [sent] if sent else []
    late = False
    while True:
        done, status, used = os.wait4(pid, os.WNOHANG)
        if done:
            return (None if late else os.waitstatus_to_exitcode(status)), used.ru_maxrss * 1024
        passed = time.monotonic() - started
        if waiting and passed >= waiting[0].after:
            os.kill(pid, waiting.pop().number)
        if passed > seconds and not late:
            late = True
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)
