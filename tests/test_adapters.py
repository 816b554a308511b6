"""Adapters from elsewhere: of every PEFT version, with every option that is followed; and what does not fit is one error."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import stages.evaluate
import stages.export
import stages.predict_base
import stages.report
from tests.helpers.families import raw_checkpoint
from tests.helpers.foreign_adapters import LORA, VERSIONS, peft_adapter, plain_tensors, write_adapter
from tests.helpers.stages import run_main
from tests.helpers.tiny_models import canonical
from tests.helpers.workspace import CHATS, write_metrics, write_records
from tuneline.cli.app import app
from tuneline.export.folder import merge_into
from tuneline.export.merge import load_tuned, merge_mismatches
from tuneline.models.adapters.peft_config import read_config
from tuneline.models.loading import load_adapter, load_model

IDS = torch.tensor([[5, 9, 13, 40, 7, 30]])


def logits(model) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS).logits


def answer(base: Path, adapter: Path) -> torch.Tensor:
    return logits(load_adapter(load_model(base, torch.float32), adapter))


@pytest.fixture(scope="module")
def biased_base(tmp_path_factory) -> Path:
    """A tiny Llama with biases and an LM head of its own."""
    root = tmp_path_factory.mktemp("biased")
    return canonical(raw_checkpoint("Llama with ChatML", root / "source"), root / "base", "float32")


@pytest.fixture(scope="module")
def biased_bases(biased_base, tmp_path_factory) -> dict[str, Path]:
    """The same as it is stored in two dtypes."""
    root = tmp_path_factory.mktemp("narrow")
    narrow = canonical(raw_checkpoint("Llama with ChatML", root / "source"), root / "base", "bfloat16")
    return {"float32": biased_base, "bfloat16": narrow}


@pytest.mark.parametrize("version", VERSIONS)
def test_adapters_of_every_version_are_the_same_function(llama_base, tmp_path, version):
    tensors = plain_tensors(llama_base)
    folder = write_adapter(tmp_path / "theirs", LORA | VERSIONS[version], tensors)
    network = load_model(llama_base, torch.float32)
    for name, parameter in network.named_parameters():
        key = f"base_model.model.{name.removesuffix('.weight')}.lora_"
        if f"{key}A.weight" in tensors:
            parameter.data += 16 / 4 * tensors[f"{key}B.weight"] @ tensors[f"{key}A.weight"]
    torch.testing.assert_close(answer(llama_base, folder), logits(network), rtol=0, atol=1e-4)


OPTIONS = {
    "rsLoRA": {"target_modules": ["q_proj"], "use_rslora": True},
    "DoRA": {"target_modules": ["q_proj", "up_proj"], "use_dora": True},
    "ranks and scales of some": {
        "target_modules": ["q_proj", "v_proj"],
        "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.self_attn.v_proj": 3},
    },
    "one layer": {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
    "a regular expression": {"target_modules": r".*\.1\..*(q_proj|down_proj)"},
    "all linear layers but some": {"target_modules": "all-linear", "exclude_modules": ["o_proj"]},
    "biases of all layers": {"target_modules": ["q_proj"], "bias": "all"},
    "biases of adapted layers": {"target_modules": ["q_proj"], "bias": "lora_only"},
    "a bias of B": {"target_modules": ["q_proj"], "lora_bias": True},
    "a bias of B and of the layer": {"target_modules": ["q_proj"], "lora_bias": True, "bias": "lora_only"},
    "head and norms whole": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "norm"]},
    "embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
    "embeddings with DoRA": {"target_modules": ["embed_tokens"], "use_dora": True},
    "rows of the embeddings": {"target_modules": ["q_proj"], "trainable_token_indices": [3, 40]},
    "rows by name": {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [5, 9]}},
    "weights said to be transposed": {"target_modules": ["q_proj"], "fan_in_fan_out": True},
    "another start": {"target_modules": ["q_proj"], "init_lora_weights": "gaussian"},
}  # fmt: skip


MATRIX = [pytest.param(name, "float32", id=name) for name in OPTIONS]
MATRIX += [pytest.param(name, "bfloat16", id=f"{name}, narrow", marks=pytest.mark.matrix) for name in OPTIONS]


@pytest.mark.parametrize(("name", "dtype"), MATRIX)
@pytest.mark.filterwarnings("ignore")
def test_each_option_is_loaded_imported_merged_and_proven(workspace, biased_bases, name, dtype):
    root, base = workspace(export={"dtype": dtype, "max_delta_nll": 0.05}), biased_bases[dtype]
    tuned = peft_adapter(base, root / "theirs", **OPTIONS[name])
    expected = logits(tuned)
    (root / "models").mkdir()
    Path("models/base").symlink_to(base)
    torch.testing.assert_close(answer(base, Path("theirs")), expected, rtol=0, atol=1e-5)
    assert (logits(load_model(base, torch.float32)) - expected).abs().max() > 0.001
    Path("data/processed").mkdir(parents=True)
    Path("metrics").mkdir()
    write_records(root, CHATS[:2])
    write_metrics(root)
    app(["import-adapter", "theirs"], standalone_mode=False)
    torch.testing.assert_close(answer(base, Path("models/adapter")), expected, rtol=0, atol=1e-5)
    run_main(stages.export)
    report = json.loads(Path("metrics/export.json").read_text())
    assert report["max_logit_difference"] < (1e-4 if dtype == "float32" else 0.1)
    merged = logits(load_model(Path("models/merged"), torch.float32))
    torch.testing.assert_close(merged, expected, rtol=0, atol=1e-4 if dtype == "float32" else 0.1)


def spoil(change):
    """An adapter whose tensors were changed."""

    def make(base: Path, folder: Path) -> Path:
        tensors = plain_tensors(base)
        change(tensors)
        return write_adapter(folder, LORA, tensors)

    return make


A, B = (f"base_model.model.model.layers.0.self_attn.q_proj.lora_{side}.weight" for side in "AB")
CHATGLM = "base_model.model.transformer.encoder.layers.0"
MISFITS = {
    "a tensor is missing": (spoil(lambda one: one.pop(B)), "1 tensors are missing .first base_model.*q_proj.lora_B"),
    "one too many": (
        spoil(lambda one: one.update({A.replace("q_proj", "o_proj"): torch.ones(4, 32)})), "1 tensors belong nowhere .*o_proj"),
    "another rank": (
        spoil(lambda one: one.update({A: torch.ones(8, 32), B: torch.ones(32, 8)})),
        r"2 tensors have another shape .first .*lora_A.weight is \[8, 32\], expected \[4, 32\].*LORA of rank 4, alpha 16"),
    "another width": (
        spoil(lambda one: one.update({A: torch.ones(4, 64)})), r"1 tensors have another shape .*\[4, 64\], expected \[4, 32\]"),
    "names of another architecture": (
        lambda base, folder: write_adapter(folder, LORA | {"target_modules": ["c_attn"]}, plain_tensors(base)),
        "does not fit the base: LORA of rank 4.*PEFT says: .*c_attn"),
    "nothing learnt": (
        spoil(lambda one: one.update({name: torch.zeros_like(x) for name, x in one.items() if "lora_B" in name})),
        "changes nothing in 4 layers"),
    "an embedding of more tokens": (
        spoil(lambda one: one.update({"base_model.model.model.embed_tokens.weight": torch.ones(999, 32)})),
        r"holds base_model.model.model.embed_tokens.weight \[999, 32\], which is not the base's"),
    "ChatGLM's own names": (
        spoil(lambda one: one.update({f"{CHATGLM}.mlp.dense_4h_to_h.lora_A.weight": torch.ones(1)})),
        "an adapter of ChatGLM's own code, and the base is a 'llama', expected a native glm"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit_is_one_error(llama_base, tmp_path, name):
    make, message = MISFITS[name]
    folder = make(llama_base, tmp_path / "theirs")
    with pytest.raises(ValueError, match=message):
        load_adapter(load_model(llama_base, torch.float32), folder)


REFUSED = {
    "IA3": ({"peft_type": "IA3", "target_modules": ["q_proj"]}, "PEFT's type 'IA3', expected LORA, P_TUNING"),
    "no type": ({"r": 4}, "PEFT's type None"),
    "PiSSA that was not converted": (LORA | {"init_lora_weights": "pissa"}, "init_lora_weights 'pissa', by which the base"),
    "LoftQ": (LORA | {"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}}, "init_lora_weights 'loftq'"),
    "layers repeated": (LORA | {"layer_replication": [[0, 2]]}, r"has layer_replication: \[\[0, 2\]\], which is not followed"),
    "aLoRA": (LORA | {"alora_invocation_tokens": [3]}, "has alora_invocation_tokens"),
    "a classifier": (LORA | {"task_type": "SEQ_CLS"}, "task_type .*SEQ_CLS.*, expected CAUSAL_LM"),
    "a switch of a newer PEFT": (LORA | {"use_tomorrow": True, "tomorrow": None}, "PEFT and has use_tomorrow switched on"),
    "PEFT 0.2 on parts of a layer": (LORA | {"enable_lora": [True, False], "merge_weights": True}, "has enable_lora switched"),
    "a config of a newer PEFT": (LORA | {"tomorrow_config": {"a": 1}}, "has tomorrow_config switched on"),
    "virtual tokens with layers": ({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4, "modules_to_save": ["norm"]},
                                   r"has modules_to_save: \[.norm.\], which is not followed"),
    "PEFT's own refusal": (LORA | {"target_modules": "q.*", "layers_to_transform": [1]}, "refused by PEFT: .layers_to"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_followed_is_refused_by_name(tmp_path, name):
    config, message = REFUSED[name]
    write_adapter(tmp_path / "theirs", config, {})
    with pytest.raises(ValueError, match=message):
        read_config(tmp_path / "theirs")


def test_keys_of_a_newer_peft_that_are_off_are_named(tmp_path, capsys):
    write_adapter(tmp_path / "theirs", LORA | {"use_tomorrow": False, "tomorrow_group_size": 16}, {})
    config = read_config(tmp_path / "theirs")
    assert (config.r, config.use_rslora, config.use_dora, config.alpha_pattern) == (4, False, False, {})
    assert "does not know are ignored: tomorrow_group_size, use_tomorrow" in capsys.readouterr().err


def test_a_config_that_is_none_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"has no adapter_config.json"):
        read_config(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"adapter_config.json is no JSON"):
        read_config(tmp_path)
    (tmp_path / "adapter_config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"holds list, expected an object"):
        read_config(tmp_path)
    with (tmp_path / "adapter_config.json").open("wb") as file:
        file.truncate(20_000_001)
    with pytest.raises(ValueError, match=r"has 20,000,001 bytes, expected at most 20,000,000 of a config"):
        read_config(tmp_path)


class Payload:
    """What a pickle would run when it is read."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('code of a pickle ran')",))


