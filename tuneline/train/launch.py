"""DeepSpeed's launcher around the training module: on this machine, or by its runner on the hosts of a hostfile."""

import base64
import contextlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from tuneline.runtime.errors import StoppedError
from tuneline.runtime.gpu import usable_gpus
from tuneline.runtime.machine import free_port
from tuneline.train.checkpoints import RUN_INFO, newest_complete, step_of
from tuneline.train.config.deepspeed import DeepSpeed
from tuneline.train.process_arguments import Command, Paths, to_arguments
from tuneline.train.sections import TrainingConfig

MODULE = "tuneline.train.run"


def launch_training(config: TrainingConfig, processes: int, paths: Paths) -> None:
    """Train in `processes` processes, from the newest complete checkpoint in the scratch folder.

    Raises StoppedError after Ctrl-C or SIGTERM, naming the step that was saved.
    """
    resume = newest_complete(paths.scratch)
    start = f"from the adapter in {paths.init}" if paths.init else "from the start"
    where = f"going on from {resume.name}" if resume else start
    print(f"train: {processes} process(es), {where}", flush=True)
    parent = 0 if config.deepspeed.hostfile else os.getpid()
    stopped = launch(config.deepspeed, processes, to_arguments(Command(config, paths, resume, parent)))
    if stopped and not (paths.scratch / RUN_INFO).is_file():
        saved = newest_complete(paths.scratch)
        raise StoppedError(
            f"stopped; run again, it goes on from {f'step {step_of(saved)}' if saved else 'the stage train'}"
        )


def count_processes(params: DeepSpeed, shares: int) -> int:
    """Processes over all hosts; on one host `auto` is as many GPUs as divide the step's `shares` micro-batches.

    Raises ValueError for a missing hostfile, or more processes than GPUs.
    """
    if params.hostfile is None:
        gpus = usable_gpus()
        if params.processes == "auto":
            return max(count for count in range(1, max(1, gpus) + 1) if shares % count == 0)
        if gpus and params.processes > gpus:
            raise ValueError(
                f"deepspeed.processes is {params.processes}, expected at most the {gpus} GPUs of this machine"
            )
        return params.processes
    from deepspeed.launcher.runner import fetch_hostfile

    if not Path(params.hostfile).is_file():
        raise ValueError(f"deepspeed.hostfile is {params.hostfile!r}, expected a file of lines `host slots=n`, or null")
    slots = fetch_hostfile(params.hostfile)
    return sum(slots.values() if params.processes == "auto" else [params.processes] * len(slots))


def launcher_arguments(params: DeepSpeed, processes: int, own: list[str]) -> list[str]:
    """The command line of DeepSpeed's launcher of one host, or of its runner; `own` are the training module's arguments."""
    flags = ["--no_local_rank", f"--master_port={params.master_port or free_port()}", "--quiet", "--module"]
    if params.hostfile is None:
        world = base64.urlsafe_b64encode(json.dumps({"localhost": devices(processes)}).encode()).decode()
        flags += ["--master_addr=127.0.0.1", f"--world_info={world}"]
    else:
        flags += ["--hostfile", params.hostfile]
        flags += [] if params.processes == "auto" else ["--num_gpus", str(params.processes)]
    return [*flags, MODULE, *own]


def devices(processes: int) -> list[str]:
    """Names of the processes' devices: of those that CUDA_VISIBLE_DEVICES holds (numbers, UUIDs, MIG instances) the first."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in visible.split(",") if name.strip()]
    return names[:processes] if names and usable_gpus() else [str(index) for index in range(processes)]


def launch(params: DeepSpeed, processes: int, own: list[str]) -> bool:
    """Run the launcher in this process until training ends; SIGTERM and SIGINT let the step finish and be saved.

    Returns whether such a signal came.

    A failed rank has said why; whether training came to its end is for the caller to see, because the launcher
    returns as if nothing was wrong when it was itself killed by a signal (deepspeed 0.19.8).
    """
    stopped = threading.Event()
    if params.hostfile is None and os.environ.get("DS_ACCELERATOR") == "cpu":
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // processes)))
    _take_signals(stopped, terminal=params.hostfile is None)
    # After the handlers: DeepSpeed's imports swallow a KeyboardInterrupt.
    from deepspeed.launcher import launch as one_host
    from deepspeed.launcher import runner

    threading.Thread(target=_end_children, args=(stopped,), daemon=True).start()
    try:
        with contextlib.suppress(SystemExit):
            if stopped.is_set():
                return True
            arguments = launcher_arguments(params, processes, own)
            if params.hostfile is None:
                # Its runner takes a number only, and counts GPUs anew after it has dropped CUDA_VISIBLE_DEVICES.
                sys.argv = ["deepspeed", *arguments]
                one_host.main()
            else:
                runner.main(arguments)
    except RuntimeError as error:
        raise ValueError(f"DeepSpeed's launcher could not start: {error}") from None
    return stopped.is_set()


def _take_signals(stopped: threading.Event, *, terminal: bool) -> None:
    """Let SIGTERM and SIGINT set the event, and with `terminal` keep SIGINT from all that this process starts.

    A terminal sends Ctrl-C to every process, which would end imports in tracebacks. What the main thread blocks is blocked
    in children, too. A signal that another thread takes does not wake the main one out of its wait, where Python would call
    a handler; but it is written to the wakeup pipe.
    """
    signals = (signal.SIGTERM, signal.SIGINT)
    read, write = os.pipe()

    def watch() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        while os.read(read, 1)[0] not in signals:
            pass
        stopped.set()

    for number in signals:
        signal.signal(number, lambda *_: stopped.set())
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    if terminal:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    threading.Thread(target=watch, daemon=True).start()


def _end_children(stopped: threading.Event) -> None:
    """Wait for the event, then ask what this process started to end."""
    import psutil

    stopped.wait()
    # The launcher may only be about to start its process.
    while not (children := psutil.Process().children()):
        time.sleep(0.1)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.send_signal(signal.SIGTERM)
