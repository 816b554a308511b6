"""A stage that is stopped, at whatever: one sentence, a shell's status, and nothing left behind."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.helpers.commands import dvc
from tests.helpers.interrupted import STAGE
from tests.helpers.paths import ROOT
from tuneline.runtime.code import code_hash, to_text

SENTENCE = "fit: stopped; run again, it goes on from the stage fit\n"
CODE = ("stages/__init__.py", "stages/fit.py")
MOMENTS = ["import", "swallow", "long_call", "program", "workers", "children", "temporary"]
"""What goes on when the signal comes: an import that swallows exceptions, code that does, one call of a library, …"""


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """Start the stage `fit`, which stops at a moment; call it for the process, which is at it."""
    monkeypatch.setenv("TUNELINE_SCRATCH", str(tmp_path / "scratch"))
    folder = tmp_path / "project"
    (folder / "stages").mkdir(parents=True)
    (folder / "code").mkdir()
    (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "stages/__init__.py").write_text((ROOT / "stages/__init__.py").read_text(encoding="utf-8"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.chdir(folder)
    started = []

    def start(at: str, **options) -> subprocess.Popen:
        Path("stages/fit.py").write_text(STAGE.format(at=at), encoding="utf-8")
        Path("code/fit.txt").write_text(to_text({name: code_hash(Path(name)) for name in CODE}))
        Path("ready").unlink(missing_ok=True)
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "stages.fit"], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True, preexec_fn=take_sigint, **options,
            )
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not Path("ready").exists():
            assert started[-1].poll() is None, started[-1].communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def take_sigint() -> None:
    # A shell without job control has what it starts in the background ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def left(folder: Path) -> set[str]:
    """Files that were made, also half-made ones, but for what was there before."""
    files = [path for name in ("data", "models", "metrics") for path in (folder / name).rglob("*")]
    return {path.relative_to(folder).as_posix() for path in files if path.is_file() or path.name.startswith(".")}


def semaphores(pid: int) -> list[Path]:
    """Files of the semaphores of a process."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return [Path(name) for name in set(re.findall(r"/dev/shm/sem\S+", maps))]


@pytest.mark.parametrize(
    ("at", "number"),
    [*((at, number) for at in MOMENTS for number in (signal.SIGINT, signal.SIGTERM)), ("workers", signal.SIGHUP)],
)
def test_a_signal_ends_a_stage_with_one_sentence_and_nothing_stays_behind(begin, tmp_path, at, number):
    process = begin(at)
    used = semaphores(process.pid)
    assert bool(used) == (at == "workers")
    family = psutil.Process(process.pid).children(recursive=True)
    # A terminal sends it to all of them.
    os.killpg(process.pid, number)
    said = process.communicate(timeout=20)
    assert (process.returncode, said[1]) == (128 + number, SENTENCE)
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []
    assert left(Path.cwd()) == set()
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not any(path.exists() for path in used)


def test_a_second_signal_on_the_heels_of_the_first_changes_nothing(begin):
    """As when a terminal sends one to all, and who started the stage hands its own on."""
    for pause in (0, 0.001, 0.01):
        process = begin("workers")
        process.send_signal(signal.SIGTERM)
        time.sleep(pause)
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=20)[1] == SENTENCE
        assert process.returncode in (129, 143)
        assert left(Path.cwd()) == set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_outputs_go_into_place_all_or_none(begin, number):
    process = begin("commit")
    process.send_signal(number)
    assert process.communicate(timeout=20)[1] == SENTENCE
    assert process.returncode == 128 + number
    assert {"data/processed/rows.jsonl", "models/adapter/weights"} <= left(Path.cwd())
    assert not any(".partial" in name or ".lock" in name for name in left(Path.cwd()))


