"""ChatGLM3's logits without its code: those of the reference and of the equations, and its weights cast once."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.chatglm3 import RULES, SIZES, checkpoint, converted, equations
from tuneline.models.chat_format import load_prompter
from tuneline.models.loading import load_model, load_tokenizer


def test_the_references_logits_and_continuations(golden):
    folder, expected, logits = golden
    model = load_model(folder, torch.float32)
    for number, chat in enumerate(expected["chats"]):
        ids = torch.tensor([chat["input_ids"]])
        with torch.inference_mode():
            found = model(input_ids=ids).logits[0]
            said = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=16,
                min_new_tokens=16,
                do_sample=False,
            )
        np.testing.assert_allclose(found.numpy(), logits[f"case{number}"], rtol=1e-5, atol=1e-5)
        assert said[0, ids.shape[1] :].tolist() == chat["greedy_16"]


@pytest.mark.parametrize(("name", "layout", "rule"), zip(SIZES, ("one", "shards", "bin"), RULES, strict=True))
def test_logits_are_those_of_the_equations(tmp_path, pieces, name, layout, rule):
    tensors, config = checkpoint(tmp_path / "source", pieces[rule][0], SIZES[name], layout)
    folder = converted(tmp_path / "source", tmp_path / "native")
    model = load_model(folder, torch.float32)
    assert type(model).__name__ == "GlmForCausalLM"
    ids = torch.randint(0, config["padded_vocab_size"], (40,), generator=torch.Generator().manual_seed(9)).tolist()
    with torch.inference_mode():
        found = model(input_ids=torch.tensor([ids])).logits[0]
    torch.testing.assert_close(found.double(), equations(tensors, config, ids), rtol=0, atol=2e-5)
    # With a key-value cache it goes on as it would without.
    with torch.inference_mode():
        said = model.generate(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, 40),
            max_new_tokens=8,
            min_new_tokens=8,
            do_sample=False,
        )
    longer = said[0].tolist()
    stops = torch.tensor(load_prompter(load_tokenizer(folder)).stop_ids)
    for place in range(40, 48):
        scores = equations(tensors, config, longer[:place])[-1]
        scores[stops] = -torch.inf
        assert int(scores.argmax()) == longer[place]


@pytest.mark.parametrize(
    ("stored", "dtype"), [(torch.float16, "bfloat16"), (torch.float16, "float32"), (torch.bfloat16, "float16")]
)
def test_weights_are_cast_once(tmp_path, pieces, stored, dtype):
    tensors, _ = checkpoint(tmp_path / "source", pieces["identity"][0], SIZES["grouped"], dtype=stored)
    native = load_file(converted(tmp_path / "source", tmp_path / "native", dtype) / "model.safetensors")
    qkv = tensors["transformer.encoder.layers.1.self_attention.query_key_value.weight"].to(getattr(torch, dtype))
    layer = "model.layers.1.self_attn."
    assert torch.equal(torch.cat([native[f"{layer}{name}_proj.weight"] for name in "qkv"]), qkv)
    assert {tensor.dtype for tensor in native.values()} == {getattr(torch, dtype)}
    assert sum(tensor.numel() for tensor in native.values()) == sum(
        tensor.numel() for name, tensor in tensors.items() if "inv_freq" not in name
    )
    assert json.loads((tmp_path / "native/config.json").read_text())["dtype"] == dtype


def test_a_large_checkpoint_is_written_in_several_files(tmp_path, pieces, monkeypatch):
    monkeypatch.setattr("tuneline.formats.safetensors_writer.LARGEST", 20_000)
    tensors, config = checkpoint(tmp_path / "source", pieces["nfkc"][0], SIZES["grouped"])
    folder = converted(tmp_path / "source", tmp_path / "native")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    found = load_model(folder, torch.float32)(input_ids=torch.tensor([[5, 6, 7]])).logits[0]
    torch.testing.assert_close(found.double(), equations(tensors, config, [5, 6, 7]), rtol=0, atol=2e-5)


BARE = """
import sys, json
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=False)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=False)
assert not any(name.startswith(("tuneline", "stages")) for name in sys.modules)
print(json.dumps([tokenizer(text).input_ids for text in json.loads(sys.argv[2])]), type(model).__name__)
"""


def test_it_loads_where_only_transformers_is(tmp_path, pieces):
    path, reference, tokenizer, _ = pieces["nmt_nfkc"]
    checkpoint(tmp_path / "source", path, SIZES["grouped"])
    folder = converted(tmp_path / "source", tmp_path / "native")
    texts = ["你好，philosophy  再见", "　全角１２３", "\tphilosopher's\r\n"]
    result = subprocess.run(
        [sys.executable, "-c", BARE, str(folder), json.dumps(texts)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    ids, name = result.stdout.rsplit(" ", 1)
    prefix = tokenizer.convert_tokens_to_ids(["[gMASK]", "sop"])
    assert json.loads(ids) == [prefix + reference.encode(text) for text in texts]
    assert name.strip() == "GlmForCausalLM"
    assert prefix == [len(reference) + 1, len(reference) + 3]
