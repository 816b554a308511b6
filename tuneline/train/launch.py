"""The training processes' launcher: DeepSpeed's, torch's or SLURM's, on this machine or on the hosts of a hostfile."""

import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tuneline.runtime.errors import StoppedError, sentence
from tuneline.runtime.gpu import usable_gpus
from tuneline.runtime.machine import free_port
from tuneline.runtime.slots import VISIBLE, on_cpu, training_devices, visible_names
from tuneline.runtime.stopping import SIGNALS, handle_signals
from tuneline.runtime.terminal.lines import count, say
from tuneline.train.checkpoints import RUN_INFO, STOP, newest_complete, step_of
from tuneline.train.config.deepspeed import DeepSpeed
from tuneline.train.launchers import commands, slurm, torchrun
from tuneline.train.launchers.elsewhere import run_elsewhere
from tuneline.train.launchers.own_process import ONE_HOST, run_here
from tuneline.train.process_arguments import Command, Paths, to_arguments
from tuneline.train.sections import TrainingConfig
from tuneline.train.sizing.settle import settle

MODULE = "tuneline.train.run"
LAUNCHERS = {"deepspeed": "deepspeed.launcher.launch", "torchrun": torchrun.MODULE}
"""Module of each launcher that runs once on every host."""


def launch_training(config: TrainingConfig, processes: int, paths: Paths) -> None:
    """Train in `processes` processes, from the newest complete checkpoint in the scratch folder.

    Raises StoppedError after Ctrl-C, SIGTERM or SIGHUP, naming the step that was saved.
    """
    params = config.deepspeed
    resume = newest_complete(paths.scratch)
    start = f"from the adapter in {paths.init}" if paths.init else "from the start"
    where = f"going on from {resume.name}" if resume else start
    say(f"train: {count(processes, 'process')}, {where}")
    # torch's launcher else leaves a temporary folder behind.
    os.environ.setdefault(commands.LOG_FOLDER, str(paths.scratch / "torchelastic"))
    if is_local(params):
        with training_devices(processes) as names:
            if names:
                os.environ[VISIBLE] = ",".join(names)
            # Only now is what is free on these cards not another stage's.
            command = Command(settle(config, processes, paths), paths, resume, os.getpid())
            if needs_no_launcher(params, processes):
                stopped = run_here(command, params.master_port)
            else:
                stopped = launch(params, processes, to_arguments(command), names)
    else:
        own = to_arguments(Command(settle(config, processes, paths), paths, resume, 0))
        stopped = launch_elsewhere(params, processes, own, paths.scratch)
    if stopped and not (paths.scratch / RUN_INFO).is_file():
        saved = newest_complete(paths.scratch)
        raise StoppedError(
            f"stopped; run again, it goes on from {f'step {step_of(saved)}' if saved else 'the stage train'}", stopped
        )


def is_local(params: DeepSpeed) -> bool:
    """Whether all processes are descendants of the stage's."""
    return params.hostfile is None and params.launcher != "slurm"


def needs_no_launcher(params: DeepSpeed, processes: int) -> bool:
    """Whether the stage's own process trains: the only one, of no launcher that was asked for by name.

    Not on GPUs: this process may have started CUDA with cards that it must not use.
    """
    return params.launcher == "deepspeed" and processes == 1 and on_cpu()


def count_processes(params: DeepSpeed, shares: int) -> int:
    """Processes over all hosts; `auto` is as many GPUs of each as divide the step's `shares` micro-batches, of a hostfile all.

    Raises ValueError for a missing hostfile, for no allocation of SLURM, or more processes than GPUs.
    """
    if params.hostfile is not None:
        return sum(commands.read_hosts(params).values())
    hosts = slurm.nodes(os.environ) if params.launcher == "slurm" else 1
    gpus = usable_gpus()
    if params.processes == "auto":
        fitting = [count for count in range(1, gpus + 1) if shares % (count * hosts) == 0]
        return hosts * max(fitting, default=1)
    if gpus and params.processes > gpus:
        raise ValueError(f"deepspeed.processes is {params.processes}, expected at most the {gpus} GPUs of this machine")
    return hosts * params.processes


def launcher_arguments(params: DeepSpeed, processes: int, own: Sequence[str], names: Sequence[str] = ()) -> list[str]:
    """The launcher's command line on this host alone; `own` are the training module's arguments.

    `names` are the processes' GPUs, else those of `devices`; torch's launcher leaves CUDA_VISIBLE_DEVICES as it is.
    """
    port = params.master_port or free_port()
    words = [MODULE, *own]
    if params.launcher == "torchrun":
        return commands.torchrun_arguments(1, processes, ONE_HOST, port, words)
    world = {"localhost": names or devices(processes)}
    return commands.deepspeed_arguments(world, ONE_HOST, port, words)