def test_what_a_killed_run_left_is_removed_by_the_next_one_which_says_so(begin, tmp_path):
    process = begin("temporary")
    process.kill()
    process.wait()
    assert {"models/.adapter.partial", "metrics/.fit.lock"} <= left(Path.cwd())
    (unfinished,) = (tmp_path / "tmp").iterdir()
    # A run beside it leaves alone what is another one's.
    second = begin("temporary")
    assert not unfinished.exists()
    third = subprocess.run(
        [sys.executable, "-c", "from tuneline.runtime.locks import temporary_folder\nwith temporary_folder(): pass"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert third.stderr == ""
    (folder,) = (tmp_path / "tmp").iterdir()
    assert len(list(folder.rglob("file"))) == 1
    second.send_signal(signal.SIGTERM)
    said, _ = second.communicate(timeout=20)
    assert f"fit: the last run (process {process.pid} in {Path.cwd()}, since " in said
    assert "was killed before its end" in said
    assert left(Path.cwd()) == set()


def test_signals_that_were_ignored_stay_ignored(begin):
    """nohup, and what a script starts in the background."""
    process = subprocess.Popen(
        ["nohup", sys.executable, "-c",
         "import signal, time; from tuneline.runtime.stopping import end_on_signals; end_on_signals('fit');"
         "print('up', flush=True); signal.raise_signal(signal.SIGHUP); time.sleep(0.2); print('alive')"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.communicate(timeout=20)[0] == "up\nalive\n"


def test_a_stage_whose_dvc_is_killed_leaves_nothing(begin, tmp_path):
    shell = ["sh", "-c", f"{sys.executable} -m stages.fit; true"]
    program = f"import os, subprocess; subprocess.run({shell}, env=os.environ | {{'DVC_STAGE': 'fit'}})"
    Path("stages/fit.py").write_text(STAGE.format(at="workers"), encoding="utf-8")
    Path("code/fit.txt").write_text(to_text({name: code_hash(Path(name)) for name in CODE}))
    with Path("log").open("w") as log:
        dvc = subprocess.Popen(
            [sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=log, stderr=log,
        )  # fmt: skip
    deadline = time.monotonic() + 60
    while not Path("ready").exists():
        assert time.monotonic() < deadline, Path("log").read_text()
        time.sleep(0.01)
    family = psutil.Process(dvc.pid).children(recursive=True)
    assert len(family) >= 3
    dvc.kill()
    dvc.wait()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    assert "fit: stopped, since dvc has ended; run again, it goes on from the stage fit" in Path("log").read_text()
    assert left(Path.cwd()) == set()
    assert list((tmp_path / "tmp").iterdir()) == []


def takes_signals(process: subprocess.Popen) -> bool:
    """Whether Python has come to the stage: before, what starts it answers."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")), 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


@pytest.mark.matrix
def test_every_stage_stopped_at_random_moments(project):
    """As a terminal does it: to the stage and all that it started. Outputs are as they were, or not there."""
    dvc(project, "repro")
    seed = int(time.time()) % 100_000
    print(f"seed {seed}")
    chance = random.Random(seed)
    stopped = 0
    for stage in ("fetch", "base", "convert", "tokenize", "train", "predict_base", "evaluate", "report", "export"):
        took = json.loads((project / f"metrics/speed/{stage}.json").read_text())["wall_seconds"]
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process = subprocess.Popen(
                [sys.executable, "-m", f"stages.{stage}"], cwd=project, env=os.environ | {"PYTHONPATH": ""}, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=take_sigint,
            )  # fmt: skip
            while process.poll() is None and not takes_signals(process):
                time.sleep(0.002)
            time.sleep(chance.uniform(0, took + 2))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            said = process.communicate(timeout=60)[1]
            # As Python ends, no handler of ours is there any more.
            ended = process.returncode == 0 or (process.returncode, said) == (-number, "")
            assert ended or process.returncode == 128 + number, (stage, number, said)
            if not ended:
                stopped += 1
                assert said.splitlines()[-1].startswith(f"{stage}: stopped; run again, it goes on from "), said
                assert "Traceback" not in said
                assert "leaked" not in said
            assert not [
                path for path in left(project) if path.split("/")[-1].startswith(".") and "gitignore" not in path
            ]
        # The next stage needs it whole.
        dvc(project, "repro", stage)
    assert stopped > 8
