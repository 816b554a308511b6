"""A broken ChatGLM3 checkpoint is one sentence, whatever is wrong with it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import stages.base
from tests.helpers.chatglm3 import SIZES, checkpoint
from tests.helpers.stages import run_main
from tests.helpers.tiny_models import base_section


def first(tensors: dict, ending: str) -> str:
    return next(name for name in sorted(tensors) if name.endswith(ending))


def reshaped(tensors: dict, how: str) -> None:
    """Break the tensors in place."""
    dense, norm = first(tensors, "dense_4h_to_h.weight"), first(tensors, "input_layernorm.weight")
    if how == "missing":
        del tensors[norm]
    elif how == "renamed":
        tensors["transformer.encoder.layers.0.norm.weight"] = tensors.pop(norm)
    elif how == "transposed":
        tensors[dense] = tensors[dense].T.contiguous()
    elif how == "cut":
        tensors[dense] = tensors[dense][:-1].contiguous()


def broken(folder: Path, how: str) -> None:
    """Break the checkpoint in a folder."""
    path, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    tensors, config = load_file(path), json.loads((folder / "config.json").read_text())
    reshaped(tensors, how)
    save_file(tensors, path)
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "index":
        index.write_text(json.dumps({"weight_map": {"x": "model-00002-of-00002.safetensors"}}))
    elif how == "index is no JSON":
        index.write_text("{")
    elif how == "pickle":
        path.unlink()
        torch.save({"weights": Path("/tmp")}, folder / "pytorch_model.bin")
    elif how == "tokenizer":
        (folder / "tokenizer.model").write_bytes(b"\x00nonsense")
    elif how == "glm4":
        (folder / "tokenizer.model").write_bytes(b"IQ== 0\nIg== 1\n")
    elif how in CHANGES:
        (folder / "config.json").write_text(json.dumps(config | CHANGES[how]))


CHANGES = {
    "first": {"position_encoding_2d": True},
    "quantised": {"quantization_bit": 4},
    "size": {"num_layers": "many"},
    "rope": {"original_rope": False},
    "groups": {"multi_query_group_num": 3},
    "words": {"padded_vocab_size": 300},
}
COMPLAINTS = {
    "missing": r"1 missing, first transformer\.encoder\.layers\.0\.input_layernorm\.weight",
    "renamed": r"1 missing, first .*input_layernorm.*1 that such a network has not, first .*layers\.0\.norm\.weight",
    "transposed": r"dense_4h_to_h\.weight has shape \[48, 32\], expected \[32, 48\] by config.json",
    "cut": r"has shape \[31, 48\], expected \[32, 48\]",
    "truncated": r"model\.safetensors can't be read as safetensors",
    "index": r"names model-00002-of-00002\.safetensors, which is not in",
    "index is no JSON": r"index\.json is broken",
    "pickle": r"pytorch_model\.bin can't be read as plain PyTorch weights",
    "tokenizer": r"can't be read as a SentencePiece model",
    "glm4": r"is a tiktoken vocabulary, as GLM-4 has",
    "first": r"this is ChatGLM-6B, the first one",
    "quantised": r"quantization_bit is 4, expected 0",
    "size": r"num_layers is 'many', expected a positive integer",
    "rope": r"original_rope is False, expected True",
    "groups": r"multi_query_group_num is 3, expected a divisor of the 4 heads",
    "words": r"they do not fit",
}


@pytest.mark.parametrize("how", COMPLAINTS)
def test_a_broken_checkpoint_is_one_sentence_and_nothing_is_written(tmp_path, pieces, workspace, how):
    checkpoint(Path("source"), pieces["identity"][0], SIZES["grouped"])
    broken(Path("source"), how)
    workspace(base=base_section(Path("source")) | {"source": "./source"})
    with pytest.raises(ValueError, match=COMPLAINTS[how]) as error:
        run_main(stages.base)
    assert "base.source './source'" in str(error.value)
    assert not Path("models").exists() or not list(Path("models").iterdir())
