"""Paths of params.yaml in DVC's temporary and queued experiments, and an adapter's path of its base outside the project."""

import json
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from tests.helpers.commands import dvc, git, git_init
from tests.helpers.paths import ROOT
from tuneline.base.source import open_source
from tuneline.models.adapters.peft_config import normalise_config
from tuneline.models.config import Base
from tuneline.runtime.params.user_path import user_path

SHOW = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tuneline.runtime.params.user_path import user_path
Path("found.txt").write_text(str(user_path("./bases/mine").resolve()))
"""


@pytest.mark.story
@pytest.mark.parametrize(
    "flags", [("--temp",), pytest.param(("--queue",), marks=pytest.mark.matrix)], ids=["temporary", "queued"]
)
def test_an_experiment_finds_an_untracked_base_in_its_project(tmp_path, flags):
    git_init(tmp_path)
    dvc(tmp_path, "init", "--quiet")
    (tmp_path / "show.py").write_text(SHOW)
    (tmp_path / "params.yaml").write_text("r: 1\n")
    stage = {"cmd": f"{sys.executable} show.py", "deps": ["show.py"], "params": ["r"], "outs": ["found.txt"]}
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": {"show": stage}}))
    (tmp_path / ".gitignore").write_text("/bases\n/found.txt\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "Start")
    (tmp_path / "bases/mine").mkdir(parents=True)
    dvc(tmp_path, "exp", "run", "--quiet", "-n", "one", "-S", "r=2", *flags)
    if flags == ("--queue",):
        dvc(tmp_path, "exp", "run", "--quiet", "--run-all")
    dvc(tmp_path, "exp", "apply", "one")
    assert Path((tmp_path / "found.txt").read_text()) == (tmp_path / "bases/mine").resolve()


def test_what_is_in_the_folder_itself_comes_first(tmp_path, monkeypatch):
    copy = tmp_path / ".dvc/tmp/exps/tmp1"
    for folder in (tmp_path, copy):
        (folder / "bases").mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert user_path("bases").resolve() == copy / "bases"
    assert user_path(str(tmp_path / "elsewhere")) == tmp_path / "elsewhere"
    (copy / "bases").rmdir()
    assert user_path("bases") == tmp_path / "bases"
    monkeypatch.chdir(tmp_path)
    assert user_path("missing") == Path("missing")


def test_a_user_that_is_not_there_is_one_sentence():
    from chat.models import adapter_folder

    said = "^'~no-such-user/base' begins with ~ and a user that this machine does not have, expected a path$"
    with pytest.raises(ValueError, match=said):
        user_path("~no-such-user/base")
    with pytest.raises(ValueError, match=said):
        adapter_folder("~no-such-user/base", Path("models/base"))


def test_a_base_that_is_nowhere_is_one_sentence(tmp_path, monkeypatch):
    copy = tmp_path / ".dvc/tmp/exps/tmp1"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    values = {"source": "./bases/x", "sha256": "0" * 64, "revision": None, "dtype": "float32"}
    base = Base.model_validate(values | {"max_perplexity_zh": None, "max_perplexity_en": None})
    expected = pytest.raises(ValueError, match=r"'./bases/x', expected a folder, and there is none")
    with expected, open_source(base):
        pass


def test_an_adapter_names_no_repository_of_a_hub(tmp_path, monkeypatch):
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({"base_model_name_or_path": "models/base"}))
    normalise_config(tmp_path)
    name = json.loads(path.read_text())["base_model_name_or_path"]
    assert name == "./models/base"
    monkeypatch.chdir(tmp_path)
    # Before anything is asked of a hub.
    with pytest.raises((OSError, ValueError), match="Repo id must be"):
        AutoModelForCausalLM.from_pretrained(name)
