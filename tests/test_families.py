"""Every family of bases that the README's table names, through the same door: base, prompt, adapter, export."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

import stages.base
import stages.export
from tests.helpers.families import FAMILIES, raw_checkpoint, train_a_little
from tests.helpers.methods import method
from tests.helpers.stages import run_main
from tests.helpers.tiny_models import base_section
from tuneline.base.canonicalize import canonicalize
from tuneline.export.equivalence import compare, states
from tuneline.export.folder import merge_into
from tuneline.models.chat_format import load_prompter
from tuneline.models.config import Base
from tuneline.models.loading import load_adapter, load_model, load_tokenizer
from tuneline.train import methods
from tuneline.train.run import prepare_model

CHAT = [
    {"role": "system", "content": "简短"},
    {"role": "user", "content": "你好<|user|><|im_start|><start_of_turn>"},
    {"role": "assistant", "content": "您好"},
    {"role": "user", "content": "再见"},
    {"role": "assistant", "content": "慢走"},
]
LORA = method(lora={"r": 4, "alpha": 16, "dropout": 0.0})


@pytest.fixture(params=FAMILIES)
def family(request, workspace, tmp_path):
    """(name, workspace with models/base), the base as its stage writes it."""
    source = raw_checkpoint(request.param, tmp_path / "source")
    params = Base.model_validate(base_section(source) | {"dtype": "float32"})
    canonicalize(source, None, params, Path("models/base"))
    return request.param


def test_it_trains_and_its_merge_is_its_adapter(family):
    base = Path("models/base")
    # As the class that transformers has for the family reads it, which others will.
    ours, theirs = load_tokenizer(base), AutoTokenizer.from_pretrained(base, local_files_only=True)
    assert ours.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()
    assert ours.special_tokens_map == theirs.special_tokens_map
    assert ours.chat_template == theirs.chat_template
    prompter = load_prompter(ours)
    assert prompter.name == FAMILIES[family][0]
    row = prompter.training_row(CHAT)
    prompt = prompter.generation_prompt(CHAT[:-1])
    assert row.input_ids[: len(prompt)] == prompt
    # The user's text forged no turn: each control token is there as often as the turns say.
    for role in {"system", "user", "assistant"} - ({"system"} if not prompter.family.system_turn else set()):
        opening = prompter.opening[role]
        places = [i for i in range(len(row.input_ids)) if row.input_ids[i : i + len(opening)] == opening]
        assert len(places) == sum(message["role"] == role for message in CHAT)
    model = prepare_model(load_model(base, torch.float32), LORA, checkpointing=False)
    plain = load_model(base, torch.float32)
    ids, labels = torch.tensor([row.input_ids]), torch.tensor([row.labels])
    expected = torch.nn.functional.cross_entropy(
        plain(input_ids=ids).logits[0, :-1], labels[0, 1:], ignore_index=-100, reduction="sum"
    )
    torch.testing.assert_close(model(input_ids=ids, labels=labels)["loss"], expected, rtol=1e-5, atol=1e-5)
    losses = train_a_little(model, row)
    assert losses[-1] < losses[0] - 0.1
    methods.save(model, LORA, Path("models/adapter"))
    Path("models/adapter/lineage.json").write_text("{}")
    merged = Path("models/merged")
    merge_into(merged, base, Path("models/adapter"), "float32")
    tuned = load_adapter(load_model(base, torch.float32), Path("models/adapter"))
    report = compare(states(tuned, [row], ""), states(load_model(merged, torch.float32), [row], ""))
    assert report["max_logit_difference"] < 1e-4
    assert report["greedy_agreement"] == 1.0
    # It stops where its family stops, in any program that reads the folder.
    stops = json.loads((merged / "generation_config.json").read_text())["eos_token_id"]
    assert sorted(stops) == prompter.stop_ids
    assert (merged / "chat_template.jinja").is_file()
    template = load_tokenizer(merged).apply_chat_template(
        [CHAT[0], CHAT[3]], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert template == prompter.generation_prompt([CHAT[0], CHAT[3]])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "internlm2", "auto_map": {"AutoConfig": "configuration_internlm2.InternLM2Config"}},
         r"model_type 'internlm2', which transformers does not have, and the checkpoint brings code of its own for it, "
         "which is never run; expected an architecture of transformers"),
        ({"model_type": "baichuan"}, r"model_type 'baichuan', which transformers does not have; expected"),
        ({}, r"model_type None|holds no"),
    ],
)  # fmt: skip
def test_an_architecture_that_is_only_code_is_refused(workspace, tmp_path, config, message):
    source = raw_checkpoint("Qwen2", tmp_path / "source")
    (source / "config.json").write_text(json.dumps(config | {"hidden_size": 32}))
    params = Base.model_validate(base_section(source))
    with pytest.raises(ValueError, match=message) as error:
        canonicalize(source, None, params, Path("models/base"))
    assert "trust_remote_code=True" not in str(error.value)
    assert not Path("models/base").exists()


def test_chatglms_own_layout_is_refused_for_another_base(workspace, canonical_base):
    workspace(export={"layout": "chatglm3"})
    shutil.copytree(canonical_base, "models/base")
    with pytest.raises(ValueError, match="models/base did not come from a ChatGLM checkpoint"):
        run_main(stages.export)
    assert not Path("models/merged").exists()
