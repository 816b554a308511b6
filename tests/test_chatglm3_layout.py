"""ChatGLM3's own layout, written again from the native one tensor for tensor."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.chatglm3 import REAL, SIZES, checkpoint, converted, stored_tensors
from tuneline.models.chatglm.config import shape_of
from tuneline.models.chatglm.layout import differences, write_chatglm
from tuneline.models.chatglm.names import parts


def test_the_parameters_of_the_real_shape():
    sizes = [int(np.prod(part.shape)) for part in parts(shape_of(REAL))]
    assert sum(sizes) == 6_243_584_000
    assert len({part.chatglm for part in parts(shape_of(REAL))}) == 199


@pytest.mark.parametrize(("name", "dtype"), zip(SIZES, ("float16", "bfloat16", "float32"), strict=True))
def test_its_own_layout_again_tensor_for_tensor(tmp_path, pieces, monkeypatch, name, dtype):
    monkeypatch.setattr("tuneline.formats.safetensors_writer.LARGEST", 20_000)
    tensors, config = checkpoint(tmp_path / "source", pieces["identity"][0], SIZES[name], dtype=getattr(torch, dtype))
    base = converted(tmp_path / "source", tmp_path / "native", dtype)
    write_chatglm(base, base, tmp_path / "again", dtype)
    again = stored_tensors(tmp_path / "again")
    assert set(again) == set(tensors)
    inv_freq = "transformer.rotary_pos_emb.inv_freq"
    assert {key for key in tensors if not torch.equal(again[key], tensors[key])} <= {inv_freq}
    assert (again[inv_freq].shape, again[inv_freq].dtype) == (tensors[inv_freq].shape, tensors[inv_freq].dtype)
    assert (tmp_path / "again/tokenizer.model").read_bytes() == pieces["identity"][0].read_bytes()
    written = json.loads((tmp_path / "again/config.json").read_text())
    assert written == config | {"torch_dtype": dtype, "_name_or_path": "THUDM/chatglm3-6b"}
    # And what was written comes in by the front door as the same model.
    back = converted(tmp_path / "again", tmp_path / "back", dtype)
    ours, theirs = stored_tensors(base), stored_tensors(back)
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_tensor_that_differs_is_named(tmp_path, pieces):
    _, config = checkpoint(tmp_path / "source", pieces["identity"][0], SIZES["grouped"])
    base = converted(tmp_path / "source", tmp_path / "native")
    write_chatglm(base, base, tmp_path / "again", "float32")
    assert differences(base, tmp_path / "again", shape_of(config)) == []
    tensors = load_file(tmp_path / "again/model.safetensors")
    tensors["transformer.encoder.layers.1.self_attention.query_key_value.bias"][40] += 1e-6
    save_file(tensors, tmp_path / "again/model.safetensors")
    assert differences(base, tmp_path / "again", shape_of(config)) == ["model.layers.1.self_attn.k_proj.bias"]


def test_the_references_checkpoint_again(golden, samples, tmp_path):
    write_chatglm(golden[0], golden[0], tmp_path / "again", "float32")
    theirs = stored_tensors(samples / "golden/chatglm3-tiny")
    ours = stored_tensors(tmp_path / "again")
    assert {name for name in theirs if "inv_freq" not in name} == {name for name in ours if "inv_freq" not in name}
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for name in ("tokenizer.model", "tokenizer_config.json"):
        same = (samples / "golden/chatglm3-tiny" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
        assert same, name
