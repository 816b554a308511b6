"""No output says who ran the pipeline, on which machine or in which folder: all files of a run and a release are searched."""

import socket
import sys
from pathlib import Path

import pytest

from tests.helpers.commands import git, python
from tests.helpers.first_run import HOST, USER, planted
from tests.helpers.paths import ROOT
from tuneline.train.lineage import without_folders

OUTPUTS = ("code", "data/processed", "data/raw/lawbench", "models", "metrics", "dvc.lock", "release", "dvclive")


DVCLIVE = """
from types import SimpleNamespace
from tuneline.train.trainer.dvclive_callback import DVCLiveCallback
curves = DVCLiveCallback()
state = SimpleNamespace(log_history=[{"step": 1, "loss": 3.0}])
curves.on_train_begin(None, SimpleNamespace(log_history=[]), None)
curves.on_log(None, state, None)
curves.on_train_end(None, None, None)
"""
"""The curve of a step, as train.report_to has it written."""


def names(root: Path) -> list[bytes]:
    """What is searched for: of the user, the machine, and the folders."""
    own = [USER, HOST, f"{root}/home", str(root), "pytest-of-", str(ROOT), sys.prefix]
    own += [socket.gethostname()] if len(socket.gethostname()) > 7 and socket.gethostname() != "localhost" else []
    return [text.encode() for text in own]


def found(folder: Path, texts: list[bytes]) -> list[str]:
    """Where a text stands, in the name or in the content of a file."""
    places = []
    for top in OUTPUTS:
        paths = [folder / top, *(folder / top).rglob("*")]
        for path in (path for path in paths if path.is_file()):
            name = path.relative_to(folder).as_posix()
            content = name.encode() + b"\n" + path.read_bytes()
            places += [f"{name}: {text.decode()}" for text in texts if text in content]
    return places


def test_parameters_in_a_lineage_name_no_folder():
    params = {"train": {"init": "/home/anna/adapter", "init_sha256": "ab", "epochs": 1}, "tune": {"method": "lora"}}
    params["deepspeed"] = {"hostfile": "~/hosts", "config": {"offload": [{"nvme_path": "/mnt/anna/nvme"}]}}
    assert without_folders(params) == {
        "train": {"init": "adapter", "init_sha256": "ab", "epochs": 1},
        "tune": {"method": "lora"},
        "deepspeed": {"hostfile": "hosts", "config": {"offload": [{"nvme_path": "nvme"}]}},
    }
    # A path inside of the project is no trace of anybody.
    assert without_folders("./adapters/first") == "./adapters/first"


@pytest.mark.story
def test_no_output_holds_a_user_a_machine_or_a_path(first_run, rerun):
    root = first_run.folder.parent
    user = planted(root)
    # As a user has one: an absolute path, outside of the project.
    base = root / f"home/{USER}/models/tiny"
    assert f"source: {base}\n" in (rerun / "params.yaml").read_text(encoding="utf-8")
    result = python(rerun, "-c", DVCLIVE, env=user)
    assert result.returncode == 0 and (rerun / "dvclive/metrics.json").is_file(), result.stderr[-4000:]
    git(rerun, "add", "-A")
    git(rerun, "commit", "-q", "-m", "Run")
    result = python(rerun, "-m", "tuneline", "release", env=user)
    assert result.returncode == 0, result.stderr[-4000:]
    assert (rerun / "release/sbom.cdx.json").is_file()
    # DVC copies params.yaml's values into its lock: base.source, as the user wrote it.
    lock = rerun / "dvc.lock"
    lock.write_text(lock.read_text(encoding="utf-8").replace(str(base), ""), encoding="utf-8")
    searched = [*names(root), str(rerun).encode()]
    assert found(rerun, searched) == []
    # What is searched for would be found.
    (rerun / "metrics/speed/x.json").write_text(f"on {HOST}")
    assert found(rerun, searched) == [f"metrics/speed/x.json: {HOST}"]
