"""Command lines of the launchers, word by word, and what is wrong where one can't start."""

import base64
import json
import sys
from pathlib import Path

import pytest

from tests.helpers.sections import deepspeed_section as section
from tuneline.train import launch
from tuneline.train.launchers import commands, slurm

OWN = ["--config=e30=", "--scratch=/shared/100% mine/train"]
ALLOCATION = {"SLURM_JOB_ID": "81", "SLURMD_NODENAME": "n1", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "n[1-2]"}


def program(folder: Path, name: str, line: str) -> None:
    """A stand-in for a program that is not here."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{line}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def programs(tmp_path, monkeypatch) -> Path:
    """A PATH of stand-ins alone; this host is reached by ssh, and says its addresses."""
    folder = tmp_path / "bin"
    program(
        folder, "ssh", '[ "$3" = alpha ] && echo "10.0.0.5 10.1.0.5" || { echo "ssh: unknown host $3" >&2; exit 255; }'
    )
    program(folder, "pdsh", "exit 0")
    program(folder, "srun", "exit 0")
    program(folder, "scontrol", '[ "$*" = "show hostnames n[1-2]" ] && printf "n1\\nn2\\n"')
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A project with a hostfile, and an environment without anything for other hosts."""
    (tmp_path / "it's here").mkdir()
    monkeypatch.chdir(tmp_path / "it's here")
    monkeypatch.setattr(commands, "exported", lambda: {"NCCL_DEBUG": "INFO", "PYTHONPATH": "/a b"})
    Path("hosts").write_text("alpha slots=2\nbeta slots=2\n")
    return tmp_path / "it's here"


def test_torchrun_on_one_host():
    assert launch.launcher_arguments(section(launcher="torchrun", master_port=29501), 2, OWN) == [
        "--nnodes=1", "--node-rank=0", "--nproc-per-node=2", "--rdzv-backend=static", "--rdzv-endpoint=127.0.0.1:29501",
        "--max-restarts=0", "--signals-to-handle=SIGHUP", "--module", "tuneline.train.run", *OWN,
    ]  # fmt: skip


def test_torchrun_reads_it_so():
    from torch.distributed.run import config_from_args, parse_args

    arguments = launch.launcher_arguments(section(launcher="torchrun"), 2, OWN)
    config, command, words = config_from_args(parse_args(arguments))
    assert (config.min_nodes, config.nproc_per_node, config.max_restarts, config.rdzv_configs["rank"]) == (1, 2, 0, 0)
    assert [command, *words] == [sys.executable, "-u", "-m", "tuneline.train.run", *OWN]


def test_torchrun_on_the_hosts_of_a_hostfile(programs, folder):
    command = launch.hosts_command(section(launcher="torchrun", hostfile="hosts", master_port=29500), OWN)
    assert command == [
        "pdsh", "-R", "ssh", "-S", "-f", "1024", "-w", "alpha,beta",
        "export NCCL_DEBUG=INFO; export PYTHONPATH='/a b'; "
        f"cd '{str(folder).replace(chr(39), chr(39) + chr(34) + chr(39) + chr(34) + chr(39))}'; "
        f"exec {sys.executable} -u -m tuneline.train.launchers.torchrun --nnodes=2 --node-rank=%n --nproc-per-node=2 "
        "--rdzv-backend=static --rdzv-endpoint=10.0.0.5:29500 --max-restarts=0 --signals-to-handle=SIGHUP --module "
        "tuneline.train.run --config=e30= '--scratch=/shared/100%% mine/train'",
    ]  # fmt: skip


def test_deepspeed_on_the_hosts_of_a_hostfile(programs, folder):
    command = launch.hosts_command(section(hostfile="hosts", processes=1, master_port=29500), OWN)
    world = base64.urlsafe_b64encode(json.dumps({"alpha": [0], "beta": [0]}).encode()).decode()
    assert command[-1].partition("exec ")[2] == (
        f"{sys.executable} -u -m deepspeed.launcher.launch --no_local_rank --master_port=29500 --log_level=critical --module "
        f"--master_addr=10.0.0.5 --world_info={world} --node_rank=%n tuneline.train.run --config=e30= "
        "'--scratch=/shared/100%% mine/train'"
    )


