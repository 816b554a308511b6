"""The folder that is handed out says where it came from, and is only made of what was committed."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from typer.testing import CliRunner

from tests.helpers.commands import dvc, git, git_init
from tests.helpers.llama_cpp import make_llama_cpp
from tests.helpers.model_hub import TOKEN, Hub, serving
from tuneline.cli.app import app
from tuneline.export import verify
from tuneline.runtime.hashing import write_sums

pytestmark = pytest.mark.story


@pytest.fixture(scope="module")
def first(tmp_path_factory, made) -> Path:
    """A project whose merged model is committed; read only."""
    root = tmp_path_factory.mktemp("committed")
    folder = root / "project"
    shutil.copytree(made / "models/merged", folder / "models/merged")
    stage = {"cmd": "true", "outs": ["models/merged"]}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"export": stage}}))
    (folder / ".gitignore").write_text("__pycache__\n/release\n/out\n")
    git_init(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_SITE_CACHE_DIR", str(root / "site"))
        dvc(folder, "init", "-q")
        dvc(folder, "commit", "-f", "export")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Model")
    return folder


@pytest.fixture
def committed(first, tmp_path, monkeypatch) -> Path:
    """A copy of it, the working directory."""
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    folder = Path(shutil.copytree(first, tmp_path / "project"))
    monkeypatch.chdir(folder)
    return folder


def release(*arguments, **env) -> SimpleNamespace:
    """`tuneline release` in the working directory."""
    result = CliRunner().invoke(app, ["release", *arguments], env=env)
    # Click's runner takes the sentence of an exit for output.
    said = result.stderr + (result.stdout if result.exit_code else "")
    return SimpleNamespace(returncode=result.exit_code, stderr=said)


def test_a_release_is_the_model_with_its_origin(committed):
    result = release()
    assert result.returncode == 0, result.stderr
    folder = committed / "release"
    assert verify.problems(folder) == []
    facts = json.loads((folder / "release.json").read_text())
    assert facts["commit"] == git(committed, "rev-parse", "HEAD").strip()
    assert facts["dvc_md5"].endswith(".dir")
    assert facts["dirty"] is False
    assert {"torch", "transformers", "peft"} <= facts["versions"].keys()
    assert f"Commit `{facts['commit']}`;" in (folder / "README.md").read_text(encoding="utf-8")
    weights = "model.safetensors"
    assert (folder / weights).read_bytes() == (committed / "models/merged" / weights).read_bytes()
    again = release()
    assert (again.returncode, again.stderr.startswith("release: release is there already")) == (1, True)


def test_a_release_is_pushed_and_pushed_again(committed, monkeypatch):
    """The real model to a stand-in of the hub; the second time the folder that is there goes."""
    from huggingface_hub import constants

    hub = Hub()
    with serving(hub) as address:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        for commits in (2, 2):
            result = release("--push", "clinic/triage", HF_TOKEN=TOKEN)
            assert result.returncode == 0, result.stderr
            assert hub.repos["clinic/triage"].commits == commits
        pushed = hub.repos["clinic/triage"].files
        # The tiny base is a Gemma that came without a notice.
        assert b"subject to the Gemma Terms of Use" in pushed["NOTICE"]
        assert pushed["SHA256SUMS"] == (committed / "release/SHA256SUMS").read_bytes()
        assert "data/processed/train.jsonl is missing, so the release was not searched for its rows" in result.stderr
        made = committed / "release/release.json"
        made.write_text(made.read_text().replace('"dvc_md5": "', '"dvc_md5": "0'))
        write_sums(committed / "release")
        assert "is there already, with another model (0" in release("--push", "clinic/triage", HF_TOKEN=TOKEN).stderr


def test_what_is_not_committed_or_not_whole_is_not_handed_out(committed):
    (committed / "notes.txt").write_text("x")
    refused = release()
    assert refused.stderr == "release: 1 files are not committed, first 'notes.txt': commit them, or say --dirty\n"
    assert release("--dirty").returncode == 0
    assert json.loads((committed / "release/release.json").read_text())["dirty"] is True
    (committed / "notes.txt").unlink()
    shutil.rmtree(committed / "release")
    (committed / "dvc.yaml").write_text(
        yaml.safe_dump({"stages": {"export": {"cmd": "false", "outs": ["models/merged"]}}})
    )
    git(committed, "commit", "-aqm", "Another command")
    refused = release()
    assert "the pipeline is not up to date (export): run `dvc repro`" in refused.stderr
    weights = committed / "models/merged/tokenizer.json"
    weights.write_bytes(weights.read_bytes() + b" ")
    refused = release()
    assert "models/merged can't be handed out: tokenizer.json has changed" in refused.stderr
    assert not (committed / "release").exists()


def test_gguf_is_llama_cpps(committed, tmp_path):
    """A stand-in for its checkout, and for the environment that it runs in."""
    refused = release("--gguf", "--llama-cpp", str(tmp_path / "none"))
    assert "has no convert_hf_to_gguf.py: expected a checkout of llama.cpp" in refused.stderr
    checkout = tmp_path / "llama.cpp"
    scratch = tmp_path / "scratch"
    make_llama_cpp(checkout, scratch)
    result = release("--gguf", "--to", "out", LLAMA_CPP=str(checkout), TUNELINE_SCRATCH=str(scratch))
    assert result.returncode == 0, result.stderr
    assert (committed / "out/out.gguf").read_bytes() == b"GGUF"
    said = (committed / "out/Modelfile").read_text(encoding="utf-8")
    assert said.startswith("FROM ./out.gguf\nTEMPLATE ")
    assert "PARAMETER temperature 0\nPARAMETER repeat_penalty 1\n" in said
    assert verify.problems(committed / "out") == []
