"""Two processes started by each launcher give the same adapter, also after one was killed and the run stopped and resumed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.helpers import slurm_cluster
from tests.helpers.workspace import make_workspace

pytestmark = [pytest.mark.story, pytest.mark.matrix]
LIMIT = 240


def workspace(folder: Path, base: Path, launcher: str) -> Path:
    train = {"max_steps": 40, "epochs": 99, "save_steps": 10, "learning_rate": 0.01}
    changes = {"train": train, "lora": {"dropout": 0.0}, "deepspeed": {"processes": 2, "launcher": launcher}}
    make_workspace(folder, base, changes)
    return folder


def start(folder: Path, **variables: str) -> subprocess.Popen:
    own = {"TUNELINE_SCRATCH": str(folder / "scratch"), "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    with (folder / "log.txt").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "stages.train"], cwd=folder, env=os.environ | own | variables, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip


def said(folder: Path) -> str:
    return (folder / "log.txt").read_text()


def adapter(folder: Path) -> bytes:
    return (folder / "models/adapter/adapter_model.safetensors").read_bytes()


def wait_for_checkpoint(folder: Path, process: subprocess.Popen) -> list[psutil.Process]:
    """The first that this process saves; returns what it has started."""
    began, deadline = time.time(), time.monotonic() + LIMIT
    while not any(path.stat().st_mtime > began for path in folder.glob("scratch/train/*/checkpoint-*/manifest.json")):
        assert process.poll() is None, said(folder)
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return psutil.Process(process.pid).children(recursive=True)


def ranks(family: list[psutil.Process]) -> list[psutil.Process]:
    modules = ("tuneline.train.run", "tuneline.train.launchers.slurm")
    return [one for one in family if one.cmdline()[1:3] == ["-u", "-m"] and one.cmdline()[3] in modules]


@pytest.fixture(scope="module")
def expected(llama_base, tmp_path_factory) -> bytes:
    """What DeepSpeed's launcher gives."""
    folder = workspace(tmp_path_factory.mktemp("deepspeed") / "run", llama_base, "deepspeed")
    assert start(folder).wait(timeout=LIMIT) == 0, said(folder)
    return adapter(folder)


@pytest.mark.parametrize(
    ("launcher", "number"),
    [
        ("torchrun", signal.SIGINT),
        pytest.param("torchrun", signal.SIGTERM, marks=pytest.mark.matrix),
        ("slurm", signal.SIGTERM),
    ],
)
def test_killed_stopped_and_resumed(llama_base, tmp_path, expected, launcher, number):
    folder = workspace(tmp_path / "run", llama_base, launcher)
    variables = slurm_cluster.install(tmp_path / "bin") if launcher == "slurm" else {}
    process = start(folder, **variables)
    family = wait_for_checkpoint(folder, process)
    ranks(family)[-1].kill()
    assert process.wait(timeout=60) == 1
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    assert "Traceback" not in said(folder)
    assert "train: training stopped before its end; `dvc repro` goes on from what was saved" in said(folder)

    process = start(folder, **variables)
    family = wait_for_checkpoint(folder, process)
    process.send_signal(number)
    assert process.wait(timeout=60) == 128 + number, said(folder)
    assert psutil.wait_procs(family, timeout=10)[1] == []
    assert "Traceback" not in said(folder)
    assert "going on from checkpoint-10" in said(folder)
    assert "train: stopped; run again, it goes on from step " in said(folder)

    assert start(folder, **variables).wait(timeout=LIMIT) == 0, said(folder)
    assert "going on from checkpoint-" in said(folder)
    assert adapter(folder) == expected
    assert not list(folder.glob("scratch/train/*"))


def test_tasks_of_srun_end_with_the_stage(llama_base, tmp_path):
    folder = workspace(tmp_path / "run", llama_base, "slurm")
    process = start(folder, **slurm_cluster.install(tmp_path / "bin"))
    family = wait_for_checkpoint(folder, process)
    process.kill()
    process.wait()
    assert psutil.wait_procs(family, timeout=20)[1] == []