def hosts_command(params: DeepSpeed, own: Sequence[str]) -> list[str]:
    """The command line that runs the launcher on every host of the hostfile."""
    hosts = commands.read_hosts(params)
    commands.need("pdsh", "deepspeed.hostfile", "apt install pdsh, or set deepspeed.hostfile: null")
    address, port, words = commands.address_of(next(iter(hosts))), params.master_port or free_port(), [MODULE, *own]
    if params.launcher == "torchrun":
        arguments = commands.torchrun_arguments(len(hosts), max(hosts.values()), address, port, words)
    else:
        world = {host: list(range(count)) for host, count in hosts.items()}
        arguments = commands.deepspeed_arguments(world, address, port, words)
    launcher = [sys.executable, "-u", "-m", LAUNCHERS[params.launcher], *arguments]
    return commands.over_hosts(list(hosts), commands.exported(), launcher)


def launch_elsewhere(params: DeepSpeed, processes: int, own: Sequence[str], scratch: Path) -> int:
    """Train on the hosts of the hostfile, or the nodes of the allocation. Returns the signal that came, or 0."""
    if params.launcher == "slurm":
        count = slurm.nodes(os.environ)
        meeting = {"MASTER_ADDR": slurm.first_node(os.environ), "MASTER_PORT": str(params.master_port or free_port())}
        command = slurm.srun_command(os.environ, processes // count, own, gpus=bool(usable_gpus()))
        return run_elsewhere(command, scratch / STOP, meeting)
    pattern = f"[{MODULE[0]}]{re.escape(MODULE[1:])} .*--scratch={re.escape(str(scratch))}"
    end = commands.over_hosts(list(commands.read_hosts(params)), {}, ["pkill", "-KILL", "-f", pattern])
    return run_elsewhere(hosts_command(params, own), scratch / STOP, {}, end)


def devices(processes: int) -> list[str]:
    """Names of the processes' devices: of those that CUDA_VISIBLE_DEVICES holds (numbers, UUIDs, MIG instances) the first."""
    return visible_names(processes) if usable_gpus() else [str(index) for index in range(processes)]


def launch(params: DeepSpeed, processes: int, own: Sequence[str], names: Sequence[str]) -> int:
    """Run the launcher in this process until training ends; a signal lets the step finish and be saved.

    `names` are the GPUs that were taken for the processes, if any. Returns the signal that came, or 0. DeepSpeed's launcher
    gives the processes 30 seconds after SIGTERM.

    A failed rank has said why; whether training came to its end is for the caller to see, because the launcher
    returns as if nothing was wrong when it was itself killed by a signal (deepspeed 0.19.8).
    """
    stopped = _Stopped()
    # torch's launcher else says 1, with a warning.
    if os.environ.get("DS_ACCELERATOR") == "cpu" or params.launcher == "torchrun":
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // processes)))
    _take_signals(stopped)
    run = _run_torchrun if params.launcher == "torchrun" else _run_deepspeed
    threading.Thread(target=_end_children, args=(stopped,), daemon=True).start()
    try:
        with contextlib.suppress(SystemExit):
            if not stopped.is_set():
                run(launcher_arguments(params, processes, own, names), stopped)
    except RuntimeError as error:
        raise ValueError(f"the launcher {params.launcher} could not start: {sentence(error)}") from None
    return stopped.number


class _Stopped(threading.Event):
    """Set when a signal has come."""

    number = 0
    """Of the signal."""


def _run_deepspeed(arguments: list[str], stopped: _Stopped) -> None:
    # After the handlers: DeepSpeed's imports swallow a KeyboardInterrupt.
    from deepspeed.launcher import launch as one_host

    if not stopped.is_set():
        # Its runner takes a number only, and counts GPUs anew after it has dropped CUDA_VISIBLE_DEVICES.
        sys.argv = ["deepspeed", *arguments]
        one_host.main()


def _run_torchrun(arguments: list[str], stopped: _Stopped) -> None:
    if not stopped.is_set():
        torchrun.run_torchrun(arguments)


def _take_signals(stopped: _Stopped) -> None:
    """Let SIGTERM, SIGINT and SIGHUP set the event, and keep the last two from all that this process starts.

    A terminal sends Ctrl-C to every process, which would end imports in tracebacks. What the main thread blocks is blocked
    in children, too. A signal that another thread takes does not wake the main one out of its wait, where Python would call
    a handler; but it is written to the wakeup pipe.
    """
    read, write = os.pipe()

    def watch() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        while (number := os.read(read, 1)[0]) not in SIGNALS:
            pass
        stop(number)

    def stop(number: int, *_: object) -> None:
        stopped.number = stopped.number or number
        stopped.set()

    handle_signals(stop)
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGHUP])
    threading.Thread(target=watch, daemon=True).start()


def _end_children(stopped: _Stopped) -> None:
    """Wait for the event, then ask what this process started to end."""
    import psutil

    stopped.wait()
    # The launcher may only be about to start its process.
    while not (children := psutil.Process().children()):
        time.sleep(0.1)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.send_signal(signal.SIGTERM)
