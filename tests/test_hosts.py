"""Two hosts, as README says: the same adapter as of two processes on one, and an exact resume after the loss of a host."""

import os
import sys
import time
from pathlib import Path

import pytest

from tests.helpers import two_hosts
from tests.helpers.workspace import make_workspace

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.skipif(two_hosts.missing() is not None, reason=f"two hosts: {two_hosts.missing()}"),
]
LIMIT = 300
HOSTFILE = "alpha slots=1\nbeta slots=1\n"


def workspace(folder: Path, base: Path, **deepspeed) -> Path:
    train = {"max_steps": 30, "epochs": 99, "save_steps": 5, "learning_rate": 0.01}
    make_workspace(folder, base, {"train": train, "lora": {"dropout": 0.0}, "deepspeed": deepspeed})
    (folder / "hosts").write_text(HOSTFILE)
    # What DeepSpeed hands on to the hosts, by its documentation ("Multi-node environment variables").
    (folder / ".deepspeed_env").write_text(
        f"GLOO_SOCKET_IFNAME={two_hosts.CABLE}\nDS_ACCELERATOR=cpu\nOMP_NUM_THREADS=1\nTUNELINE_SCRATCH={folder / 'scratch'}\n"
    )
    return folder


def environment(folder: Path) -> dict[str, str]:
    return {"TUNELINE_SCRATCH": str(folder / "scratch"), "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": two_hosts.CABLE}  # fmt: skip


def start(hosts: two_hosts.Hosts, folder: Path):
    """`python -m stages.train` on alpha."""
    return hosts.run(
        "alpha", sys.executable, "-m", "stages.train", cwd=folder, env=environment(folder), log=folder / "log.txt"
    )


def said(folder: Path) -> str:
    return (folder / "log.txt").read_text()


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    with two_hosts.two_hosts(tmp_path_factory.mktemp("hosts") / "ssh") as up:
        yield up


@pytest.fixture(scope="module")
def one_host(hosts, llama_base, tmp_path_factory) -> bytes:
    """The adapter of two processes on one host."""
    folder = workspace(tmp_path_factory.mktemp("one") / "run", llama_base, processes=2)
    assert start(hosts, folder).wait(timeout=LIMIT) == 0, said(folder)
    return adapter(folder)


def adapter(folder: Path) -> bytes:
    return (folder / "models/adapter/adapter_model.safetensors").read_bytes()


def wait_for(folder: Path, pattern: str, process) -> None:
    deadline = time.monotonic() + LIMIT
    while not list(folder.glob(pattern)):
        assert process.poll() is None, said(folder)
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_two_hosts_train_what_two_processes_on_one_do(hosts, one_host, llama_base, tmp_path):
    folder = workspace(tmp_path / "run", llama_base, hostfile="hosts")
    assert start(hosts, folder).wait(timeout=LIMIT) == 0, said(folder)
    assert "2 process(es)" in said(folder)
    assert adapter(folder) == one_host


def test_a_host_that_is_lost_ends_the_run_which_goes_on_to_the_same_bytes(hosts, one_host, llama_base, tmp_path):
    folder = workspace(tmp_path / "run", llama_base, hostfile="hosts")
    process = start(hosts, folder)
    wait_for(folder, "scratch/train/*/checkpoint-10/manifest.json", process)
    for pid in hosts.processes("beta"):
        os.kill(pid, 9)
    assert process.wait(timeout=60) != 0
    assert "Traceback" not in said(folder)
    assert "train: " in said(folder).strip().splitlines()[-1]
    assert not (folder / "models/adapter").exists()
    assert start(hosts, folder).wait(timeout=LIMIT) == 0, said(folder)
    assert "going on from checkpoint-" in said(folder)
    assert adapter(folder) == one_host
