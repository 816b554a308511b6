"""No output says who ran the pipeline, on which machine or in which folder: all files of a run and a release are searched."""

import os
import shutil
import socket
import sys
from pathlib import Path

import pytest

from tests.helpers.commands import git, python
from tests.helpers.paths import ROOT
from tests.helpers.pipeline import set_param
from tests.helpers.tiny_models import base_section
from tuneline.train.lineage import without_folders

USER, HOST = "anneliese93", "rechner-von-anneliese"
PLANT = f"""
import os, platform, socket
socket.gethostname = socket.getfqdn = lambda *_: {HOST!r}
platform.node = lambda: {HOST!r}
system, _, *rest = os.uname()
os.uname = lambda: os.uname_result((system, {HOST!r}, *rest))
"""
"""Python runs it at its start: the machine has another name."""
OUTPUTS = ("code", "data/processed", "data/raw/lawbench", "models", "metrics", "dvc.lock", "release", "dvclive")


@pytest.fixture
def planted(tmp_path, monkeypatch) -> list[bytes]:
    """A user, a machine and a home whose names are in no file by chance; what is searched for."""
    home, start = tmp_path / f"home/{USER}", tmp_path / "start"
    home.mkdir(parents=True)
    start.mkdir()
    (start / "sitecustomize.py").write_text(PLANT)
    for name in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(name, USER)
    # Packages of the user's own home would else not be found.
    monkeypatch.setenv("HF_HOME", str(home / "hf"))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HOSTNAME", HOST)
    own = [USER, HOST, str(home), str(tmp_path), "pytest-of-", str(ROOT), sys.prefix]
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
def test_no_output_holds_a_user_a_machine_or_a_path(project, raw_base, tmp_path, planted):
    git(project, "config", "user.name", USER)
    git(project, "config", "user.email", f"{USER}@{HOST}")
    # As a user has one: an absolute path, outside of the project.
    base = tmp_path / f"home/{USER}/models/tiny"
    shutil.copytree(raw_base, base)
    set_param(project, "base", **base_section(base))
    set_param(project, "train", report_to=["dvclive"])
    git(project, "commit", "-q", "-a", "-m", "Base")
    os.environ["PYTHONPATH"] = ""
    plant = {"PYTHONPATH": str(tmp_path / "start")}
    result = python(project, "-m", "dvc", "repro", env=plant)
    assert result.returncode == 0, result.stderr[-4000:]
    git(project, "add", "-A")
    git(project, "commit", "-q", "-m", "Run")
    result = python(project, "-m", "tuneline", "release", env=plant)
    assert result.returncode == 0, result.stderr[-4000:]
    assert (project / "release/sbom.cdx.json").is_file()
    # DVC copies params.yaml's values into its lock: base.source, as the user wrote it.
    lock = project / "dvc.lock"
    lock.write_text(lock.read_text(encoding="utf-8").replace(str(base), ""), encoding="utf-8")
    assert found(project, planted) == []
    # What is searched for would be found.
    (project / "metrics/speed/x.json").write_text(f"on {HOST}")
    assert found(project, planted) == [f"metrics/speed/x.json: {HOST}"]
