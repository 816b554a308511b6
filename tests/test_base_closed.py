"""A base's, adapter's or merged model's folder is one closed thing: one that is not is one sentence, or the right model."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import stages.base
from tests.helpers.foreign_adapters import LORA, plain_tensors, write_adapter
from tests.helpers.hostile_bases import (
    EMBEDDINGS,
    INDEX,
    LISTED,
    NORM,
    adapter_beside,
    config,
    index,
    link,
    many,
    mapped,
    moved,
    pipe,
    tensors,
    text,
    values_of,
)
from tests.helpers.published import publish
from tests.helpers.stages import run_main
from tests.helpers.tiny_models import base_section, canonical
from tuneline.base.canonicalize import canonicalize
from tuneline.export import verify
from tuneline.models.adapters.importing import import_adapter
from tuneline.models.adapters.source import SAFE
from tuneline.models.config import Base
from tuneline.models.loading import load_model
from tuneline.runtime.hashing import file_sha256, write_sums

ITSELF = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
"""Files of a base that are the model."""


@pytest.fixture(scope="module")
def sound(raw_base, tmp_path_factory) -> dict[str, str]:
    """Hashes of the files that the sound checkpoint becomes."""
    folder = canonical(raw_base, tmp_path_factory.mktemp("sound") / "base", "bfloat16")
    return {name: file_sha256(folder / name) for name in ITSELF}


def section_of(source: Path) -> dict:
    """Section `base` with the folder's hash, where it has one."""
    try:
        return base_section(source)
    except (OSError, ValueError):
        return base_section(source.parent / "none") | {"source": str(source)}


def made(name: str, raw_base: Path, folder: Path) -> Path:
    """The hostile folder, two levels down, as the hub's cache has it."""
    source = folder / "hub/snapshots/0123"
    source.parent.mkdir(parents=True)
    shutil.copytree(raw_base, source)
    LISTED[name].make(source)
    return source


@pytest.mark.parametrize("name", LISTED)
def test_a_hostile_folder_is_one_sentence_or_the_right_base(workspace, raw_base, sound, tmp_path, name):
    source = made(name, raw_base, tmp_path)
    workspace(base=section_of(source))
    expected = LISTED[name].said
    if not expected:
        run_main(stages.base)
        assert {one: file_sha256(Path("models/base") / one) for one in ITSELF} == sound
        for notice in source.glob("NOTICE"):
            assert Path("models/base/NOTICE").read_bytes() == notice.read_bytes()
        return
    with pytest.raises(ValueError, match=expected) as error:
        run_main(stages.base)
    assert re.search(r"base.source|of the base|the base does", str(error.value))
    assert len(str(error.value)) < 1500
    assert not Path("models").exists() or not list(Path("models").iterdir())


