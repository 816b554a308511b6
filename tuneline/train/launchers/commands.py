"""Command lines of DeepSpeed's launcher of one host and of torch's elastic launcher; over several hosts both go by pdsh."""

import base64
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tuneline.train.config.deepspeed import DeepSpeed

HOST_NUMBER = "%n"
"""What pdsh replaces by a host's place in its list."""
LOG_FOLDER = "PET_LOG_DIR"
"""Variable that torch's launcher takes its --log-dir from."""


def deepspeed_arguments(
    world: Mapping[str, Sequence[str | int]], address: str, port: int, own: Sequence[str]
) -> list[str]:
    """Of deepspeed.launcher.launch: `world` names each host's devices, `own` is the training module with its arguments."""
    encoded = base64.urlsafe_b64encode(json.dumps(world).encode()).decode()
    number = [f"--node_rank={HOST_NUMBER}"] if len(world) > 1 else []
    flags = ["--no_local_rank", f"--master_port={port}", "--log_level=critical", "--module", f"--master_addr={address}"]
    return [*flags, f"--world_info={encoded}", *number, *own]


def torchrun_arguments(hosts: int, each: int, address: str, port: int, own: Sequence[str]) -> list[str]:
    """Of torch.distributed.run, with `each` processes on every host.

    Nothing is restarted: the next run goes on from a checkpoint. Only SIGHUP is handed on at once, because what gets SIGTERM
    or SIGINT from it has 30 seconds, and a step may take longer.
    """
    number = HOST_NUMBER if hosts > 1 else "0"
    return [
        f"--nnodes={hosts}", f"--node-rank={number}", f"--nproc-per-node={each}", "--rdzv-backend=static",
        f"--rdzv-endpoint={address}:{port}", "--max-restarts=0", "--signals-to-handle=SIGHUP", "--module", *own,
    ]  # fmt: skip


def read_hosts(params: DeepSpeed) -> dict[str, int]:
    """Processes by host, in the order of the hostfile. Raises ValueError for a file that is missing or says nothing."""
    assert params.hostfile is not None
    if not Path(params.hostfile).is_file():
        raise ValueError(f"deepspeed.hostfile is {params.hostfile!r}, expected a file of lines `host slots=n`, or null")
    from deepspeed.launcher.runner import fetch_hostfile

    slots: dict[str, int] = dict(fetch_hostfile(params.hostfile))
    if params.processes == "auto":
        if params.launcher == "torchrun" and len(set(slots.values())) > 1:
            raise ValueError(
                f"deepspeed.hostfile {params.hostfile} has slots {slots}, expected the same number for each host with "
                "deepspeed.launcher: torchrun; or set launcher: deepspeed, or deepspeed.processes to a number"
            )
        return slots
    return dict.fromkeys(slots, params.processes)


def address_of(host: str) -> str:
    """The first address of a host, which it says itself. Raises ValueError when ssh does not get there."""
    # A host's name often means 127.0.1.1 to itself.
    command = ["ssh", "-o", "BatchMode=yes", host, "hostname -I"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if asked.returncode or not asked.stdout.split():
        why = asked.stderr.strip().splitlines()[-1:] or ["it names no address"]
        raise ValueError(
            f"deepspeed.hostfile names {host}, expected one that `ssh {host} hostname -I` reaches without a password: {why[0]}"
        )
    return asked.stdout.split()[0]


def over_hosts(hosts: Sequence[str], exports: Mapping[str, str], command: Sequence[str]) -> list[str]:
    """pdsh's command line that runs `command` on each host, in this folder; its status is the worst of theirs."""
    words = [f"export {name}={shlex.quote(value)};" for name, value in exports.items()]
    words += ["cd", f"{shlex.quote(str(Path.cwd()))};", "exec", *map(shlex.quote, command)]
    # Any other percent sign would be pdsh's, too.
    line = " ".join(words).replace("%", "%%").replace("rank=%%n", f"rank={HOST_NUMBER}")
    return ["pdsh", "-R", "ssh", "-S", "-f", "1024", "-w", ",".join(hosts), line]


def exported() -> dict[str, str]:
    """What reaches the other hosts, as DeepSpeed's documentation has it: NCCL_*, PYTHON*, … and the file .deepspeed_env."""
    from deepspeed.accelerator import get_accelerator
    from deepspeed.launcher import runner

    names = (LOG_FOLDER, "OMP_NUM_THREADS", "DS_ACCELERATOR", *runner.EXPORT_ENVS, *get_accelerator().export_envs())
    found = {name: value for name, value in os.environ.items() if name.startswith(names)}
    for folder in runner.DEEPSPEED_ENVIRONMENT_PATHS:
        path = Path(folder) / runner.DEEPSPEED_ENVIRONMENT_NAME
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        found |= {
            name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines if "=" in line)
        }
    return found


def need(program: str, launcher: str, remedy: str) -> None:
    """Raises ValueError when a program is not there."""
    if shutil.which(program) is None:
        raise ValueError(f"{launcher} needs {program}, which is not on PATH: {remedy}")
