"""Two runs at once: in one folder the second is refused by name, in two that share caches both end well."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.commands import dvc
from tests.helpers.paths import ROOT
from tests.helpers.workspace import make_workspace
from tuneline.runtime import locks
from tuneline.runtime.locks import exclusive_lock, temporary_folder

STAGES = ("fetch", "base", "convert", "tokenize", "train", "predict_base", "evaluate", "report", "export")
REFUSED = "is run in this folder by another process now: process "


def start(folder: Path, stage: str, **variables: str) -> subprocess.Popen:
    env = os.environ | {"PYTHONPATH": "", "DS_ACCELERATOR": "cpu", "TUNELINE_SHARE_DEVICES": "1"} | variables
    return subprocess.Popen(
        [sys.executable, "-m", f"stages.{stage}"], cwd=folder, env=env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def outputs(folder: Path) -> dict[str, bytes]:
    """What the stages leave but facts of the machine, and all that is half-made."""
    files = [path for top in ("data", "models", "metrics") for path in (folder / top).rglob("*") if path.is_file()]
    names = {path.relative_to(folder).as_posix(): path for path in files if path.name != ".gitignore"}
    return {name: path.read_bytes() for name, path in names.items() if not name.startswith("metrics/speed/")}


@pytest.mark.matrix
def test_every_stage_twice_at_the_same_moment(project):
    dvc(project, "repro")
    before = outputs(project)
    refused = 0
    for stage in STAGES:
        both = [start(project, stage), start(project, stage)]
        said = [process.communicate(timeout=240) for process in both]
        statuses = sorted(process.returncode for process in both)
        # One may have ended when the other begins.
        assert statuses in ([0, 0], [0, 1]), (stage, said)
        for process, (_, error) in zip(both, said, strict=True):
            if process.returncode:
                other = next(one for one in both if one is not process)
                assert error.startswith(f"{stage}: the stage {stage} {REFUSED}{other.pid} in {project}, since ")
                assert error.endswith(f"wait until it ends, or stop it (`kill {other.pid}`), and run again\n")
                assert error.count("\n") == 1
                refused += 1
        assert outputs(project) == before, stage
    assert refused >= len(STAGES) // 2


def test_a_neighbour_that_ends_meanwhile_stops_nobody(tmp_path, monkeypatch):
    """Its temporary folder goes between two looks at it."""
    monkeypatch.setattr(locks.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(locks.tempfile, "tempdir", str(tmp_path))
    left = [tmp_path / f"{locks.PREFIX}{name}" for name in ("a", "b")]
    for folder in left:
        folder.mkdir()
        (folder / locks.LOCK).touch()
    real = locks._take

    def gone(path):
        if path.parent == left[0]:
            shutil.rmtree(path.parent)
        return real(path)

    monkeypatch.setattr(locks, "_take", gone)
    with temporary_folder() as folder:
        assert list(tmp_path.iterdir()) == [folder]


def test_who_waits_gets_the_lock_of_a_folder_that_its_holder_removed(tmp_path, monkeypatch):
    lock = tmp_path / "made/.lock"
    with exclusive_lock(lock, "it is made") as first:
        monkeypatch.setattr(locks.time, "sleep", lambda seconds: shutil.rmtree(lock.parent))
        with exclusive_lock(lock, "it is made", wait=True) as second:
            assert lock.is_file()
    assert (first, second) == ("", "")


@pytest.mark.parametrize("stage", ["fetch", "convert", "tokenize"])
def test_a_stage_that_goes_on_is_not_begun_again(workspace, stage):
    folder = workspace()
    with exclusive_lock(folder / f"metrics/.{stage}.lock", "x"):
        process = start(folder, stage, PYTHONPATH=str(ROOT))
        said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert said[1].startswith(f"{stage}: the stage {stage} {REFUSED}{os.getpid()} in {folder}, since ")
    assert said[1].count("\n") == 1


@pytest.mark.story
@pytest.mark.matrix
def test_two_work_trees_train_the_same_with_one_scratch(llama_base, tmp_path):
    """Checkpoints are of what determines the result: the second waits for the first, and has the same bytes."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        make_workspace(folder, llama_base, {"train": {"max_steps": 60, "epochs": 99}})
    both = [start(folder, "train", TUNELINE_SCRATCH=str(tmp_path / "scratch")) for folder in folders]
    said = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    waited = [out for out, _ in said if "waiting: the same training" in out]
    assert len(waited) <= 1
    first, second = (outputs(folder) for folder in folders)
    assert first == second
    assert not list((tmp_path / "scratch/train").iterdir())


CACHE = """
import sys, time
from pathlib import Path
from tuneline.runtime.atomic import cached_output
folder = Path(sys.argv[1])
with cached_output(folder / "made") as partial:
    if partial:
        with (folder / "makers").open("a") as file:
            file.write("x")
        partial.mkdir()
        for number in range(20):
            (partial / str(number)).write_text("1")
            time.sleep(0.02)
print(len(list((folder / "made").iterdir())))
"""


def test_a_shared_cache_is_made_once_and_the_others_wait(tmp_path):
    makers = [
        subprocess.Popen([sys.executable, "-c", CACHE, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    said = [process.communicate(timeout=60)[0] for process in makers]
    assert [text.splitlines()[-1] for text in said] == ["20"] * 4
    assert (tmp_path / "makers").read_text() == "x"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "makers"]


def test_a_lock_goes_from_one_to_the_next_and_never_to_two(tmp_path):
    """Its file is removed each time: who waits must not hold one that is gone."""
    program = (
        "import sys; from pathlib import Path; from tuneline.runtime.locks import exclusive_lock\n"
        "counter = Path(sys.argv[1], 'counter')\n"
        "for _ in range(100):\n"
        "    with exclusive_lock(counter.with_name('lock'), 'x', wait=True):\n"
        "        counter.write_text(str(int(counter.read_text()) + 1))\n"
    )
    (tmp_path / "counter").write_text("0")
    both = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, stdout=subprocess.DEVNULL)
        for _ in range(3)
    ]
    assert [process.wait(timeout=120) for process in both] == [0, 0, 0]
    assert (tmp_path / "counter").read_text() == "300"
    assert not (tmp_path / "lock").exists()
