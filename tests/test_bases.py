"""Every family of bases, as published, through all stages: base, train, resume, evaluate, export, verify."""

import json
import os
import shutil
import traceback
from pathlib import Path

import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file

import stages.base
import stages.evaluate
import stages.export
import stages.predict_base
from tests.helpers import bases_table
from tests.helpers.many_trainings import train_all
from tests.helpers.paths import ROOT
from tests.helpers.published import PUBLISHED, publish
from tests.helpers.stages import run_main
from tests.helpers.tiny_models import base_section
from tests.helpers.workspace import CHATS, write_metrics, write_records
from tuneline.export import verify
from tuneline.formats.token_file import write_tokens
from tuneline.models.chat_format import load_prompter
from tuneline.models.loading import load_model, load_tokenizer

MATRIX = [pytest.param(name, marks=() if family.quick else pytest.mark.matrix) for name, family in PUBLISHED.items()]
CHANGES = {
    "base": {},
    "lora": {"r": 4, "alpha": 8, "dropout": 0.0},
    "train": {"max_steps": 4, "epochs": 9, "learning_rate": 0.01, "batch_size": 4, "micro_batch_size": 2, "save_steps": 2,
              "logging_steps": 1, "dtype": "float32", "warmup_ratio": 0.0},
    "evaluate": {"max_new_tokens": 4, "max_thinking_tokens": 4, "batch_size": 3, "dtype": "float32"},
    "export": {"dtype": "float32", "layout": "native"},
}  # fmt: skip


@pytest.fixture(scope="module")
def worked(request, tmp_path_factory) -> dict[str, Path]:
    """A project's folder for each chosen family, as `train` leaves it; failed.txt says what went wrong."""
    root, here = tmp_path_factory.mktemp("bases"), Path.cwd()
    items = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    names = list(dict.fromkeys(item.callspec.params["family"] for item in items if "family" in item.callspec.params))
    folders = {name: root / str(number) for number, name in enumerate(names)}
    for name, folder in folders.items():
        folder.mkdir()
        os.chdir(folder)
        try:
            make_project(name, folder)
        except Exception:
            (folder / "failed.txt").write_text(traceback.format_exc())
        os.chdir(here)
    alive = [folder for folder in folders.values() if not (folder / "failed.txt").exists()]
    train_all([(str(folder), None) for folder in alive], may_fail=True)
    alive = [folder for folder in alive if not (folder / "failed.txt").exists()]
    train_all([(str(killed(folder)), "scratch/checkpoint-2") for folder in alive], may_fail=True)
    return folders


