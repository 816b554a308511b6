"""Training that goes on from an adapter: from a folder or a revision, pinned by hash, loaded once, in its lineage."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.commands import one_rank
from tests.helpers.foreign_adapters import LORA as PLAIN
from tests.helpers.foreign_adapters import plain_tensors, write_adapter
from tests.helpers.methods import method, perturb_trained
from tests.helpers.stages import PATHS
from tests.helpers.workspace import make_workspace
from tuneline.models.loading import load_adapter, load_model
from tuneline.runtime.params import load
from tuneline.train import methods
from tuneline.train.checks import check
from tuneline.train.config.train import Train
from tuneline.train.lineage import lineage_of
from tuneline.train.run import prepare_model
from tuneline.train.sections import load_config
from tuneline.train.start import Start, check_start, find_start, load_start

MANY = """
import json, os, sys, warnings
from pathlib import Path
from transformers.utils import logging
import tuneline.train.run as training
from tests.helpers.stages import PATHS, load_config
from tuneline.runtime.params import load
logging.set_verbosity_error()
warnings.filterwarnings("ignore")
for folder, init, resume in json.loads(sys.argv[1]):
    os.chdir(folder)
    Path("scratch").mkdir(exist_ok=True)
    training.train(load_config(load), PATHS._replace(init=Path(init) if init else None), Path(resume) if resume else None)
