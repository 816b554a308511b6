"""A SLURM cluster of one node: programs that stand in for srun and scontrol, and the variables of an allocation.

python -m tests.helpers.slurm_cluster --ntasks=2 … program words      (srun: starts the tasks, as it does)
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.helpers.paths import ROOT

ALLOCATION = {
    "SLURM_JOB_ID": "81", "SLURMD_NODENAME": "localhost", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "localhost",
}  # fmt: skip


def install(folder: Path) -> dict[str, str]:
    """Write the programs; returns the variables of a process within an allocation."""
    folder.mkdir()
    lines = {
        "srun": f'PYTHONPATH={ROOT} exec {sys.executable} -m tests.helpers.slurm_cluster "$@"',
        "scontrol": "echo localhost",
    }
    for name, line in lines.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    return ALLOCATION | {"PATH": f"{folder}:{os.environ['PATH']}"}


def srun(words: list[str]) -> int:
    """Start the tasks with SLURM's variables; end all when one fails, or at SIGTERM. Returns the worst status."""
    options = dict(word[2:].partition("=")[::2] for word in words[: words.index(sys.executable)])
    assert options["kill-on-bad-exit"] == "1"
    command, count = words[words.index(sys.executable) :], int(options["ntasks"])
    shared = {"SLURM_NTASKS": str(count), "SLURM_NNODES": options["nodes"], "SLURM_STEP_NUM_NODES": options["nodes"]}
    places = [{"SLURM_PROCID": str(task), "SLURM_LOCALID": str(task), "SLURM_NODEID": "0"} for task in range(count)]
    tasks = [subprocess.Popen(command, env=os.environ | shared | place) for place in places]
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
    while any(task.poll() is None for task in tasks):
        if ended or any(task.returncode for task in tasks):
            for task in tasks:
                task.kill()
        time.sleep(0.1)
    return max(abs(task.returncode) for task in tasks)


if __name__ == "__main__":
    sys.exit(srun(sys.argv[1:]))
