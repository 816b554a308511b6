"""Every method: it learns, goes on to the same bytes, answers, and is exported as what was trained."""

import copy
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import stages.export
from tests.helpers.many_trainings import train_all
from tests.helpers.methods import METHODS, method
from tests.helpers.stages import run_main
from tests.helpers.workspace import make_workspace
from tuneline.evaluate.config import Evaluate
from tuneline.evaluate.predict import Model, predict
from tuneline.models.loading import load_adapter, load_merged, load_model, load_tokenizer
from tuneline.train import methods
from tuneline.train.config.train import Train
from tuneline.train.sections import check_method_options

QUICK = ("lora", "prefix through a network", "full")
MATRIX = [pytest.param(name, marks=() if name in QUICK else pytest.mark.matrix) for name in METHODS]
QUANTISED = {kind: {"lora": {"quantize": kind, "dropout": 0.0}} for kind in ("nf4", "int8")}
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes, an extra, is not installed"
)


@pytest.fixture(scope="module")
def trained(request, llama_base, tmp_path_factory) -> dict[str, Path]:
    """Each chosen method trained in a folder of its own, and once more from the middle in another."""
    root = tmp_path_factory.mktemp("methods")
    chosen = {item.callspec.params["name"] for item in request.session.items if "trained" in fixtures_of(item, request)}
    folders = {name: root / name.replace(" ", "-") for name in METHODS if name in chosen}
    for name, folder in folders.items():
        make_workspace(folder, llama_base, METHODS[name])
        make_workspace(folder.with_name(f"{folder.name}-again"), llama_base, METHODS[name])
    train_all([(str(folder), None) for folder in folders.values()])
    jobs = []
    for folder in folders.values():
        again = folder.with_name(f"{folder.name}-again")
        shutil.copytree(folder / "scratch", again / "scratch")
        shutil.rmtree(again / "scratch/checkpoint-8")
        shutil.copy(folder / "metrics/loss.csv", again / "metrics/loss.csv")
        jobs.append((str(again), "scratch/checkpoint-4"))
    train_all(jobs)
    return folders


def fixtures_of(item: pytest.Item, request: pytest.FixtureRequest) -> list[str]:
    return item.fixturenames if item.path == request.path else []


def weights(folder: Path) -> bytes:
    (path,) = (folder / "models/adapter").glob("*.safetensors")
    return path.read_bytes()


@pytest.mark.story
@pytest.mark.parametrize("name", MATRIX)
def test_it_learns_resumes_answers_and_exports(trained, llama_base, monkeypatch, name):
    folder = trained[name]
    monkeypatch.chdir(folder)
    report = json.loads(Path("metrics/train.json").read_text())
    assert report["last_loss"] < report["first_loss"] - 0.02
    assert 0 < report["trainable_parameters"] <= report["total_parameters"]
    again = folder.with_name(f"{folder.name}-again")
    assert weights(again) == weights(folder)
    assert (again / "metrics/train.json").read_bytes() == Path("metrics/train.json").read_bytes()
    # It answers, otherwise than the base.
    plain = load_model(llama_base, torch.float32)
    tuned = load_adapter(load_model(llama_base, torch.float32), Path("models/adapter"))
    params = Evaluate(max_new_tokens=12, max_thinking_tokens=12, batch_size=2, dtype="float32", constrain=None)
    records = [json.loads(line) for line in Path("data/processed/heldout.jsonl").read_text().splitlines()]
    tokenizer = load_tokenizer(llama_base)
    before = predict(Model(plain, tokenizer, {}), records, params, "base").answers
    after = predict(Model(tuned, tokenizer, {}), records, params, "tuned").answers
    assert sum(one["nll"] for one in after) < sum(one["nll"] for one in before)
    # And what is exported is what was trained.
    run_main(stages.export)
    exported = json.loads(Path("metrics/export.json").read_text())
    assert exported["max_logit_difference"] < 1e-4
    assert exported["greedy_agreement"] == 1.0
    beside = Path("models/merged/adapter")
    assert beside.is_dir() == (report_method() in methods.PROMPT_LEARNING)
    if beside.is_dir():
        assert json.loads((beside / "adapter_config.json").read_text())["base_model_name_or_path"] == ".."
    merged = Model(load_merged(Path("models/merged"), torch.float32), tokenizer, {})
    from_disk = predict(merged, records, params, "merged").answers
    assert [one["prediction"] for one in from_disk] == [one["prediction"] for one in after]


@needs_bitsandbytes
@pytest.mark.story
@pytest.mark.parametrize("kind", QUANTISED)
def test_a_quantised_base_is_trained_on_and_the_whole_one_exported(llama_base, tmp_path, monkeypatch, kind):
    make_workspace(tmp_path / "run", llama_base, QUANTISED[kind])
    monkeypatch.chdir(tmp_path / "run")
    quantised = load_model(llama_base, torch.float32, quantize=kind)
    assert type(quantised.model.layers[0].mlp.up_proj).__module__.startswith("bitsandbytes")
    train_all([(str(tmp_path / "run"), None)])
    report = json.loads(Path("metrics/train.json").read_text())
    assert report["last_loss"] < report["first_loss"] - 0.02
    run_main(stages.export)
    assert json.loads(Path("metrics/export.json").read_text())["max_logit_difference"] < 1e-4
    merged = load_merged(Path("models/merged"), torch.float32)
    assert all(one.dtype == torch.float32 for one in merged.parameters())