def make_project(name: str, folder: Path) -> None:
    """A published checkpoint, `base` run on it, and rows of tokens, in the working directory."""
    source = publish(name, folder / "source")
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for section, values in (CHANGES | {"base": base_section(source) | {"dtype": "float32"}}).items():
        params[section] |= values
    params["export"]["layout"] = "original" if has_own_layout(name) else "native"
    Path("params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True), encoding="utf-8")
    Path("data/processed").mkdir(parents=True)
    Path("metrics").mkdir()
    run_main(stages.base)
    prompter = load_prompter(load_tokenizer(Path("models/base")))
    write_tokens(Path("data/processed/tokens.safetensors"), [prompter.training_row(chat) for chat in CHATS])
    write_records(folder, CHATS[:3])


def has_own_layout(name: str) -> bool:
    return bool(PUBLISHED[name].parts) or PUBLISHED[name].config == "ChatGLM"


def killed(folder: Path) -> Path:
    """The same project, its training stopped after the first checkpoint."""
    again = folder.with_name(f"{folder.name}-again")
    (again / "models").mkdir(parents=True)
    (again / "models/base").symlink_to(folder / "models/base")
    (again / "metrics").mkdir()
    for name in ("params.yaml", "metrics/loss.csv"):
        shutil.copy(folder / name, again / name)
    shutil.copytree(folder / "data", again / "data")
    shutil.copytree(folder / "scratch", again / "scratch")
    shutil.rmtree(again / "scratch/checkpoint-4")
    return again


def weights(folder: Path) -> bytes:
    return (folder / "models/adapter/adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("family", MATRIX)
def test_a_base_as_published_goes_through_all_stages(worked, monkeypatch, family):
    folder = worked[family]
    monkeypatch.chdir(folder)
    again = folder.with_name(f"{folder.name}-again")
    for one in (folder, again):
        assert not (one / "failed.txt").exists(), (one / "failed.txt").read_text()
    report = json.loads(Path("metrics/train.json").read_text())
    assert report["last_loss"] < report["first_loss"]
    assert weights(again) == weights(folder)
    trained = Path("metrics/train.json").read_text()
    write_metrics(folder)
    Path("metrics/train.json").write_text(trained)
    run_main(stages.predict_base)
    run_main(stages.evaluate)
    assert json.loads(Path("metrics/eval.json").read_text())["items"] == 3
    run_main(stages.export)
    exported = json.loads(Path("metrics/export.json").read_text())
    assert exported["max_logit_difference"] < 1e-4
    assert exported["greedy_agreement"] == 1.0
    assert verify.problems(Path("models/merged")) == []
    assert Path("models/merged/chatglm3").is_dir() == (PUBLISHED[family].config == "ChatGLM")
    if PUBLISHED[family].parts:
        whole_is_as_it_came(Path("source"), Path("models/merged"))


def whole_is_as_it_came(source: Path, merged: Path) -> None:
    """In the layout of the checkpoint: all other parts bit for bit, and a text part that says what the merged model says."""
    came, went = load_file(source / "model.safetensors"), load_file(merged / "original/model.safetensors")
    assert went.keys() == came.keys()
    left_out = json.loads(Path("metrics/base_details.json").read_text())["left_out"]
    assert left_out
    for name in came:
        parts = name.split(".")
        assert torch.equal(went[name], came[name]) or not set(parts) & set(left_out), name
    assert (merged / "original/preprocessor_config.json").read_bytes() == (
        source / "preprocessor_config.json"
    ).read_bytes()
    (kind,) = json.loads((source / "config.json").read_text())["architectures"]
    ids = torch.arange(5, 35)[None]
    whole = getattr(transformers, kind).from_pretrained(merged / "original", dtype=torch.float32).eval()
    with torch.inference_mode():
        torch.testing.assert_close(whole(input_ids=ids).logits, load_model(merged, torch.float32)(input_ids=ids).logits)


@pytest.mark.parametrize("family", MATRIX)
@pytest.mark.parametrize("document", bases_table.WORDS)
def test_the_table_of_the_docs_is_current(worked, request, document, family):
    """`pytest tests/test_bases.py --write-tables` writes it."""
    details = json.loads((worked[family] / "metrics/base_details.json").read_text(encoding="utf-8"))
    now = bases_table.row(document, family, details)
    if request.config.getoption("--write-tables"):
        bases_table.write(document, now, PUBLISHED)
    assert bases_table.rows(document).get(family) == now


@pytest.mark.parametrize("document", bases_table.WORDS)
def test_the_table_of_the_docs_has_every_family(document):
    assert list(bases_table.rows(document)) == list(PUBLISHED)


@pytest.mark.parametrize("family", MATRIX)
@torch.inference_mode()
def test_padding_changes_no_logits(worked, family):
    """On the left with a mask and positions, as generation pads, and on the right without, as training does."""
    model = load_model(worked[family] / "models/base", torch.float32)
    torch.manual_seed(3)
    ids = torch.randint(5, 200, (1, 21))
    other = torch.randint(5, 200, (1, 30))
    alone = model(input_ids=ids).logits[0]
    pad = torch.full((1, 9), model.config.pad_token_id)
    right = model(input_ids=torch.cat([torch.cat([ids, pad], 1), other])).logits[0, :21]
    mask = torch.ones(2, 30, dtype=torch.long)
    mask[0, :9] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    padded = torch.cat([torch.cat([pad, ids], 1), other])
    left = model(input_ids=padded, attention_mask=mask, position_ids=positions).logits[0, 9:]
    torch.testing.assert_close(right, alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(left, alone, rtol=1e-4, atol=1e-4)
