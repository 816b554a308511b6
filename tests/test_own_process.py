"""One process on a CPU trains in the stage's own: as DeepSpeed's launcher would start it, stopped and failed as there."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.helpers.commands import python
from tests.helpers.deepspeed_launcher import started_environments
from tests.helpers.paths import ROOT
from tests.helpers.sections import deepspeed_section as section
from tests.helpers.workspace import make_workspace
from tuneline.train.launch import launcher_arguments, needs_no_launcher
from tuneline.train.launchers.own_process import rank_variables, run_here

LIMIT = 180


@pytest.mark.parametrize(
    ("changes", "processes", "accelerator", "alone"),
    [
        ({}, 1, "cpu", True),
        ({}, 2, "cpu", False),
        ({"launcher": "torchrun"}, 1, "cpu", False),
        ({}, 1, "cuda", False),
    ],
)
def test_which_runs_need_no_launcher(monkeypatch, changes, processes, accelerator, alone):
    monkeypatch.setenv("DS_ACCELERATOR", accelerator)
    assert needs_no_launcher(section(**changes), processes) is alone


def test_the_process_is_told_what_deepspeeds_launcher_would_tell_it(monkeypatch):
    """By DeepSpeed's own launcher, which starts nothing here."""
    from deepspeed.launcher import launch

    started = started_environments(monkeypatch)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("sys.argv", ["deepspeed", *launcher_arguments(section(master_port=29501), 1, ["--scratch=x"])])
    before = {"CUDA_VISIBLE_DEVICES", *os.environ}
    launch.main()
    ours = rank_variables(29501)
    assert {name: started[0].get(name) for name in ours} == ours
    assert set(started[0]) - before <= set(ours)


@pytest.fixture
def handlers():
    """The handlers of signals are as they were at the end, and so is the environment."""
    numbers, variables = (signal.SIGTERM, signal.SIGINT), dict(os.environ)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
    os.environ.clear()
    os.environ.update(variables)


def test_how_training_ends_is_how_it_returns(monkeypatch, handlers):
    def ends(action):
        monkeypatch.setattr("tuneline.train.run.run", action)
        return run_here(None, 29501)

    def fails(_):
        raise ValueError("the loss is no number")

    assert ends(lambda _: None) == 0
    # When it has saved it ends by the signal's status.
    assert ends(lambda _: sys.exit(143)) == signal.SIGTERM
    assert ends(lambda _: sys.exit(130)) == signal.SIGINT
    with pytest.raises(ValueError, match="the loss is no number"):
        ends(fails)
    with pytest.raises(SystemExit, match="3"):
        ends(lambda _: sys.exit(3))


def start(folder: Path) -> subprocess.Popen:
    env = os.environ | {"TUNELINE_SCRATCH": str(folder / "scratch"), "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    with (folder / "log.txt").open("a") as log:
        return subprocess.Popen([sys.executable, "-m", "stages.train"], cwd=folder, env=env, stdout=log, stderr=log)


def with_torch(process: subprocess.Popen) -> int:
    """How many of a process and its descendants have torch's library."""
    family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    return sum("libtorch_cpu" in Path(f"/proc/{pid}/maps").read_text() for pid in family)


@pytest.mark.story
def test_one_process_imports_torch_and_ctrl_c_saves_the_step(llama_base, tmp_path):
    folder = tmp_path / "run"
    steps = {"max_steps": 4000, "epochs": 9999, "save_steps": 5}
    make_workspace(folder, llama_base, {"train": steps, "lora": {"dropout": 0.0}})
    process = start(folder)
    deadline = time.monotonic() + LIMIT
    while not list(folder.glob("scratch/train/*/checkpoint-5/manifest.json")):
        assert process.poll() is None, (folder / "log.txt").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert with_torch(process) == 1
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    said = (folder / "log.txt").read_text()
    assert "train: stopped; run again, it goes on from step " in said
    assert "Traceback" not in said
    assert not (folder / "models/adapter").exists()


def test_answering_and_tokenizing_import_no_library_of_training(llama_base):
    program = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "import torch\n"
        "import stages.tokenize, stages.predict_base\n"
        "from tuneline.models.chat_format import load_prompter\n"
        "from tuneline.models.loading import load_model, load_tokenizer\n"
        "import tuneline.tokenize.encode, tuneline.tokenize.report\n"
        f"load_prompter(load_tokenizer(Path({str(llama_base)!r})))\n"
        "training = {'deepspeed', 'accelerate', 'peft', 'datasets', 'pandas', 'sklearn', 'scipy'}\n"
        "tokenizing = sorted({*training, 'transformers.modeling_utils', 'sympy'} & set(sys.modules))\n"
        "import tuneline.models.decoding.generate, tuneline.evaluate.predict\n"
        f"load_model(Path({str(llama_base)!r}), torch.float32)\n"
        # transformers' losses import scipy, and its Trainer the rest.
        "answering = sorted((training - {'scipy', 'accelerate'}) & set(sys.modules))\n"
        "print(json.dumps([tokenizing, answering]))\n"
    )
    result = python(ROOT, "-c", program, env={"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1]) == [[], []]