def report_method() -> str:
    return yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))["tune"]["method"]


def test_what_trains_and_what_stays(llama_base):
    model = methods.prepare(
        load_model(llama_base, torch.float32), method("freeze", freeze={"layers": 1, "patterns": ["model.norm.*"]})
    )
    learnt = {name for name, one in model.named_parameters() if one.requires_grad}
    assert "model.norm.weight" in learnt
    assert {name.split(".")[2] for name in learnt if "layers" in name} == {"1"}
    with pytest.raises(ValueError, match=r"freeze.layers is 3, expected at most the 2 layers"):
        methods.prepare(model, method("freeze", freeze={"layers": 3}))
    with pytest.raises(ValueError, match=r"freeze.patterns holds \['nothing.\*'\], expected names like"):
        methods.prepare(model, method("freeze", freeze={"layers": 1, "patterns": ["nothing.*"]}))
    with pytest.raises(ValueError, match=r"lora.modules_to_save holds \['nothing'\], expected some of"):
        methods.prepare(model, method(lora={"modules_to_save": ["nothing"]}))


def test_what_is_trained_is_float32_and_the_rest_as_it_was(llama_base):
    for name in ("lora", "prefix", "freeze", "full"):
        model = methods.prepare(load_model(llama_base, torch.bfloat16), method(name, freeze={"layers": 1}))
        dtypes = {(one.requires_grad, one.dtype) for one in model.parameters()}
        assert dtypes <= {(True, torch.float32), (False, torch.bfloat16)}
        assert (True, torch.float32) in dtypes


def test_tied_embeddings_are_not_trained_apart(canonical_base):
    model = load_model(canonical_base, torch.float32)
    assert model.config.tie_word_embeddings
    with pytest.raises(ValueError, match=r"holds \['embed_tokens'\].*ties embeddings"):
        methods.prepare(model, method(lora={"modules_to_save": ["embed_tokens"]}))


@pytest.mark.parametrize(
    ("name", "sections", "train", "message"),
    [
        ("prompt", {}, {"neftune_alpha": 5}, "tune.method is prompt and train.neftune_alpha is 5"),
        ("freeze", {"freeze": {"layers": 0}}, {}, "nothing would be trained"),
        ("lora", {"lora": {"variant": "pissa", "quantize": "nf4"}}, {}, "PiSSA changes the base's weights"),
    ],
)
def test_what_can_not_be_is_refused_at_once(params, name, sections, train, message):
    with pytest.raises(ValueError, match=message):
        check_method_options(method(name, **sections), Train.model_validate(params["train"] | train))


def test_an_adapter_that_does_not_fit_is_refused(llama_base, tmp_path):
    from safetensors.torch import save_file

    save_file({"model.norm.weight": torch.ones(3)}, tmp_path / "changed.safetensors")
    with pytest.raises(
        ValueError, match="does not fit the base: 1 tensors are not there, or of another shape, first model.norm"
    ):
        load_adapter(load_model(llama_base, torch.float32), tmp_path)


def test_chatglm3s_published_counts(real_shape):
    """Prefix of 128 tokens without a network: 1,835,008; the last four layers: 815,843,328 (ChatGLM3-6B, its own code)."""
    prefix = methods.prepare(real_shape, method("prefix", ptuning={"num_virtual_tokens": 128, "projection": False}))
    assert methods.counts(prefix)["trainable_parameters"] == 1_835_008
    ours = {"num_virtual_tokens": 16, "projection": True, "encoder_hidden_size": 4096}
    through_network = methods.prepare(real_shape, method("prefix", ptuning=ours))
    assert methods.counts(through_network)["trainable_parameters"] == 59_791_360
    real_shape.requires_grad_(False)
    frozen = methods.prepare(real_shape, method("freeze", freeze={"layers": 4}))
    assert methods.counts(frozen)["trainable_parameters"] == 815_843_328
    real_shape.requires_grad_(False)


@pytest.mark.story
@pytest.mark.matrix
@pytest.mark.parametrize("name", METHODS)
def test_two_processes_that_shard_everything_learn_the_same(llama_base, tmp_path, name):
    """ZeRO 3 on two processes, through the launcher, against one process: the same losses."""
    reports = []
    for stage, processes in ((1, 1), (3, 2)):
        folder = tmp_path / str(stage)
        changes = copy.deepcopy(METHODS[name]) | {"deepspeed": {"zero_stage": stage, "processes": processes}}
        # Dropout and noise are drawn for each process's own rows.
        changes.setdefault("lora", {})["dropout"] = 0.0
        changes.setdefault("train", {})["neftune_alpha"] = None
        make_workspace(folder, llama_base, changes)
        env = os.environ | {
            "TUNELINE_SCRATCH": str(folder / "scratch"),
            "DS_ACCELERATOR": "cpu",
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "stages.train"]
        result = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr[-3000:]
        reports.append(json.loads((folder / "metrics/train.json").read_text()))
        tuned = load_adapter(load_model(llama_base, torch.float32), folder / "models/adapter")
        assert all(torch.isfinite(one).all() for one in tuned.parameters())
    assert reports[0] == pytest.approx(reports[1], abs=1e-4)