PUBLISHED = {
    "an expert less": (
        "Qwen3-MoE", lambda held: held.pop("model.layers.0.mlp.experts.1.up_proj.weight"),
        r"lack 1 tensors of a Qwen3MoeForCausalLM, first model\.layers\.0\.mlp\.experts\.1\.up_proj\.weight"),
    "an expert of another shape": (
        "Qwen3-MoE", lambda held: held.update({"model.layers.0.mlp.experts.1.up_proj.weight": torch.ones(3, 5)}),
        r"have 1 tensors in another shape, first model\.layers\.0\.mlp\.experts\.1\.up_proj\.weight in \[3, 5\]"),
    "an expert more": (
        "Mixtral", lambda held: held.update(
            {name.replace("experts.3", "experts.4"): one.clone() for name, one in held.items() if "experts.3" in name}),
        r"tensors (in another shape|that a MixtralForCausalLM)"),
    "a layer behind the one that looks ahead": (
        "GLM-4.5-Air", lambda held: held.update({"model.layers.3.enorm.weight": torch.ones(32)}), r"hold 1 tensors that"),
    "more in the part of text": (
        "Gemma 3 4B, MedGemma", lambda held: held.update({"language_model.model.layers.0.extra.weight": torch.ones(2)}),
        r"hold 1 tensors that a Gemma3ForCausalLM of its config\.json has not, first model\.layers\.0\.extra\.weight"),
    "less in the part of text": (
        "Qwen3.5", lambda held: held.pop("model.language_model.layers.0.mlp.up_proj.weight"), r"lack 1 tensors of a Qwen3_5"),
    "more of ChatGLM": (
        "ChatGLM2, ChatGLM3", lambda held: held.update({"transformer.prefix_encoder.weight": torch.ones(2)}),
        r"1 that such a network has not, first transformer\.prefix_encoder"),
}  # fmt: skip
"""Changes of tensors that families have in forms of their own."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_tensors_are_accounted_for_in_every_form(tmp_path, name):
    family, change, expected = PUBLISHED[name]
    source = publish(family, tmp_path / "source")
    tensors(change)(source)
    with pytest.raises(ValueError, match=expected) as error:
        canonicalize(source, None, Base.model_validate(base_section(source)), tmp_path / "out")
    assert "base.source" in str(error.value)
    assert not (tmp_path / "out").exists()


CHATGLM = {
    "an index to another folder": (index(mapped("../elsewhere/model.safetensors")), r"names '\.\./elsewhere"),
    "a link out": (moved("model.safetensors"), r"model\.safetensors is a link to"),
    "a tokenizer that is a link out": (moved("tokenizer.model"), r"tokenizer\.model is a link to"),
    "a pipe": (pipe("tokenizer.model"), r"tokenizer\.model is a pipe"),
    "a size of 2^70": (config(hidden_size=2**70), r"base\.source"),
    "layers that are a list": (config(num_layers=[2]), r"num_layers is \[2\]"),
    "a pickle of no values": (
        lambda folder: (
            torch.save({"transformer.a": torch.empty(2, device="meta")}, folder / "pytorch_model.bin"),
            (folder / "model.safetensors").unlink()),
        r"holds something else than tensors by name"),
    "a pickle's index to another folder": (
        lambda folder: (
            (folder / "model.safetensors").unlink(),
            text("pytorch_model.bin.index.json", json.dumps({"weight_map": {"a": "../pytorch_model.bin"}}))(folder)),
        r"names '\.\./pytorch_model\.bin'"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHATGLM)
def test_a_hostile_folder_of_chatglm_is_one_sentence(tmp_path, name):
    source = publish("ChatGLM2, ChatGLM3", tmp_path / "source")
    change, expected = CHATGLM[name]
    change(source)
    with pytest.raises(ValueError, match=expected) as error:
        canonicalize(
            source, None, Base.model_validate({**base_section(tmp_path), "source": str(source)}), tmp_path / "out"
        )
    assert "base.source" in str(error.value)


def of_adapter(change):
    def make(folder: Path) -> None:
        held = load_file(folder / SAFE)
        change(held)
        save_file(held, folder / SAFE, metadata={"format": "pt"})

    return make


def pickled(content: object):
    return lambda folder: ((folder / SAFE).unlink(), torch.save(content, folder / "adapter_model.bin"))


def first(held: dict) -> str:
    return min(held)


def config_of(**values):
    return values_of("adapter_config.json", **values)


ADAPTERS = {
    "weights that are a link out": (moved(SAFE), r"adapter_model\.safetensors is a link to '/.*', out of its folder"),
    "a config that is a link out": (moved("adapter_config.json"), r"adapter_config\.json is a link to"),
    "a lineage that is a link out": (link("lineage.json", "/etc/hostname"), r"lineage\.json is a link to"),
    "weights that are a pipe": (pipe(SAFE), r"is a pipe"),
    "a name with a line end": (text("a\nb", "x"), r"has '\\n' in its name"),
    "not a number": (of_adapter(lambda held: held[first(held)].fill_(float("nan"))), r"1 tensors are not finite, first base_m"),
    "a pickle of what is not a number": (pickled({"a": torch.full((2,), float("inf"))}), r"1 tensors are not finite"),
    "a pickle without values": (pickled({"a": torch.empty(2, device="meta")}), r"holds more than tensors"),
    "a pickle of numbered tensors": (pickled({1: torch.ones(2)}), r"holds more than tensors"),
    "a pickle of a sparse tensor": (pickled({"a": torch.eye(2).to_sparse()}), r"holds more than tensors"),
    "a torn file": (text(SAFE, "text"), r"can't be read as safetensors"),
    "changed weights that are torn": (text("changed.safetensors", "text"), r"can't be read as safetensors"),
    "many tensors": (
        lambda folder: (many(400_000)(folder), (folder / "model.safetensors").rename(folder / SAFE)), r"holds 400,000 tensors"),
    "a tensor missing": (of_adapter(lambda held: held.pop(first(held))), r"1 tensors are missing"),
    "a tensor too much": (
        of_adapter(lambda held: held.update({"base_model.model.x.lora_A.weight": torch.ones(4, 4)})), r"theirs"),
    "no tensors": (of_adapter(dict.clear), r"theirs"),
    "a config that is a list": (text("adapter_config.json", "[]"), r"holds list, expected an object"),
    "a config nested 100,000 deep": (text("adapter_config.json", "[" * 100_000), r"is no JSON"),
    "a config that is too long": (text("adapter_config.json", '{"r": ' + "9" * 5000 + "}"), r"is no JSON"),
    "a kind that is a list": (config_of(peft_type=["LORA"]), r"PEFT's type \['LORA'\]"),
    "a rank of 2^70": (config_of(r=2**70), r"has r 1180591620717411303424, expected a positive integer"),
    "a rank of a billion": (config_of(r=10**9), r"theirs"),
    "a rank that is true": (config_of(r=True), r"has r true, expected a positive integer"),
    "a scale that is text": (config_of(lora_alpha="x"), r'has "x" for a rank or a scale'),
    "a scale that is not a number": (config_of(lora_alpha=float("nan")), r"NaN for a"),
    "patterns that are a list": (config_of(rank_pattern=[1]), r"rank_pattern or alpha_pattern that is no object"),
    "targets that are no expression": (config_of(target_modules="(["), r"does not fit the base"),
    "targets that are numbers": (config_of(target_modules=[1, 2]), r"theirs"),
    "targets that are an object": (config_of(target_modules={"a": 1}), r"theirs"),
    "code to import": (config_of(auto_mapping={"base_model_class": "X", "parent_library": "code_of_theirs"}), ""),
    "a lineage that is a list": (text("lineage.json", "[]"), r"lineage\.json holds list"),
    "a lineage nested 100,000 deep": (text("lineage.json", "[" * 100_000), r"lineage\.json is no JSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_hostile_adapter_is_one_sentence_and_nothing_is_written(llama_base, tmp_path, name):
    source = write_adapter(tmp_path / "theirs", LORA, plain_tensors(llama_base))
    (tmp_path / "theirs/model.safetensors").unlink(missing_ok=True)
    change, expected = ADAPTERS[name]
    change(source)
    if not expected:
        import_adapter(source, llama_base, tmp_path / "ours")
        return
    with pytest.raises(ValueError, match=expected) as error:
        import_adapter(source, llama_base, tmp_path / "ours")
    assert len(str(error.value)) < 1500
    assert not (tmp_path / "ours").exists()


LATER = {
    "a tensor missing": (tensors(lambda held: held.pop(NORM)), "lack 1 tensors", "model.norm.weight is missing"),
    "a tensor too much": (
        tensors(lambda held: held.update({"model.extra.weight": torch.ones(2)})),
        "hold 1 tensors that", "model.extra.weight is no tensor of such a model"),
    "a tensor of another shape": (
        tensors(lambda held: held.update({NORM: torch.ones(3)})),
        "have 1 tensors in another shape", "has shape (3,), expected"),
    "no tensors": (tensors(dict.clear), "holds no weights", "model.norm.weight is missing"),
    "other sizes": (config(intermediate_size=128), "have 6 tensors in another shape", "has shape (32, 64), expected"),
    "an adapter beside": (adapter_beside, "adapter_config.json", "adapter_config.json is not listed"),
    "weights that are a link out": (moved("model.safetensors"), "out of its folder", "out of its folder"),
    "weights that are a pipe": (pipe("model.safetensors"), "is a pipe", "is a pipe"),
    "an index to another folder": (
        index(mapped("../x.safetensors")), "names '../x.safetensors'", "said to be in ../x.safetensors"),
    "an index that is a list": (index([1]), "index.json is broken", f"{INDEX} holds list"),
    "a config that is a list": (text("config.json", "[]"), "config.json", "config.json holds list"),
    "a config of no kind": (text("config.json", "{}"), "", "config.json is not what a model of transformers has"),
    "a config without heads": (config(num_attention_heads=0), "", "a model of transformers has: ZeroDivisionError"),
    "a head that is the embeddings in another shape": (
        tensors(lambda held: held.update({"lm_head.weight": held[EMBEDDINGS][:-1].clone()})),
        "", "lm_head.weight is not model.embed_tokens.weight, and config.json says that both are one"),
    "a head that is not the embeddings": (
        tensors(lambda held: held.update({"lm_head.weight": held[EMBEDDINGS] + 1})),
        "an LM head that is not its embeddings", "lm_head.weight is not model.embed_tokens.weight, and config.json says"),
    "a tokenizer of nothing": (text("tokenizer.json", "{}"), "", "tokenizer.json is not what a model of"),
    "settings that are a list": (text("generation_config.json", "[]"), "", "generation_config.json holds list"),
    "a torn file": (text("model.safetensors", "x" * 99), "can't be read as safetensors", "can't be read as safetensors"),
    "a name with a line end": (text("a\nb", "x"), "has '\\n' in its name", "has '\\n' in its name"),
}  # fmt: skip
"""What is wrong with a folder that a stage wrote: the change, what loading it says, what `tuneline verify` says."""


@pytest.mark.parametrize("name", LATER)
def test_what_a_later_stage_reads_is_closed_and_accounted_for(made, tmp_path, name):
    folder = tmp_path / "merged"
    shutil.copytree(made / "models/merged", folder)
    change, loading, verifying = LATER[name]
    # What can be in no list of files is found without one.
    sums = not any(word in verifying for word in ("listed", "pipe", "out of", "its name"))
    change(folder)
    if sums:
        write_sums(folder)
    found = verify.problems(folder)
    assert any(verifying in problem for problem in found), found
    assert all(len(problem) < 1500 for problem in found)
    if loading:
        with pytest.raises(ValueError, match=re.escape(loading)):
            load_model(folder, torch.float32)