def test_what_reaches_the_other_hosts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", "/here")
    monkeypatch.setenv("SECRET", "no")
    (tmp_path / ".deepspeed_env").write_text("GLOO_SOCKET_IFNAME=eth1\nNOTE=a=b c\n\n")
    found = commands.exported()
    assert found["PYTHONPATH"] == "/here"
    assert found["GLOO_SOCKET_IFNAME"] == "eth1"
    assert found["NOTE"] == "a=b c"
    assert "SECRET" not in found


def test_srun_has_a_task_for_each_process(programs):
    environment = ALLOCATION | {"SLURM_CPUS_PER_TASK": "8"}
    assert slurm.srun_command(environment, 4, OWN, gpus=True) == [
        "srun", "--nodes=2", "--ntasks=8", "--ntasks-per-node=4", "--kill-on-bad-exit=1", "--export=ALL", "--cpus-per-task=8",
        "--gpu-bind=none", sys.executable, "-u", "-m", "tuneline.train.launchers.slurm", *OWN,
    ]  # fmt: skip
    assert slurm.srun_command(ALLOCATION | {"SLURM_STEP_ID": "0"}, 1, OWN, gpus=False)[:7] == [
        "srun", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--kill-on-bad-exit=1", "--export=ALL", "--overlap",
    ]  # fmt: skip
    assert slurm.first_node(ALLOCATION) == "n1"


TASK = {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8", "SLURM_NNODES": "2", "SLURM_NODEID": "1"}


@pytest.mark.parametrize(("visible", "device"), [("", "1"), ("0,1,2,3", "1"), ("1", "0")])
def test_a_task_knows_its_place(visible, device):
    expected = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": device, "LOCAL_WORLD_SIZE": "4"}
    expected |= {"GROUP_RANK": "1", "GROUP_WORLD_SIZE": "2"}
    assert slurm.torch_variables(TASK | {"CUDA_VISIBLE_DEVICES": visible}) == expected


def allocated(monkeypatch, **changes) -> None:
    for name in ("SLURM_STEP_ID", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (ALLOCATION | changes).items():
        monkeypatch.setenv(name, value)


def test_processes_of_an_allocation(monkeypatch, programs):
    allocated(monkeypatch)
    monkeypatch.setattr(launch, "usable_gpus", lambda: 4)
    assert launch.count_processes(section(launcher="slurm"), 8) == 8
    assert launch.count_processes(section(launcher="slurm"), 12) == 6
    assert launch.count_processes(section(launcher="slurm", processes=2), 8) == 4
    monkeypatch.setattr(launch, "usable_gpus", lambda: 0)
    assert launch.count_processes(section(launcher="slurm"), 8) == 2


@pytest.mark.parametrize(
    ("without", "message"),
    [
        (
            "srun",
            "deepspeed.launcher is slurm needs srun, which is not on PATH: run on a node of a SLURM cluster, or set",
        ),
        (
            "SLURM_JOB_ID",
            "deepspeed.launcher is slurm, expected to run within an allocation: `sbatch --wrap 'dvc repro'`",
        ),
        ("SLURMD_NODENAME", "expected to run on a node of allocation 81, not beside it"),
    ],
)
def test_slurm_that_is_not_there_is_a_sentence(monkeypatch, programs, without, message):
    allocated(monkeypatch)
    if without == "srun":
        (programs / "srun").unlink()
    else:
        monkeypatch.delenv(without)
    with pytest.raises(ValueError, match=message):
        launch.count_processes(section(launcher="slurm"), 8)


def test_a_hostfile_is_not_for_slurm():
    with pytest.raises(
        ValueError, match="launcher slurm needs hostfile null .it is 'hosts'.: the allocation says the nodes"
    ):
        section(launcher="slurm", hostfile="hosts")


def test_a_host_that_ssh_does_not_reach_is_named(programs, folder, monkeypatch):
    Path("hosts").write_text("gamma slots=1\nalpha slots=1\n")
    with pytest.raises(
        ValueError, match=r"names gamma, expected one that `ssh gamma hostname -I` reaches .* unknown host gamma"
    ):
        launch.hosts_command(section(hostfile="hosts"), OWN)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ValueError, match="deepspeed.hostfile needs pdsh, which is not on PATH: apt install pdsh"):
        launch.hosts_command(section(hostfile="hosts"), OWN)