def test_a_pickle_of_tensors_is_converted_and_any_other_is_never_run(llama_base, tmp_path):
    safe = write_adapter(tmp_path / "safe", LORA, plain_tensors(llama_base))
    pickled = tmp_path / "pickled"
    shutil.copytree(safe, pickled)
    (pickled / "adapter_model.safetensors").unlink()
    torch.save(plain_tensors(llama_base), pickled / "adapter_model.bin")
    assert torch.equal(answer(llama_base, pickled), answer(llama_base, safe))
    app(["import-adapter", str(pickled), str(tmp_path / "ours"), "--base", str(llama_base)], standalone_mode=False)
    assert [path.name for path in (tmp_path / "ours").glob("adapter_model.*")] == ["adapter_model.safetensors"]
    assert torch.equal(answer(llama_base, tmp_path / "ours"), answer(llama_base, safe))
    for content in ({"base_model.model.x": Payload()}, {"base_model.model.x": "text"}):
        torch.save(content, pickled / "adapter_model.bin")
        with pytest.raises(
            ValueError, match="adapter_model.bin holds more than tensors, or is cut short: it is a pickle"
        ):
            load_adapter(load_model(llama_base, torch.float32), pickled)
    (pickled / "adapter_model.bin").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match="holds more than tensors, or is cut short"):
        load_adapter(load_model(llama_base, torch.float32), pickled)