"""
SECTIONS: dict[str, dict] = {
    "lora": {"lora": {"target_modules": ["q_proj", "v_proj"], "modules_to_save": ["norm"], "dropout": 0.0}},
    "dora": {"lora": {"variant": "dora", "dropout": 0.0}},
    "prompt": {"tune": {"method": "prompt"}, "ptuning": {"num_virtual_tokens": 6}, "train": {"learning_rate": 0.5}},
    "prefix": {"tune": {"method": "prefix"}, "ptuning": {"num_virtual_tokens": 6, "projection": False}},
    "freeze": {"tune": {"method": "freeze"}, "freeze": {"layers": 1}},
    "full": {"tune": {"method": "full"}, "train": {"learning_rate": 0.005}},
}


def train_all(jobs: list[tuple[str, str | None, str | None]]) -> None:
    """Train in each (folder, adapter to begin with, checkpoint to go on from), all in one process."""
    env = os.environ | one_rank() | {"DS_ACCELERATOR": "cpu"}
    command = [sys.executable, "-c", MANY, json.dumps(jobs)]
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-4000:]


@pytest.fixture(scope="module")
def trained(llama_base, tmp_path_factory) -> Path:
    """Each method trained; then gone on with in a folder `<name>-on`, and once more from the middle of that in `-again`."""
    root = tmp_path_factory.mktemp("start")
    for name, sections in SECTIONS.items():
        for end in ("", "-on", "-again"):
            make_workspace(root / f"{name}{end}", llama_base, sections)
    train_all([(str(root / name), None, None) for name in SECTIONS])
    train_all([(str(root / f"{name}-on"), str(root / name / "models/adapter"), None) for name in SECTIONS])
    jobs: list[tuple[str, str | None, str | None]] = []
    for name in SECTIONS:
        again = root / f"{name}-again"
        shutil.copytree(root / f"{name}-on/scratch", again / "scratch")
        shutil.rmtree(again / "scratch/checkpoint-8")
        shutil.copy(root / f"{name}-on/metrics/loss.csv", again / "metrics/loss.csv")
        jobs.append((str(again), str(root / name / "models/adapter"), "scratch/checkpoint-4"))
    train_all(jobs)
    return root


@pytest.mark.story
@pytest.mark.matrix
@pytest.mark.parametrize("name", SECTIONS)
def test_it_goes_on_where_the_adapter_was_and_a_killed_run_does_not_begin_anew(trained, name):
    first, on = (json.loads((trained / f"{name}{end}/metrics/train.json").read_text()) for end in ("", "-on"))
    assert on["first_loss"] < first["first_loss"] - 0.02
    assert abs(on["first_loss"] - first["last_loss"]) < abs(on["first_loss"] - first["first_loss"])
    (ours,), (again,) = ((trained / f"{name}{end}/models/adapter").glob("*.safetensors") for end in ("-on", "-again"))
    assert ours.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("name", SECTIONS)
def test_it_begins_as_exactly_what_the_adapter_is(llama_base, tmp_path, name):
    sections = {key: values for key, values in SECTIONS[name].items() if key in ("lora", "ptuning", "freeze")}
    chosen = method(SECTIONS[name].get("tune", {}).get("method", "lora"), **sections)
    made = methods.prepare(load_model(llama_base, torch.float32), chosen)
    perturb_trained(made, 4)
    methods.save(made, chosen, tmp_path / "adapter")
    model = methods.prepare(load_model(llama_base, torch.float32), chosen)
    load_start(model, tmp_path / "adapter", chosen)
    ids = torch.tensor([[5, 9, 13, 40, 7, 30]])
    expected = load_adapter(load_model(llama_base, torch.float32), tmp_path / "adapter")(input_ids=ids).logits
    torch.testing.assert_close(model.eval()(input_ids=ids).logits, expected, rtol=0, atol=1e-5)
    methods.save(model, chosen, tmp_path / "again")
    (file,) = (path.name for path in (tmp_path / "adapter").glob("*.safetensors"))
    before, after = load_file(tmp_path / "adapter" / file), load_file(tmp_path / "again" / file)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_an_adapter_of_other_software_is_gone_on_from(llama_base, tmp_path):
    theirs = write_adapter(tmp_path / "theirs", PLAIN, plain_tensors(llama_base))
    chosen = method(lora={"r": 4, "alpha": 16, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"]})
    model = prepare_model(load_model(llama_base, torch.float32), chosen, checkpointing=False)
    load_start(model, theirs, chosen)
    weights = {name: one for name, one in model.named_parameters() if "lora_" in name}
    tensors = load_file(theirs / "adapter_model.safetensors")
    assert all(torch.equal(one, tensors[name.replace(".default", "")]) for name, one in weights.items())
    assert all(one.requires_grad for one in weights.values())


@pytest.fixture
def project(llama_base, tmp_path, monkeypatch):
    """A project after `tokenize`, an adapter beside it, and params as given."""
    theirs = write_adapter(tmp_path / "theirs", PLAIN, plain_tensors(llama_base))

    def make(**train) -> Path:
        lora = {"r": 4, "alpha": 16, "target_modules": ["q_proj", "v_proj"]}
        make_workspace(tmp_path / "project", llama_base, {"lora": lora, "train": train})
        monkeypatch.chdir(tmp_path / "project")
        return theirs

    return make


def test_the_hash_is_asked_for_and_a_changed_adapter_is_seen(project):
    theirs = project(init="../theirs")
    with pytest.raises(
        ValueError, match=r"train.init is '../theirs', whose sha256 is [0-9a-f]{64}, and train.init_sha256 is None"
    ):
        check(load_config(load), PATHS.tokens, PATHS.base)
    given = Train.model_validate(load(Train).model_dump() | {"init_sha256": "0" * 64})
    with pytest.raises(ValueError, match=r"set train.init_sha256: [0-9a-f]{64} if that") as error:
        find_start(given, PATHS.base)
    digest = str(error.value).split("sha256: ")[1][:64]
    given = Train.model_validate(load(Train).model_dump() | {"init_sha256": digest})
    start = find_start(given, PATHS.base)
    assert start is not None
    assert start.lineage["files"].keys() == {"adapter_config.json", "adapter_model.safetensors"}
    lineage = lineage_of(load_config(load), PATHS.tokens, PATHS.base, {}, start)
    assert lineage["init"]["sha256"] == digest
    assert "init" not in lineage_of(load_config(load), PATHS.tokens, PATHS.base, {})
    (theirs / "notes.md").write_text("beside it")
    assert find_start(given, PATHS.base) == start
    (theirs / "adapter_config.json").write_text(json.dumps(PLAIN | {"lora_dropout": 0.1}))
    with pytest.raises(ValueError, match="whose sha256 is"):
        find_start(given, PATHS.base)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"init": "../nothing"}, "train.init is '../nothing', expected null, the folder of an adapter, or rev:"),
        ({"init": "models/adapter"}, "which `train` itself writes: take rev:HEAD"),
        ({"init_sha256": "0" * 64}, "train.init_sha256 is set and train.init is null"),
        ({"init": "rev:nothing"}, "rev:nothing: its adapter can't be had"),
    ],
)
def test_what_is_no_adapter_is_refused(project, train, message):
    project(**train)
    with pytest.raises(ValueError, match=message):
        find_start(load(Train), PATHS.base)


FITTING = {"r": 4, "alpha": 16, "target_modules": ["q_proj", "v_proj"]}
OTHERS = {
    "rank": (method(lora=FITTING | {"r": 8, "alpha": 32}),
             r"LORA of rank 4, alpha 16, on \[q_proj, v_proj\]; the parameters make LORA of rank 8.*another shape"),
    "scale": (method(lora=FITTING | {"alpha": 8}), "multiplied by 4 there and 2 here"),
    "targets": (method(lora=FITTING | {"target_modules": ["q_proj"]}), "4 tensors belong nowhere"),
    "more targets": (method(lora=FITTING | {"target_modules": ["q_proj", "k_proj", "v_proj"]}), "4 tensors are missing"),
    "modules": (method(lora=FITTING | {"modules_to_save": ["lm_head"]}), "1 tensors are missing .first base_model.*lm_head"),
    "DoRA": (method(lora=FITTING | {"variant": "dora"}), "with use_dora: 4 tensors are missing"),
    "PiSSA": (method(lora={"variant": "pissa"}), "lora.variant is pissa and train.init is set"),
    "method": (method("prompt"), "set tune.method to lora or train.init to null"),
    "whole": (method("full"), "holds an adapter beside the base, and tune.method is full.*make that the base"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_what_does_not_match_says_what_both_are(llama_base, tmp_path, name):
    theirs = write_adapter(tmp_path / "theirs", PLAIN, plain_tensors(llama_base))
    chosen, message = OTHERS[name]
    with pytest.raises(ValueError, match=message):
        check_start(Start("theirs", theirs, {}), chosen, llama_base)


def save(base: Path, folder: Path, chosen) -> Path:
    model = methods.prepare(load_model(base, torch.float32), chosen)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05
    methods.save(model, chosen, folder)
    return folder


def test_virtual_tokens_are_gone_on_from_without_their_network(llama_base, tmp_path):
    few = {"num_virtual_tokens": 6, "encoder_hidden_size": 16}
    made = save(llama_base, tmp_path / "p_tuning", method("p_tuning", ptuning=few))
    start = Start("theirs", made, {})
    check_start(start, method("prompt", ptuning=few), llama_base)
    with pytest.raises(ValueError, match="the tokens and not the network that made them; set tune.method: prompt"):
        check_start(start, method("p_tuning", ptuning=few), llama_base)
    with pytest.raises(
        ValueError, match="1 tensors have another shape .first prompt_embeddings is .6, 32., expected .5, 32"
    ):
        check_start(start, method("prompt", ptuning={"num_virtual_tokens": 5}), llama_base)
    through = save(llama_base, tmp_path / "prefix", method("prefix", ptuning=few | {"projection": True}))
    check_start(Start("theirs", through, {}), method("prefix", ptuning=few | {"projection": False}), llama_base)
    with pytest.raises(ValueError, match="set ptuning.projection: false"):
        check_start(Start("theirs", through, {}), method("prefix", ptuning=few | {"projection": True}), llama_base)


def test_changed_tensors_are_gone_on_from_where_all_of_them_train(llama_base, tmp_path):
    last = save(llama_base, tmp_path / "freeze", method("freeze", freeze={"layers": 1}))
    start = Start("theirs", last, {})
    check_start(start, method("freeze", freeze={"layers": 1}), llama_base)
    check_start(start, method("full"), llama_base)
    with pytest.raises(
        ValueError, match="which changed 9 tensors, and the parameters train 1: 9 tensors belong nowhere"
    ):
        check_start(start, method("freeze", freeze={"layers": 0, "patterns": ["model.norm.*"]}), llama_base)
    with pytest.raises(ValueError, match="holds whole tensors of the base .freeze or full., and tune.method is lora"):
        check_start(start, method(), llama_base)
