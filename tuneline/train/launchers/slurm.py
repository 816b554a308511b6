"""SLURM: `srun` starts one task for each process within the allocation that the stage runs in.

python -m tuneline.train.launchers.slurm            (a task: SLURM's variables become torch's)
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from tuneline.train.launchers.commands import need

MODULE = "tuneline.train.launchers.slurm"


def nodes(environment: Mapping[str, str]) -> int:
    """Nodes of the allocation. Raises ValueError outside of one, or where there is no srun."""
    where = "deepspeed.launcher is slurm"
    need("srun", where, "run on a node of a SLURM cluster, or set deepspeed.launcher to deepspeed or torchrun")
    if "SLURM_JOB_ID" not in environment:
        raise ValueError(
            f"{where}, expected to run within an allocation: `sbatch --wrap 'dvc repro'`, with --gres and --nodes"
        )
    if "SLURMD_NODENAME" not in environment:
        raise ValueError(
            f"{where}, expected to run on a node of allocation {environment['SLURM_JOB_ID']}, not beside it, since devices are "
            "looked for here: `sbatch --wrap 'dvc repro'`, or `srun --pty bash` first"
        )
    return int(environment.get("SLURM_JOB_NUM_NODES") or environment.get("SLURM_NNODES") or 1)


def srun_command(environment: Mapping[str, str], each: int, own: Sequence[str], *, gpus: bool) -> list[str]:
    """With `each` tasks on every node; `own` are the training module's arguments."""
    count = nodes(environment)
    words = [
        "srun",
        f"--nodes={count}",
        f"--ntasks={count * each}",
        f"--ntasks-per-node={each}",
        "--kill-on-bad-exit=1",
    ]
    # A site may keep the environment from steps, and since 22.05 srun does not take over the CPUs of a task.
    words.append("--export=ALL")
    if cpus := environment.get("SLURM_CPUS_PER_TASK"):
        words.append(f"--cpus-per-task={cpus}")
    # NCCL's way from card to card needs each process to see all of the node's.
    words += ["--gpu-bind=none"] if gpus else []
    # Within a step (`srun --pty bash`) another would wait for the first to end.
    words += ["--overlap"] if "SLURM_STEP_ID" in environment else []
    return [*words, sys.executable, "-u", "-m", MODULE, *own]


def first_node(environment: Mapping[str, str]) -> str:
    """Its name, where process 0 runs. Raises ValueError when SLURM does not say it."""
    need("scontrol", "deepspeed.launcher is slurm", "it belongs to SLURM's programs, beside srun")
    command = ["scontrol", "show", "hostnames", environment.get("SLURM_JOB_NODELIST", "")]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    if asked.returncode or not asked.stdout.split():
        raise ValueError(f"`{' '.join(command)}` says {asked.stderr.strip()!r}, expected the allocation's nodes")
    return asked.stdout.split()[0]


def torch_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """RANK and so on of this task; MASTER_ADDR and MASTER_PORT come from the stage."""
    local, count = (
        environment["SLURM_LOCALID"],
        int(environment.get("SLURM_STEP_NUM_NODES", environment["SLURM_NNODES"])),
    )
    visible = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    # A site may bind a card to each task whatever srun is told: it is the only one then.
    device = "0" if len(visible) == 1 else local
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": environment["SLURM_NTASKS"],
        "LOCAL_RANK": device,
        "LOCAL_WORLD_SIZE": str(int(environment["SLURM_NTASKS"]) // count),
        "GROUP_RANK": environment["SLURM_NODEID"],
        "GROUP_WORLD_SIZE": str(count),
    }


def main() -> None:
    os.environ.update(torch_variables(os.environ))
    # After torch's variables are there.
    from tuneline.train.run import main as train

    train()


if __name__ == "__main__":
    main()
