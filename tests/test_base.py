"""The base: three doors, one canonical form, and a check that it is sane."""

import json
import re
from pathlib import Path

import pytest
import torch

import stages.base
from tests.helpers.stages import run_main
from tests.helpers.tiny_models import base_section, make_base, make_tokenizer
from tuneline.base.canonicalize import canonicalize, prompt_of
from tuneline.base.perplexity import check, perplexities
from tuneline.base.source import open_source
from tuneline.models.chat_format import load_prompter
from tuneline.models.config import Base
from tuneline.models.loading import has_bfloat16, load_model, load_tokenizer, pick_dtype
from tuneline.runtime.hashing import folder_sha256

CPU = torch.device("cpu")


def section(**values) -> Base:
    empty = {"revision": None, "sha256": None, "dtype": "float32", "max_perplexity_zh": None, "max_perplexity_en": None}
    return Base.model_validate(empty | values)


def test_the_canonical_folder_is_complete(workspace, raw_base):
    workspace(base=base_section(raw_base))
    run_main(stages.base)
    names = {path.name for path in Path("models/base").iterdir()}
    assert names >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "chat_template.jinja",
        "generation_config.json",
        "SHA256SUMS",
    }
    model = load_model(Path("models/base"), torch.float32)
    prompter = load_prompter(load_tokenizer(Path("models/base")))
    assert model.generation_config.eos_token_id == prompter.stop_ids
    assert set(prompter.closing) <= set(prompter.stop_ids)
    report = json.loads(Path("metrics/base.json").read_text())
    assert report["family"] == "gemma"
    assert "<start_of_turn>model" in json.loads(Path("metrics/base_details.json").read_text())["base_prompt"]
    assert report["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert json.loads(Path("models/base/config.json").read_text())["dtype"] == "bfloat16"


def test_the_same_source_gives_the_same_bytes(workspace, raw_base):
    workspace(base=base_section(raw_base))
    run_main(stages.base)
    first = folder_sha256(Path("models/base"))
    run_main(stages.base)
    assert folder_sha256(Path("models/base")) == first


def test_a_folder_says_the_hash_to_put_there(raw_base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="base.sha256 is None") as error, open_source(section(source=str(raw_base))):
        pass
    printed = re.search(r"set base.sha256: ([0-9a-f]{64})", str(error.value)).group(1)
    with open_source(section(source=str(raw_base), sha256=printed)) as (folder, gguf):
        assert (folder, gguf) == (raw_base, None)


def test_a_file_of_the_source_that_changed_since_the_last_run_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = make_base(tmp_path / "tiny")
    params = section(source=str(folder), sha256=folder_sha256(folder))

    def refused(base, said: str) -> None:
        expected = re.escape(f" have {folder_sha256(folder)}{said}: if these")
        with pytest.raises(ValueError, match=expected), open_source(base):
            pass

    with open_source(params):
        pass
    (folder / "generation_config.json").write_text("{}")
    refused(params, " (generation_config.json has changed since the last run)")
    (folder / "added.txt").write_text("x")
    refused(params, " (added.txt is new since the last run, and 1 more)")
    (folder / "added.txt").unlink()
    (folder / "generation_config.json").unlink()
    refused(params, " (generation_config.json is gone since the last run)")
    # Of other files nothing is known.
    refused(section(source=str(folder), sha256="0" * 64), "")


def test_a_changed_file_changes_the_hash(tmp_path):
    folder = make_base(tmp_path / "tiny")
    before = folder_sha256(folder)
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    assert folder_sha256(folder) != before


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("./nowhere", "base.source is './nowhere', expected a folder"),
        ("gemma-4", "no base package is named 'gemma-4'"),
        ("owner/name", "base.revision is null, expected the 40 hex digits"),
        ("owner/name/more", "expected a package, owner/name of a hub"),
    ],
)
def test_a_source_that_is_none(workspace, source, message):
    workspace()
    with pytest.raises(ValueError, match=re.escape(message)), open_source(section(source=source)):
        pass


def test_a_folder_without_weights(workspace, tmp_path):
    workspace()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/config.json").write_text("{}")
    with (
        pytest.raises(ValueError, match="holds no model: expected config.json and"),
        open_source(section(source="./empty")),
    ):
        pass


def test_a_hub_that_cannot_be_reached_says_what_to_do():
    # HF_HUB_OFFLINE is set for all tests.
    with (
        pytest.raises(ValueError, match="could not be downloaded .* HF_ENDPOINT"),
        open_source(section(source="owner/name", revision="0" * 40)),
    ):
        pass


def test_remote_code_is_never_run(tmp_path):
    folder = make_base(tmp_path / "tiny")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "strange", "auto_map": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("raise SystemExit('remote code ran')")
    with pytest.raises(ValueError, match="brings code of its own for it, which is never run"):
        canonicalize(folder, None, section(source=str(folder)), tmp_path / "out")


def test_perplexity_of_noise_is_refused(canonical_base):
    model = load_model(canonical_base, torch.float32)
    found = perplexities(model, load_tokenizer(canonical_base))
    # A random model is about as surprised as its vocabulary is large.
    assert all(100 < value < 2000 for value in found.values())
    check(found, section(source="x"))
    with pytest.raises(ValueError, match="perplexity of the base on the fixed zh paragraph is"):
        check(found, section(source="x", max_perplexity_zh=100))


def test_a_head_that_does_more_than_multiply_is_found(canonical_base):
    model = load_model(canonical_base, torch.float32)
    model.get_output_embeddings().register_forward_hook(lambda module, given, logits: logits + 5 * logits.sin())
    with pytest.raises(ValueError, match="its head is not a plain matrix product"):
        perplexities(model, load_tokenizer(canonical_base))


def test_a_base_keeps_its_own_template_and_gets_ours_when_it_has_none():
    from tuneline.models.chat_templates import chat_template

    tokenizer = make_tokenizer("chatml")
    _, prompt = prompt_of(tokenizer)
    assert (prompt.chat_template, prompt.family) == ("tuneline", "chatml")
    assert "the base brings no chat template" in prompt.sentence()
    assert tokenizer.chat_template == chat_template("chatml")
    theirs = "{# theirs #}" + chat_template("chatml")
    tokenizer.chat_template = {"default": theirs, "tool_use": "{{ tools }}"}
    _, prompt = prompt_of(tokenizer)
    assert (prompt.chat_template, prompt.rules) == ("own", [])
    assert prompt.sentence() == "prompt: the base's own chat template"
    assert tokenizer.chat_template == theirs, "untouched"
    assert "{system}" in prompt.text
    assert "{answer}<|im_end|>" in prompt.text


def test_a_template_that_is_not_followed_is_refused_with_what_it_does(tmp_path):
    folder = make_base(tmp_path / "tiny")
    (folder / "chat_template.jinja").write_text("You are helpful. {{ messages[0].content }}")
    with pytest.raises(
        ValueError, match="leaves out texts of a plain conversation.*chat_template.jinja beside its weights"
    ):
        canonicalize(folder, None, section(source=str(folder)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_dtype_auto_is_what_the_hardware_has():
    assert pick_dtype("auto", CPU) is (torch.bfloat16 if has_bfloat16(CPU) else torch.float32)
    assert pick_dtype("bfloat16", CPU) is torch.bfloat16
    with pytest.raises(ValueError, match="dtype is float16 and the device is a CPU"):
        pick_dtype("float16", CPU)
