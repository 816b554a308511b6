"""The merged folder is the adapter, for every method, family and dtype; and a fault planted in it is named."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

import stages.export
import tuneline.export.folder
from tests.helpers.families import FAMILIES, raw_checkpoint
from tests.helpers.methods import METHODS, method, perturb_trained
from tests.helpers.stages import run_main
from tests.helpers.tiny_models import base_section
from tests.helpers.workspace import CHATS, shipped_sections, write_metrics, write_records
from tuneline.base.canonicalize import canonicalize
from tuneline.cli.app import app
from tuneline.export import verify
from tuneline.export.layerwise_fp32 import stored_dtype, upcast
from tuneline.export.merge import load_tuned, merged
from tuneline.export.updates import updates
from tuneline.models.adapters.source import PREFIX
from tuneline.models.config import Base
from tuneline.models.loading import load_adapter, load_model
from tuneline.runtime.hashing import file_sha256, write_sums
from tuneline.train import methods
from tuneline.train.run import save_initial

DTYPES = ("bfloat16", "float16", "float32")
MERGED = Path("models/merged")
FULL = [(name, family, dtype) for name in METHODS if name != "neftune" for family in FAMILIES for dtype in DTYPES]
QUICK = {(name, "Qwen3", "bfloat16") for name in METHODS} | {("lora", family, "bfloat16") for family in FAMILIES}
QUICK |= {("lora", "Gemma 3", dtype) for dtype in DTYPES}
MATRIX = [pytest.param(*one, marks=() if one in QUICK else pytest.mark.matrix, id="-".join(one)) for one in FULL]


def make_project(folder: Path, family: str, name: str, dtype: str) -> None:
    """What `export` reads, the adapter random, the base stored as `dtype`. The working directory must be `folder`."""
    params = Base.model_validate(base_section(raw_checkpoint(family, folder / "source")) | {"dtype": dtype})
    canonicalize(folder / "source", None, params, Path("models/base"))
    write_sums(Path("models/base"))
    changes = METHODS[name]
    chosen = method(changes.get("tune", {}).get("method", "lora"), lora={"r": 4, "dropout": 0.0} | changes.get("lora", {}),
                    ptuning=changes.get("ptuning", {}), freeze=changes.get("freeze", {}))  # fmt: skip
    model = methods.prepare(load_model(Path("models/base"), torch.float32), chosen)
    initial = save_initial(model, chosen, folder)
    perturb_trained(model, 3)
    methods.save(model, chosen, Path("models/adapter"), initial)
    sections = shipped_sections() | {
        one: getattr(chosen, one).model_dump() for one in ("tune", "lora", "ptuning", "freeze")
    }
    inputs = {"models/base/SHA256SUMS": file_sha256(Path("models/base/SHA256SUMS"))}
    Path("models/adapter/lineage.json").write_text(json.dumps({"params": sections, "inputs": inputs}))
    Path("data/processed").mkdir(parents=True)
    Path("metrics").mkdir()
    write_records(folder, CHATS[:3])
    write_metrics(folder)


@pytest.mark.parametrize(("name", "family", "dtype"), MATRIX)
def test_what_is_exported_is_what_was_trained(workspace, name, family, dtype):
    folder = workspace(export={"dtype": dtype, "max_delta_nll": 0.05})
    make_project(folder, family, name, dtype)
    run_main(stages.export)
    report = json.loads(Path("metrics/export.json").read_text())
    assert report["max_logit_difference"] < (2e-5 if dtype == "float32" else 0.1)
    assert verify.problems(MERGED) == []


def test_updates_take_the_memory_of_the_adapter_and_not_of_the_base(tmp_path):
    """All products of an adapter at once would be as large as the base in float32; here one alone is 16 TB."""
    wide, layer = 2**21, f"{PREFIX}model.layers.0.mlp.up_proj"
    tensors = {f"{layer}.lora_A.weight": torch.ones(1, wide), f"{layer}.lora_B.weight": torch.ones(wide, 1)}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    LoraConfig(r=1, target_modules=["up_proj"], base_model_name_or_path="base").save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert list(updates(tmp_path, tmp_path)) == ["model.layers.0.mlp.up_proj.weight"]


@pytest.mark.parametrize("name", ["lora", "rslora", "dora", "pissa", "lora and a norm"])
def test_a_layer_at_a_time_gives_the_bits_of_a_merge_in_float32(workspace, name):
    make_project(workspace(), "Qwen2", name, "bfloat16")
    base, adapter = Path("models/base"), Path("models/adapter")
    narrow = load_tuned(base, adapter, stored_dtype(base))
    assert {one.dtype for one in narrow.get_base_model().base_model.layers.parameters()} >= {torch.bfloat16}
    ours = merged(narrow, torch.bfloat16).state_dict()
    whole = (
        load_adapter(load_model(base, torch.float32), adapter).merge_and_unload(safe_merge=True).bfloat16().state_dict()
    )
    assert ours.keys() == whole.keys()
    assert [key for key in ours if not torch.equal(ours[key], whole[key])] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_a_layer_at_a_time_is_float32(workspace, family):
    make_project(workspace(), family, "lora", "bfloat16")
    base, adapter = Path("models/base"), Path("models/adapter")
    ids = torch.tensor([[5, 9, 13, 40, 7, 30]])
    narrow = load_tuned(base, adapter, torch.bfloat16)
    before = narrow(input_ids=ids).logits
    with torch.inference_mode(), upcast(narrow):
        ours = narrow(input_ids=ids).logits
    wide = load_adapter(load_model(base, torch.float32), adapter)
    assert torch.equal(ours, wide(input_ids=ids).logits)
    # It is left as it was.
    assert torch.equal(narrow(input_ids=ids).logits, before)


@pytest.fixture
def ready(workspace):
    """A project before export."""
    make_project(workspace(export={"dtype": "bfloat16"}), "Qwen3", "lora", "bfloat16")


def perturb(folder: Path, name: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors[name][0, 0] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_tensor_that_changed_on_its_way_to_the_disk_is_named(ready, monkeypatch):
    save = tuneline.export.folder.file_mismatches

    def on_a_bad_disk(model, folder):
        perturb(folder, "model.layers.1.mlp.up_proj.weight")
        return save(model, folder)

    monkeypatch.setattr(tuneline.export.folder, "file_mismatches", on_a_bad_disk)
    with pytest.raises(
        ValueError, match=r"1 tensors differ, first model.layers.1.mlp.up_proj.weight; is the disk sound"
    ):
        run_main(stages.export)
    assert not MERGED.exists()


def test_a_wrong_scale_is_named(ready, monkeypatch):
    load = tuneline.export.folder.load_tuned
    times = []

    def scaled(*arguments):
        model = load(*arguments)
        times.append(None)
        if len(times) == 1:
            for module in model.modules():
                if isinstance(getattr(module, "scaling", None), dict):
                    module.scaling = {key: 1.02 * value for key, value in module.scaling.items()}
        return model

    monkeypatch.setattr(tuneline.export.folder, "load_tuned", scaled)
    with pytest.raises(ValueError, match=r"not base plus adapter: 14 tensors are off, first model.layers.0"):
        run_main(stages.export)
    assert not MERGED.exists()


def test_answers_that_differ_fail_whatever_the_tensors_say(ready, monkeypatch):
    monkeypatch.setattr(tuneline.export.folder, "merge_mismatches", lambda *_: [])
    monkeypatch.setattr(tuneline.export.folder, "merged", lambda model, dtype: model.unload().to(dtype))
    with pytest.raises(ValueError, match=r"the merged model is not the adapter: delta_nll is \d"):
        run_main(stages.export)
    assert not MERGED.exists()


def test_a_base_that_does_not_say_where_answers_end_is_not_exported(ready):
    path = Path("models/base/generation_config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": 1}))
    with pytest.raises(
        ValueError, match=r"generation_config.json: eos_token_id is 1, and lacks \[\d+\] \(<|im_end|>\)"
    ):
        run_main(stages.export)
    assert not MERGED.exists()


@pytest.fixture(scope="module")
def whole(made):
    return made / "models/merged"


def test_the_folder_has_a_card_that_says_what_it_is(whole):
    assert verify.problems(whole) == []
    text = (whole / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\nlanguage: zh\nlibrary_name: transformers\n")
    for said in (
        "模型的回答不构成医疗或法律建议",
        "| ROUGE-L | 2 items (question answering) | 12.5 | 12.5 | +2.5 (−1.0 … +6.0) | 0.250 |",
        "on 3 general prompts the NLL of written answers went from 0.25 to 0.50",
        "| lora.r | `16` |",
    ):
        assert said in text
    assert "None" not in text
    assert str(whole) not in text


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


FAULTS = {
    **{
        f"a byte of {name}": (lambda folder, name=name: flip(folder / name), rf"{name} has changed: its sha256 is")
        for name in ("model.safetensors", "tokenizer.json", "lineage.json", "README.md", "chat_template.jinja")
    },
    "no generation config": (
        lambda folder: (folder / "generation_config.json").unlink(), "generation_config.json is missing"),
    "no sums": (lambda folder: (folder / "SHA256SUMS").unlink(), "SHA256SUMS is missing"),
    "one more file": (lambda folder: (folder / "x.py").write_text("x"), "x.py is not listed in SHA256SUMS"),
    "a shard cut short": (
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-9]),
        "model.safetensors is cut short or no safetensors file"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "there are no weights"),
    "an empty config": (lambda folder: (folder / "config.json").write_text(""), "config.json is no JSON"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_folder_is_named(whole, tmp_path, fault, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    do, message = FAULTS[fault]
    do(folder)
    with pytest.raises(SystemExit) as ended:
        app(["verify", str(folder)])
    assert ended.value.code == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("model.norm.weight"), "model.safetensors: model.norm.weight is missing"),
        (
            lambda tensors: tensors.update({"model.norm.weight": torch.ones(3)}),
            "model.norm.weight has shape (3,), expected",
        ),
        (lambda tensors: tensors["model.norm.weight"].fill_(float("nan")), "model.norm.weight is not finite"),
    ],
)
def test_weights_that_are_not_the_configs_are_named_even_with_fresh_sums(whole, tmp_path, change, message):
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_sums(folder)
    (problem,) = verify.problems(folder)
    assert message in problem


def test_shards_are_checked_against_their_index(workspace, monkeypatch):
    monkeypatch.setattr(tuneline.export.folder, "LARGEST", 20_000)
    make_project(workspace(export={"dtype": "bfloat16"}), "Qwen3", "lora", "bfloat16")
    run_main(stages.export)
    shards = sorted(MERGED.glob("*.safetensors"))
    assert len(shards) > 2
    assert verify.problems(MERGED) == []
    shards[1].unlink()
    found = verify.problems(MERGED)
    assert found[0] == f"{shards[1].name} is missing, and SHA256SUMS lists it"
    write_sums(MERGED)
    assert any(problem.startswith(f"{shards[1].name}: model.") for problem in verify.problems(MERGED))
