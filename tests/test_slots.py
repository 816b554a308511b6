"""Stages that run at once share GPUs and cores: each takes its own, waits with a sentence, and gives back what it had."""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.stages import PATHS, link_code
from tuneline.runtime import slots
from tuneline.runtime.params import section_name
from tuneline.runtime.slots import Slot, claimed, gpu_slots, stage_devices, training_devices, visible_names
from tuneline.train import launch
from tuneline.train.sections import load_config

TWO = [Slot("GPU 0", "gpu-aa"), Slot("GPU 1", "gpu-bb")]
STAGE = """
import os, sys, time
from tuneline.runtime import slots
slots.gpu_slots = lambda: [slots.Slot("GPU 0", "gpu-aa"), slots.Slot("GPU 1", "gpu-bb")]
with slots.stage_devices(sys.argv[1]):
    print("has", os.environ.get("CUDA_VISIBLE_DEVICES", "all"), flush=True)
    time.sleep(60)
"""
DRIVER = """
#include <stdlib.h>
#include <string.h>
int cuInit(unsigned flags) { return flags; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int index) { *device = index + 7; return 0; }
int cuDeviceGetUuid_v2(unsigned char *uuid, int device) { memset(uuid, device, 16); return 0; }
"""


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """One with two GPUs, which nobody uses."""
    monkeypatch.setenv("TUNELINE_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("DS_ACCELERATOR", "CUDA_VISIBLE_DEVICES", slots.SHARE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(slots, "gpu_slots", lambda: TWO)


@pytest.fixture
def start(tmp_path):
    """Start a stage in a process and a folder of its own; returns it when it has said something."""
    started = []

    def one(stage: str, says: str, **variables: str) -> subprocess.Popen:
        folder = tmp_path / f"experiment {{{len(started)}}}"
        folder.mkdir()
        process = subprocess.Popen(
            [sys.executable, "-c", STAGE, stage],
            cwd=folder,
            env=os.environ | variables,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline().strip() == says.format(*(other.pid for other in started))
        return process

    yield one
    for process in started:
        process.kill()
        process.wait()


def test_two_have_a_card_each_the_third_waits_and_has_that_of_the_killed_one(start, tmp_path):
    first, second = start("base", "has 0"), start("export", "has 1")
    folder = f"{tmp_path}/experiment"
    third = start(
        "base",
        f"base: waiting for GPU 0, which process {{0}} in {folder} {{{{0}}}} uses; GPU 1, which process {{1}} in {folder} "
        "{{1}} uses (TUNELINE_SHARE_DEVICES=1 would not wait)",
    )
    start("export", "has 0", TUNELINE_SHARE_DEVICES="1")
    assert third.poll() is None
    second.send_signal(signal.SIGKILL)
    second.wait()
    assert third.stdout.readline() == "has 1\n"
    assert first.poll() is None


def test_answering_takes_all_that_are_free(start):
    first = start("predict_base", "has all")
    first.kill()
    first.wait()
    start("base", "has 0")
    start("evaluate", "has 1")


def test_the_names_are_those_that_the_user_gave(start):
    start("base", "has GPU-88", CUDA_VISIBLE_DEVICES="GPU-88, GPU-99")
    start("base", "has GPU-99", CUDA_VISIBLE_DEVICES="GPU-88, GPU-99")


def test_training_waits_for_as_many_as_it_needs_and_takes_no_fewer(start, capsys, monkeypatch):
    with training_devices(2) as names:
        assert names == ["0", "1"]
    holder = start("base", "has 0")
    with training_devices(1) as names:
        assert names == ["1"]
    monkeypatch.setattr(time, "sleep", lambda _: holder.kill() or holder.wait())
    with training_devices(2) as names:
        assert names == ["0", "1"]
    said = capsys.readouterr().out
    assert said.startswith(f"train: waiting until 2 are free: GPU 0, which process {holder.pid} in ")


def test_on_a_cpu_a_slot_is_a_core_for_each_thread(monkeypatch, capsys):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3, 5})
    folder = slots.private_folder("slots", slots.socket.gethostname())

    def busy() -> list[str]:
        found = []
        for path in folder.glob("core-*"):
            try:
                with claimed("test", [Slot("", path.name)], 1):
                    pass
            except InterruptedError:
                found.append(path.name)
        return sorted(found)

    def interrupt(_):
        raise InterruptedError

    monkeypatch.setattr(time, "sleep", interrupt)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with training_devices(2) as names:
        assert names == []
        assert busy() == ["core-2", "core-3"]
        with stage_devices("evaluate"):
            assert busy() == ["core-2", "core-3", "core-5"]
    monkeypatch.delenv("OMP_NUM_THREADS")
    with stage_devices("export"):
        assert busy() == ["core-2", "core-3", "core-5"]
        with pytest.raises(InterruptedError), training_devices(1):
            pass
    assert busy() == []
    assert (
        "train: waiting until 3 are free: core 2 of the CPU, core 3 of the CPU, core 5 of the CPU, which process "
        in (capsys.readouterr().out)
    )