def test_biases_of_an_old_peft_are_not_lost(biased_base, tmp_path):
    """Before 0.6 the bias of an adapted layer was saved as the layer's own; PEFT of today would drop it."""
    tuned = peft_adapter(biased_base, tmp_path / "new", target_modules=["q_proj"], bias="all")
    tensors = load_file(tmp_path / "new/adapter_model.safetensors")
    old = {name.replace(".base_layer.bias", ".bias"): one for name, one in tensors.items()}
    assert len(old.keys() - tensors.keys()) == 2
    folder = write_adapter(tmp_path / "old", LORA | {"target_modules": ["q_proj"], "bias": "all"}, old)
    torch.testing.assert_close(answer(biased_base, folder), logits(tuned), rtol=0, atol=1e-5)


def test_the_lineage_says_where_it_came_from_and_that_it_was_not_trained_here(workspace, llama_base, capsys):
    root = workspace()
    (root / "models").mkdir()
    Path("models/base").symlink_to(llama_base)
    write_adapter(root / "theirs", LORA | VERSIONS["0.10"], plain_tensors(llama_base))
    (root / "theirs/optimizer.pt").write_bytes(b"not theirs to keep")
    app(["import-adapter", "theirs"], standalone_mode=False)
    said = capsys.readouterr()
    assert "it says that it was made for somebody/a-base; its shapes fit models/base" in said.err
    assert "dvc commit --force train" in said.out
    lineage = json.loads(Path("models/adapter/lineage.json").read_text())
    assert lineage["imported"]["name"] == "theirs"
    assert lineage["imported"]["files"].keys() == {"adapter_config.json", "adapter_model.safetensors"}
    assert lineage["params"]["lora"]["r"] == 4
    assert lineage["params"]["lora"]["alpha"] == 16
    assert str(root) not in json.dumps(lineage)
    assert json.loads(Path("metrics/train.json").read_text())["imported"] == "theirs"
    assert Path("metrics/loss.csv").read_text().count("\n") == 1
    # One of ours keeps its own lineage, and a second import of it the chain.
    app(["import-adapter", "models/adapter", "again"], standalone_mode=False)
    again = json.loads(Path("again/lineage.json").read_text())
    assert again["imported"]["lineage"] == lineage
    assert (
        Path("again/adapter_model.safetensors").read_bytes()
        == Path("models/adapter/adapter_model.safetensors").read_bytes()
    )
    save_file(plain_tensors(llama_base, r=5), root / "theirs/adapter_model.safetensors")
    with pytest.raises(SystemExit, match="theirs does not fit models/base: 8 tensors have another shape"):
        app(["import-adapter", "theirs"], standalone_mode=False)
    assert json.loads(Path("models/adapter/lineage.json").read_text()) == lineage


