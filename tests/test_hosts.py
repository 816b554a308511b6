"""Two hosts, as docs/distributed.md says: the same adapter as of two processes on one host, and an exact resume after the
loss of a host, of the cable between them, and after a signal."""

import os
import re
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.helpers import two_hosts
from tests.helpers.paths import ROOT
from tests.helpers.pipeline import set_param
from tests.helpers.workspace import make_workspace
from tuneline.train.trainer.heartbeat import SILENT_SECONDS

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
    assert "[INFO]" not in said(folder)
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


def trains(hosts: two_hosts.Hosts, host: str) -> list[int]:
    """Training processes on a host."""
    return [pid for pid in hosts.processes(host) if psutil.pid_exists(pid) and "tuneline.train.run" in cmdline(pid)]


def stage_of(hosts: two_hosts.Hosts) -> int:
    """Its pid, on alpha."""
    return next(pid for pid in hosts.processes("alpha") if "stages.train" in cmdline(pid))


def cmdline(pid: int) -> list[str]:
    try:
        return psutil.Process(pid).cmdline()
    except psutil.NoSuchProcess:
        return []


def test_a_pulled_cable_ends_the_run_on_both_hosts_which_goes_on_to_the_same_bytes(
    hosts, one_host, llama_base, tmp_path
):
    folder = workspace(tmp_path / "run", llama_base, hostfile="hosts")
    process = start(hosts, folder)
    wait_for(folder, "scratch/train/*/checkpoint-10/manifest.json", process)
    hosts.cut("beta")
    try:
        # The minute after which a host is lost, and that after which ssh is.
        assert process.wait(timeout=2 * SILENT_SECONDS) == 1, said(folder)
        assert trains(hosts, "alpha") == trains(hosts, "beta") == []
    finally:
        hosts.mend("beta")
    assert "Traceback" not in said(folder)
    assert "host 2 of 2 has said nothing for 60 seconds, it or the connection to it is lost" in said(folder)
    assert "train: training stopped before its end" in said(folder).strip().splitlines()[-1]
    assert start(hosts, folder).wait(timeout=LIMIT) == 0, said(folder)
    assert "going on from checkpoint-" in said(folder)
    assert adapter(folder) == one_host


def test_torchs_launcher_over_hosts_stops_at_a_signal_and_goes_on_to_the_same_bytes(
    hosts, one_host, llama_base, tmp_path
):
    folder = workspace(tmp_path / "run", llama_base, hostfile="hosts", launcher="torchrun")
    process = start(hosts, folder)
    wait_for(folder, "scratch/train/*/checkpoint-5/manifest.json", process)
    os.kill(stage_of(hosts), signal.SIGTERM)
    assert process.wait(timeout=60) == 143, said(folder)
    assert trains(hosts, "alpha") == trains(hosts, "beta") == []
    assert re.search(r"train: stopped; run again, it goes on from step \d+$", said(folder).strip()), said(folder)
    assert "Traceback" not in said(folder)
    assert start(hosts, folder).wait(timeout=LIMIT) == 0, said(folder)
    assert "going on from checkpoint-" in said(folder)
    assert adapter(folder) == one_host


def test_nothing_goes_on_without_the_stage(hosts, llama_base, tmp_path):
    folder = workspace(tmp_path / "run", llama_base, hostfile="hosts")
    process = start(hosts, folder)
    wait_for(folder, "scratch/train/*/checkpoint-10/manifest.json", process)
    os.kill(stage_of(hosts), signal.SIGKILL)
    process.wait(timeout=10)
    deadline = time.monotonic() + 60
    while trains(hosts, "alpha") or trains(hosts, "beta"):
        assert time.monotonic() < deadline, said(folder)
        time.sleep(0.2)
    assert not list(folder.glob("scratch/train/*/checkpoint-30")), "it stopped, and did not come to its end"


def steps_of_the_page() -> list[str]:
    """The numbered steps for several hosts."""
    text = (ROOT / "docs/distributed.md").read_text(encoding="utf-8")
    return re.findall(
        r"^\d\. (.*(?:\n   .*)*)", text.partition("## Several hosts")[2].partition("\n## ")[0], re.MULTILINE
    )


def test_the_steps_of_the_page(hosts, project):
    """Step by step, each with the words that stand there; the hosts have one slot instead of four."""
    share, hostfile, environment_file, run = steps_of_the_page()
    # One file system at the same path, and ssh without a password: as these hosts are.
    assert "at the same path" in share
    assert "without a password" in share
    name, *lines = re.findall(r"`([^`]+)`", hostfile)
    assert (name, lines) == ("hosts", ["alpha slots=4", "beta slots=4"])
    (project / name).write_text("".join(f"{line.replace('4', '1')}\n" for line in lines))
    file, line = re.findall(r"`([^`]+)`", environment_file)
    own = {"TUNELINE_SCRATCH": os.environ["TUNELINE_SCRATCH"], "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    lines = [line.replace("eth1", two_hosts.CABLE), *(f"{key}={value}" for key, value in own.items())]
    (project / file).write_text("".join(f"{one}\n" for one in lines))
    key, port, command, where = re.findall(r"`([^`]+)`", run)
    assert (key, port, command, where) == (
        "deepspeed.hostfile: hosts", "deepspeed.master_port: 29500", "dvc repro", "alpha",
    )  # fmt: skip
    set_param(project, "deepspeed", hostfile="hosts", master_port=29500)
    path = {"PATH": f"{hosts.folder / 'bin'}:{Path(sys.executable).parent}:{two_hosts.search_path()}", "PYTHONPATH": ""}
    variables = dict(one.split("=", 1) for one in lines) | path
    log = project.parent / "log.txt"
    process = hosts.run(where, *command.split(), "train", cwd=project, env=variables, log=log)
    assert process.wait(timeout=LIMIT) == 0, log.read_text()
    assert "train: 2 process(es)" in log.read_text()
    assert (project / "models/adapter/adapter_model.safetensors").is_file()
