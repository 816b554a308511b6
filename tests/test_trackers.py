"""What trackers get of a run: its parameters, hashes and the experiment's name, and no folder of this machine."""

from pathlib import Path

import pytest

from tuneline.train.trainer.trackers import TELL, TrackedFactsCallback, experiment_name, facts_of, start_runs

FACTS = facts_of(
    {"lora": {"r": 16, "target_modules": ["all"]}, "tune": {"method": "lora"}}, {"models/base/SHA256SUMS": "ab"}
)


def begin(*trackers: str) -> None:
    TrackedFactsCallback(FACTS, list(trackers)).on_train_begin(None, None, None)


def test_facts_have_the_names_of_params_yaml():
    assert FACTS == {
        "lora.r": 16,
        "lora.target_modules": ["all"],
        "tune.method": "lora",
        "sha256 of models/base/SHA256SUMS": "ab",
    }


def test_every_tracker_that_is_named_is_told_and_no_other(monkeypatch):
    told = {}
    for name in TELL:
        monkeypatch.setitem(TELL, name, lambda facts, name=name: told.update({name: facts}))
    begin("dvclive", "wandb", "mlflow")
    assert told == {"wandb": FACTS, "mlflow": FACTS}


def test_a_run_is_called_as_the_experiment(monkeypatch):
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    assert experiment_name() is None
    monkeypatch.setenv("DVC_EXP_NAME", "r8")
    assert experiment_name() == "r8"


def test_arguments_name_no_folder_of_this_machine(tmp_path):
    from tuneline.train.trainer.arguments import TrackedArguments

    told = TrackedArguments(output_dir=str(tmp_path / "scratch"), use_cpu=True, report_to=[]).to_dict()
    assert told["output_dir"] == "scratch"
    assert not [name for name, value in told.items() if str(tmp_path) in str(value)]


def test_mlflow_keeps_them_in_a_file_of_this_machine(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is no dependency")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    with mlflow.start_run() as run:
        begin("mlflow")
        begin("mlflow")
    assert mlflow.get_run(run.info.run_id).data.tags.items() >= {"lora.r": "16", "tune.method": "lora"}.items()


def test_wandb_keeps_them_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="wandb is no dependency")
    monkeypatch.setenv("WANDB_MODE", "offline")
    with wandb.init(project="t", dir=tmp_path) as run:
        begin("wandb")
        assert run.config["lora.r"] == 16
    assert list(tmp_path.glob("wandb/offline-run-*"))


def test_swanlab_keeps_them_on_this_machine(tmp_path, monkeypatch):
    swanlab = pytest.importorskip("swanlab", reason="swanlab is no dependency")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SWANLAB_MODE", "offline")
    monkeypatch.setenv("DVC_EXP_NAME", "r8")
    start_runs(["swanlab"])
    start_runs(["swanlab"])
    begin("swanlab")
    assert swanlab.config["lora.r"] == 16
    swanlab.finish()
    assert any(Path(tmp_path / "swanlog").iterdir())
