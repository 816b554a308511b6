"""Training that is killed, at any moment and whatever dies, ends with the same bytes; one process or several, any ZeRO."""

import contextlib
import csv
import functools
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.helpers.workspace import make_workspace
from tuneline.train.checkpoints import newest_complete

pytestmark = pytest.mark.story

SETUPS = [(stage, processes) for processes in (1, 2) for stage in (0, 1, 2, 3)]
"""ZeRO stage and processes."""
EXACT = [(0, 1), (1, 1), (2, 1), (1, 2)]
"""Of these, resumed runs are compared byte for byte."""
LIMIT = 180


def workspace(folder: Path, base: Path, stage: int, processes: int, **train) -> Path:
    steps = {"max_steps": 30, "epochs": 99, "save_steps": 5, "learning_rate": 0.01}
    changes = {
        "train": steps | train,
        "lora": {"dropout": 0.0},
        "deepspeed": {"zero_stage": stage, "processes": processes},
    }
    make_workspace(folder, base, changes)
    return folder


def start(folder: Path) -> subprocess.Popen:
    """`python -m stages.train`, as dvc starts it, its output in a file."""
    env = os.environ | {"TUNELINE_SCRATCH": str(folder / "scratch"), "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    with (folder / "log.txt").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "stages.train"], cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True
        )


def run(folder: Path) -> str:
    """Train to the end; returns what was printed."""
    before = (folder / "log.txt").stat().st_size if (folder / "log.txt").exists() else 0
    status = start(folder).wait(timeout=LIMIT)
    said = (folder / "log.txt").read_bytes()[before:].decode()
    assert status == 0, said[-4000:]
    return said


def family(process: subprocess.Popen) -> list[psutil.Process]:
    try:
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill_one(process: subprocess.Popen, chance: random.Random) -> None:
    """kill -9 one of its processes; all of them end."""
    members = family(process)
    if members:
        victim = chance.choice(members)
        # It may have ended by itself.
        with contextlib.suppress(psutil.ZombieProcess):
            print(f"kill -9 {' '.join(victim.cmdline()[1:4])}", flush=True)
        victim.kill()
    process.wait(timeout=60)
    _, alive = psutil.wait_procs(members, timeout=10)
    assert alive == []


def adapter(folder: Path) -> bytes:
    return (folder / "models/adapter/adapter_model.safetensors").read_bytes()


def curve(folder: Path) -> list[float]:
    with (folder / "metrics/loss.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def straight(llama_base, tmp_path_factory) -> Callable[[int, int], Path]:
    """A run that nobody killed, of a ZeRO stage and number of processes; made when first asked for."""
    root = tmp_path_factory.mktemp("straight")

    @functools.cache
    def made(stage: int, processes: int) -> Path:
        folder = workspace(root / f"{stage}-{processes}", llama_base, stage, processes)
        run(folder)
        return folder

    return made


@pytest.mark.parametrize(
    "setup",
    [pytest.param(setup, marks=() if setup in ((1, 1), (3, 2)) else pytest.mark.matrix) for setup in SETUPS],
)
def test_one_process_and_two_learn_the_same_under_any_zero(straight, setup):
    plain = curve(straight(0, 1))
    assert len(plain) == 30
    assert plain[-1] < plain[0] - 0.1
    assert curve(straight(*setup)) == pytest.approx(plain, abs=1e-4)


@pytest.mark.parametrize(
    "setup", [pytest.param(setup, marks=pytest.mark.matrix if setup != (1, 1) else ()) for setup in EXACT]
)
def test_a_torn_checkpoint_is_never_used(llama_base, straight, tmp_path, setup):
    """Killed after two checkpoints, every file of the newest deleted, cut and flipped: the one before is taken."""
    folder = workspace(tmp_path / "run", llama_base, *setup)
    kill_after_checkpoints(folder, 2)
    (scratch,) = folder.glob("scratch/train/*")
    newest = newest_complete(scratch)
    assert newest is not None
    other = shutil.copytree(folder, tmp_path / "other", symlinks=True)
    files = sorted(path.relative_to(newest) for path in newest.rglob("*") if path.is_file())
    assert len(files) > 5
    for name in files:
        for how in ("deleted", "cut", "flipped"):
            copy = tmp_path / "torn"
            shutil.copytree(scratch, copy)
            tear(copy / newest.name / name, how)
            found = newest_complete(copy)
            assert found is None or found.name != newest.name, f"{name} {how}"
            shutil.rmtree(copy)
    tear(newest / files[0], "flipped")
    assert f"{newest.name} is not used" in run(folder)
    assert adapter(folder) == adapter(straight(*setup))
    assert not list(folder.glob("scratch/train/*")), "the scratch is removed once the adapter is in place"
    # Another parameter never goes on from this run.
    text = (other / "params.yaml").read_text()
    (other / "params.yaml").write_text(text.replace("learning_rate: 0.01", "learning_rate: 0.011"))
    assert "from the start" in run(other)


def kill_after_checkpoints(folder: Path, count: int) -> None:
    process = start(folder)
    deadline = time.monotonic() + LIMIT
    while len(list(folder.glob("scratch/train/*/checkpoint-*/manifest.json"))) < count:
        assert process.poll() is None, (folder / "log.txt").read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    kill_one(process, random.Random(1))


def tear(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "deleted":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        place = len(content) // 3
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])


def killed_again_and_again(folder: Path, seed: int, kills: int, seconds: float) -> None:
    chance = random.Random(seed)
    print(f"seed {seed}")
    for _ in range(kills):
        process = start(folder)
        time.sleep(chance.uniform(0, seconds))
        kill_one(process, chance)
        if (folder / "models/adapter").exists():
            shutil.rmtree(folder / "models/adapter")
    run(folder)


def test_killed_at_random_moments(llama_base, straight, tmp_path):
    folder = workspace(tmp_path / "run", llama_base, 1, 1)
    killed_again_and_again(folder, seed=int(time.time()) % 100_000, kills=2, seconds=11)
    assert adapter(folder) == adapter(straight(1, 1))
    assert curve(folder) == curve(straight(1, 1))


@pytest.mark.matrix
@pytest.mark.parametrize("setup", EXACT)
def test_killed_a_hundred_times(llama_base, straight, tmp_path, setup):
    for number in range(5):
        folder = workspace(tmp_path / str(number), llama_base, *setup)
        killed_again_and_again(folder, seed=int(time.time()) % 100_000, kills=5, seconds=12)
        assert adapter(folder) == adapter(straight(*setup))


def test_a_disk_that_is_full_loses_checkpoints_and_not_the_run(llama_base, straight, tmp_path):
    """Files may not grow beyond 30 KB, which optimizer states do: training says so, and goes on."""
    folder = workspace(tmp_path / "run", llama_base, 1, 1)
    limit = "import resource, signal, runpy; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000));"
    limit += "runpy.run_module('stages.train', run_name='__main__', alter_sys=True)"
    env = os.environ | {"TUNELINE_SCRATCH": str(folder / "scratch"), "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", limit], cwd=folder, env=env, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "could not be written" in result.stderr
    assert "Training goes on" in result.stderr
    assert adapter(folder) == adapter(straight(1, 1))
