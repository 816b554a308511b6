"""The attacks on what is in a base folder's weights and configurations: tensors, headers, sizes, code."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.faults.base_folders import (
    EITHER,
    HARMLESS,
    REFUSED,
    WEIGHTS,
    change_json,
    hostile,
    index,
    tensors,
    write_tensors,
)

MARK = "open(%r, 'w').write('x')\n"
Tensors = dict[str, Any]


def rewritten(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    """Change the weights as a map of tensors."""
    from safetensors.torch import load_file, save_file

    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, {"format": "pt"})


@hostile(REFUSED)
def a_tensor_is_missing(folder: Path) -> None:
    header, data = tensors(folder)
    del header["model.norm.weight"]
    write_tensors(folder / WEIGHTS, header, data)


@hostile(REFUSED)
def a_tensor_is_missing_and_the_rest_is_whole(folder: Path) -> None:
    gone = "model.layers.0.mlp.up_proj.weight"
    rewritten(folder, lambda found: {name: one for name, one in found.items() if name != gone})


@hostile(REFUSED)
def a_tensor_too_many(folder: Path) -> None:
    rewritten(folder, lambda found: found | {"model.layers.9.back_door.weight": found["model.norm.weight"].clone()})


@hostile(REFUSED)
def a_tensor_of_another_shape(folder: Path) -> None:
    rewritten(folder, lambda found: found | {"model.norm.weight": found["model.norm.weight"][:16].clone()})


@hostile(EITHER)
def a_tensor_of_whole_numbers(folder: Path) -> None:
    rewritten(folder, lambda found: found | {"model.norm.weight": found["model.norm.weight"].long()})


@hostile(HARMLESS)
def a_tensor_in_two_shards(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    found = load_file(folder / WEIGHTS)
    shutil.move(folder / WEIGHTS, folder / "model-00001-of-00002.safetensors")
    twice = {"model.norm.weight": found["model.norm.weight"] * 3}
    save_file(twice, folder / "model-00002-of-00002.safetensors", {"format": "pt"})
    first = "model-00001-of-00002.safetensors"
    index(folder, {"metadata": {}, "weight_map": dict.fromkeys(found, first)})


@hostile(REFUSED)
def no_tensor_at_all(folder: Path) -> None:
    write_tensors(folder / WEIGHTS, {"__metadata__": {"format": "pt"}}, b"")


@hostile(REFUSED)
def tensors_of_another_prefix(folder: Path) -> None:
    rewritten(folder, lambda found: {f"other.{name}": one for name, one in found.items()})


@hostile(REFUSED)
def weights_that_are_no_numbers(folder: Path) -> None:
    rewritten(folder, lambda found: {name: one * float("nan") for name, one in found.items()})


@hostile(REFUSED)
def offsets_that_overlap(folder: Path) -> None:
    header, data = tensors(folder)
    first, second = [one for name, one in header.items() if name != "__metadata__"][:2]
    second["data_offsets"] = [first["data_offsets"][0], first["data_offsets"][0] + len(data)]
    write_tensors(folder / WEIGHTS, header, data)


@hostile(REFUSED)
def a_header_that_is_a_list(folder: Path) -> None:
    write_tensors(folder / WEIGHTS, b"[1]", b"")


@hostile(REFUSED)
def a_header_longer_than_the_file(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"\xff" * 8 + b"{}")


@hostile(REFUSED)
def a_header_of_100_mb(folder: Path) -> None:
    write_tensors(folder / WEIGHTS, b"{" + b" " * 100_000_000 + b"}", b"")


@hostile(REFUSED)
def a_shape_beyond_all_memory(folder: Path) -> None:
    header, data = tensors(folder)
    header["model.norm.weight"]["shape"] = [2**40, 2**20]
    write_tensors(folder / WEIGHTS, header, data)


@hostile(REFUSED)
def a_negative_shape(folder: Path) -> None:
    header, data = tensors(folder)
    header["model.norm.weight"]["shape"] = [-32]
    write_tensors(folder / WEIGHTS, header, data)


@hostile(REFUSED)
def a_hundred_thousand_tensors(folder: Path) -> None:
    header, data = tensors(folder)
    header |= {f"t{n}": {"dtype": "F32", "shape": [0], "data_offsets": [len(data)] * 2} for n in range(100_000)}
    write_tensors(folder / WEIGHTS, header, data)


@hostile(REFUSED)
def a_pickle_in_the_place_of_weights(folder: Path) -> None:
    # Protocol 0, by hand: call builtins.exec with the code.
    code = (MARK % str(folder / "CODE_RAN")).strip()
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(f"cbuiltins\nexec\n(V{code}\ntR.".encode())


@hostile(REFUSED)
def code_beside_the_checkpoint(folder: Path) -> None:
    (folder / "modeling_evil.py").write_text(MARK % str(folder / "CODE_RAN") + "class Evil: pass\n")
    names = dict.fromkeys(("AutoModelForCausalLM", "AutoConfig"), "modeling_evil.Evil")
    change_json(folder / "config.json", auto_map=names, model_type="evil")


@hostile(HARMLESS)
def code_beside_a_known_model(folder: Path) -> None:
    (folder / "modeling_evil.py").write_text(MARK % str(folder / "CODE_RAN") + "class Evil: pass\n")
    change_json(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"})
    change_json(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["modeling_evil.Evil", None]})
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate/generate.py").write_text(MARK % str(folder / "CODE_RAN"))


@hostile(REFUSED)
def attention_from_the_hub(folder: Path) -> None:
    change_json(folder / "config.json", _attn_implementation="evil/kernel", attn_implementation="evil/kernel")


@hostile(REFUSED)
def config_is_a_list(folder: Path) -> None:
    (folder / "config.json").write_text("[1]")


@hostile(REFUSED)
def config_has_no_type(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["model_type"], config["architectures"]
    (folder / "config.json").write_text(json.dumps(config))


@hostile(REFUSED)
def config_with_text_for_a_size(folder: Path) -> None:
    change_json(folder / "config.json", hidden_size="many")


@hostile(REFUSED)
def config_with_a_size_beyond_all_memory(folder: Path) -> None:
    change_json(folder / "config.json", hidden_size=2**40)


@hostile(REFUSED)
def config_with_no_layers(folder: Path) -> None:
    change_json(folder / "config.json", num_hidden_layers=0, layer_types=[])


@hostile(REFUSED)
def config_with_a_million_layers(folder: Path) -> None:
    change_json(folder / "config.json", num_hidden_layers=10**6, layer_types=None)


@hostile(REFUSED)
def config_of_another_family(folder: Path) -> None:
    change_json(folder / "config.json", model_type="bert", architectures=["BertForMaskedLM"])


@hostile(REFUSED)
def vocabulary_of_another_size(folder: Path) -> None:
    change_json(folder / "config.json", vocab_size=7)


@hostile(HARMLESS)
def generation_config_is_a_list(folder: Path) -> None:
    (folder / "generation_config.json").write_text("[1]")


@hostile(HARMLESS)
def generation_config_with_nonsense(folder: Path) -> None:
    change_json(folder / "generation_config.json", temperature="hot", eos_token_id={"a": 1}, max_length=-5)


@hostile(HARMLESS)
def quantised_by_code_of_nobody(folder: Path) -> None:
    change_json(folder / "config.json", quantization_config={"quant_method": "evil", "modules": ["os"]})
