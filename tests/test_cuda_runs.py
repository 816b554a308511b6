"""Training, evaluation and export on CUDA tensors without a GPU: torch's CUDA build, a driver whose devices compute nothing.

All of torch's, DeepSpeed's and NCCL's own checks and choices are real; the values are those of CPU kernels (tests/no_gpu).
"""

import csv
import json
import shutil
from pathlib import Path

import pytest

from tests.helpers.many_trainings import train_all
from tests.helpers.methods import METHODS
from tests.helpers.tiny_models import canonical, make_base
from tests.helpers.workspace import make_workspace
from tests.no_gpu import environment

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.story,
    pytest.mark.matrix,
    pytest.mark.skipif(environment.missing() is not None, reason=f"CUDA: {environment.missing()}"),
]
STAGES = (0, 1, 2, 3)
SHORT = {
    "train": {"dtype": "bfloat16", "max_steps": 2, "save_steps": 1},
    "evaluate": {"max_new_tokens": 3, "batch_size": 2},
    "lora": {"dropout": 0.0},
}
CLOSE = 0.005
"""Relative difference of losses: attention is computed in float32 here, and in bfloat16 by a CPU."""
COUNTED = ("lora", "full")
BUDGETS = Path(__file__).parent / "no_gpu/budgets.json"


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("cuda-base")
    return canonical(make_base(root / "source", "chatml", "llama"), root / "base", "bfloat16")


def workspace(folder: Path, base: Path, name: str, stage: int) -> Path:
    changes = {"deepspeed": {"zero_stage": stage}}
    for part in (SHORT, METHODS[name]):
        changes |= {section: changes.get(section, {}) | values for section, values in part.items()}
    make_workspace(folder, base, changes)
    return folder


def run(libraries: list[Path], folders: dict[str, Path], *stages: str) -> None:
    given = [[str(folder), stages] for folder in folders.values()]
    result = environment.run(libraries, "tests.no_gpu.whole_runs", given, Path.cwd())
    assert result.returncode == 0, result.stderr[-4000:]


def seen(folder: Path, stage: str) -> dict:
    """How a stage went; what failed fails here."""
    found = json.loads((folder / f"{stage}.seen.json").read_text())
    assert "failed" not in found, found["failed"][-4000:]
    assert found["without"] == []
    return found


def losses(folder: Path) -> list[float]:
    with (folder / "metrics/loss.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def on_cpu(base, tmp_path_factory) -> dict[str, list[float]]:
    """Losses of every method on this machine's CPU."""
    root = tmp_path_factory.mktemp("cpu")
    folders = {name: workspace(root / str(number), base, name, 0) for number, name in enumerate(METHODS)}
    train_all([(str(folder), None) for folder in folders.values()])
    return {name: losses(folder) for name, folder in folders.items()}


@pytest.fixture(scope="module", params=STAGES, ids="zero-{}".format)
def trained(request, cuda_libraries, base, tmp_path_factory) -> tuple[int, dict[str, Path]]:
    """Every method, trained under one stage of ZeRO."""
    root = tmp_path_factory.mktemp(f"zero-{request.param}")
    folders = {name: workspace(root / str(number), base, name, request.param) for number, name in enumerate(METHODS)}
    run(cuda_libraries, folders, "train")
    return request.param, folders


def test_every_method_trains_as_on_a_cpu(trained, on_cpu):
    _, folders = trained
    for name, folder in folders.items():
        found = seen(folder, "train")
        assert found.get("refused") is None, name
        assert losses(folder) == pytest.approx(on_cpu[name], rel=CLOSE), name


def test_the_base_and_every_method_answer_and_are_exported(trained, cuda_libraries):
    stage, folders = trained
    if stage != 1:
        pytest.skip("an adapter does not tell under which stage of ZeRO it was trained")
    first, *others = folders.values()
    run(cuda_libraries, {"lora": first}, "predict_base")
    seen(first, "predict_base")
    for folder in others:
        for name in ("base_answers", "base_general"):
            shutil.copy(first / f"data/processed/{name}.jsonl", folder / "data/processed")
    run(cuda_libraries, folders, "evaluate", "export")
    for name, folder in folders.items():
        for done in ("evaluate", "export"):
            assert seen(folder, done).get("refused") is None, f"{name}: {done}"
        assert (folder / "models/merged/config.json").is_file(), name


@pytest.mark.parametrize("stage", STAGES)
def test_a_step_costs_no_more_than_it_did(cuda_libraries, base, tmp_path, request, stage):
    """In tests/no_gpu/budgets.json, which `pytest tests/test_cuda_runs.py -k costs --write-tables` writes after a gain.

    Kernels, products, waits for the card and copies to the host of a step of four rows, and the allocator's peak in bytes.
    """
    folders = {name: workspace(tmp_path / name.replace(" ", "-"), base, name, stage) for name in COUNTED}
    run(cuda_libraries, folders, "train")
    costs = {name: seen(folder, "train")["cost"] for name, folder in folders.items()}
    if request.config.getoption("--write-tables"):
        written = json.loads(BUDGETS.read_text()) if BUDGETS.exists() else {}
        BUDGETS.write_text(json.dumps(written | {f"ZeRO {stage}": costs}, indent=1) + "\n")
    for name, most in json.loads(BUDGETS.read_text())[f"ZeRO {stage}"].items():
        assert {key: (costs[name][key], limit) for key, limit in most.items() if costs[name][key] > limit} == {}, name