def test_it_is_evaluated_and_exported_as_if_it_was_trained(workspace, llama_base):
    root = workspace(evaluate={"max_new_tokens": 4}, export={"dtype": "float32"})
    (root / "models").mkdir()
    Path("models/base").symlink_to(llama_base)
    Path("data/processed").mkdir(parents=True)
    Path("metrics").mkdir()
    write_records(root, CHATS[:2])
    write_metrics(root)
    Path("data/processed/classes.json").write_text("{}")
    Path("metrics/loss.csv").write_text("step,loss\n1,3.5\n")
    run_main(stages.predict_base)
    write_adapter(root / "theirs", LORA | VERSIONS["0.6"], plain_tensors(llama_base))
    app(["import-adapter", "theirs"], standalone_mode=False)
    run_main(stages.evaluate)
    run_main(stages.report)
    assert "with an adapter from elsewhere (theirs)" in Path("metrics/report.html").read_text(encoding="utf-8")
    run_main(stages.export)
    assert json.loads(Path("models/merged/lineage.json").read_text())["imported"]["name"] == "theirs"
    card = Path("models/merged/README.md").read_text(encoding="utf-8")
    assert (
        "an adapter from elsewhere, `theirs` (lora), merged into its weights by Tuneline, which did not train it"
        in card
    )
    assert "it says that it was made for `somebody/a-base`" in card
    assert "| lora.r | `4` |" in card
    assert "None" not in card


@pytest.mark.filterwarnings("ignore")
def test_an_update_of_the_head_is_refused_by_name(llama_base, tmp_path):
    peft_adapter(llama_base, tmp_path / "theirs", target_modules=["lm_head", "q_proj"])
    with pytest.raises(
        ValueError, match=r"on \[lm_head, q_proj\]: a low-rank update of the LM head is not followed here"
    ):
        load_adapter(load_model(llama_base, torch.float32), tmp_path / "theirs")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "options", [{"target_modules": ["embed_tokens"]}, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}]
)
def test_what_is_tied_answers_unmerged_and_is_not_merged(canonical_base, tmp_path, options):
    tuned = peft_adapter(canonical_base, tmp_path / "theirs", **options)
    torch.testing.assert_close(answer(canonical_base, tmp_path / "theirs"), logits(tuned), rtol=0, atol=1e-5)
    with pytest.raises(
        ValueError, match="this base has one tensor for embeddings and LM head: merged, both would change"
    ):
        load_tuned(canonical_base, tmp_path / "theirs", torch.float32)


@pytest.mark.filterwarnings("ignore")
def test_rows_of_tied_embeddings_are_merged_into_both(canonical_base, tmp_path):
    tuned = peft_adapter(
        canonical_base, tmp_path / "theirs", target_modules=["q_proj"], trainable_token_indices=[3, 40]
    )
    expected = logits(tuned)
    merge_into(tmp_path / "merged", canonical_base, tmp_path / "theirs", "float32")
    assert merge_mismatches(tmp_path / "merged", canonical_base, tmp_path / "theirs", torch.float32) == []
    torch.testing.assert_close(logits(load_model(tmp_path / "merged", torch.float32)), expected, rtol=0, atol=1e-4)