def test_a_stage_takes_a_card_before_it_begins(start, tmp_path):
    """By the way that every stage goes, here with a main() that says what it sees."""
    start("base", "has 0")
    folder = tmp_path / "project"
    folder.mkdir()
    link_code(folder)
    shutil.copy(ROOT / "params.yaml", folder)
    program = STAGE.partition("with")[0] + (
        "from tuneline.runtime.stage import run_stage\n"
        "run_stage(lambda stage: print('sees', os.environ['CUDA_VISIBLE_DEVICES']), None)\n"
    )
    (folder / "export.py").write_text(program)
    variables = os.environ | {"DS_ACCELERATOR": "cuda"}
    result = subprocess.run(
        [sys.executable, "export.py"], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[1] == "sees 1"


@pytest.mark.parametrize("launcher", ["deepspeed", "torchrun"])
def test_training_is_told_the_cards_that_it_has(start, monkeypatch, tmp_path, params, launcher):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3")
    monkeypatch.setenv("PET_LOG_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    params["deepspeed"] |= {"launcher": launcher, "processes": 1}
    config = load_config(lambda section: section.model_validate(params[section_name(section)]))
    told: list[list[str]] = []
    monkeypatch.setattr(launch, f"_run_{launcher}", lambda arguments, _: told.append(arguments))
    monkeypatch.setattr(launch, "_take_signals", lambda _: None)
    start("base", "has 5")
    launch.launch_training(config, 1, PATHS)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    if launcher == "deepspeed":
        (world,) = [word.partition("=")[2] for word in told[0] if word.startswith("--world_info=")]
        assert json.loads(base64.urlsafe_b64decode(world)) == {"localhost": ["3"]}


def test_a_stage_that_computes_nothing_takes_nothing(tmp_path):
    with stage_devices("convert"), stage_devices("code"):
        assert not (tmp_path / "scratch").exists()


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc, for a library that stands in for CUDA's driver")
def test_cards_are_known_by_their_uuid(monkeypatch, tmp_path):
    monkeypatch.undo()
    (tmp_path / "driver.c").write_text(DRIVER)
    library = tmp_path / "libcuda.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(tmp_path / "driver.c")], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    monkeypatch.setattr(slots, "DEVICE", library)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, 3")
    assert gpu_slots() == [Slot("GPU 5", "gpu-" + "07" * 16), Slot("GPU 3", "gpu-" + "08" * 16)]
    monkeypatch.setattr(slots, "DEVICE", Path("/nowhere"))
    assert gpu_slots() == []


def test_names_without_the_variable_are_numbers(monkeypatch):
    assert visible_names(2) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1,MIG-2,MIG-3")
    assert visible_names(2) == ["MIG-1", "MIG-2"]
