"""Hostile folders of a checkpoint, made of a tiny sound one, and what the stage should say of each."""

import json
import os
import re
import shutil
import socket
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
NORM, EMBEDDINGS = "model.norm.weight", "model.embed_tokens.weight"


class Case(NamedTuple):
    make: Callable[[Path], object]
    """Changes a sound checkpoint's folder; files beside it are outside."""
    said: str
    """A pattern of the sentence; empty where the base is taken."""


def tensors(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """Changes what the weights' file holds."""

    def make(folder: Path) -> None:
        held = load_file(folder / SINGLE)
        change(held)
        save_file(held, folder / SINGLE, metadata={"format": "pt"})

    return make


def config(**values: Any) -> Callable[[Path], None]:
    """Sets keys of config.json."""
    return values_of("config.json", **values)


def values_of(name: str, **values: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        path = folder / name
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        path.write_text(json.dumps(known | values), encoding="utf-8")

    return make


def text(name: str, content: str | bytes) -> Callable[[Path], None]:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / name).write_bytes(data)


def link(name: str, target: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return make


def outside(folder: Path, name: str) -> Path:
    """A file of the folder, moved out of it."""
    away = folder.parent / "elsewhere"
    away.mkdir(exist_ok=True)
    return Path(shutil.move(folder / name, away / name))


def moved(name: str) -> Callable[[Path], None]:
    """A file that lies elsewhere, and a link to it."""
    return lambda folder: (folder / name).symlink_to(outside(folder, name))


def index(value: Any, *, keep: bool = False) -> Callable[[Path], None]:
    """An index of that content in place of the one file, or beside it; a function makes it of the tensors' names."""

    def make(folder: Path) -> None:
        names = list(load_file(folder / SINGLE))
        content = value(folder, names) if callable(value) else value
        if not keep and (folder / SINGLE).is_file():
            (folder / SINGLE).rename(folder / "model-00001-of-00001.safetensors")
        (folder / INDEX).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")

    return make


def mapped(name: Callable[[Path], object] | str) -> Callable[[Path, Iterable[str]], dict]:
    """An index that has all tensors in one file."""
    return lambda folder, names: {
        "metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, str(name(folder)) if callable(name) else name)
    }  # fmt: skip


def away(folder: Path) -> Path:
    shutil.copy(next(folder.glob("*.safetensors")), folder.parent / SINGLE)
    return folder.parent / SINGLE


def shards(second: Callable[[dict], dict]) -> Callable[[Path], None]:
    """The tensors in two files, the second with what is made of its own."""

    def make(folder: Path) -> None:
        held = load_file(folder / SINGLE)
        (folder / SINGLE).unlink()
        names = sorted(held)
        parts = [{name: held[name] for name in names[:5]}, {name: held[name] for name in names[5:]}]
        parts[1] = second(parts[1] | {"first": held[names[0]]})
        weight_map = {}
        for number, part in enumerate(parts, 1):
            file = f"model-{number:05}-of-00002.safetensors"
            save_file(part, folder / file, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(part, file)
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}), encoding="utf-8")

    return make


def without(part: dict, *names: str) -> dict:
    return {name: one for name, one in part.items() if name not in names}


def pipe(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return make


def bound_socket(folder: Path) -> None:
    here = Path.cwd()
    os.chdir(folder)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("LICENSE")
    os.chdir(here)


def header(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Changes the JSON at the beginning of the weights' file as text."""

    def make(folder: Path) -> None:
        content = (folder / SINGLE).read_bytes()
        (size,) = struct.unpack("<Q", content[:8])
        new = change(content[8 : 8 + size])
        (folder / SINGLE).write_bytes(struct.pack("<Q", len(new)) + new + content[8 + size :])

    return make


def twice(text: bytes) -> bytes:
    """The first tensor's entry a second time, under the same name."""
    entry = re.search(rb'"model\.norm\.weight":\{[^}]*\}', text)[0]
    return text.rstrip()[:-1] + b"," + entry + b"}"


def overlapping(text: bytes) -> bytes:
    entry = re.search(rb'"model\.norm\.weight":\{[^}]*"data_offsets":\[(\d+),(\d+)\]\}', text)
    moved = entry[0].replace(b"[%s,%s]" % (entry[1], entry[2]), b"[0,%d]" % (int(entry[2]) - int(entry[1])))
    return text.replace(entry[0], moved)


def huge_header(_: bytes) -> bytes:
    return b'{"__metadata__":{"a":"' + b"x" * 100_000_001 + b'"}}'


def many(count: int) -> Callable[[Path], None]:
    """Tensors without values."""

    def make(folder: Path) -> None:
        text = ",".join(f'"t{n}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for n in range(count))
        data = f"{{{text}}}".encode()
        (folder / SINGLE).write_bytes(struct.pack("<Q", len(data)) + data)

    return make


def hub_layout(folder: Path, target: str = "../../blobs") -> None:
    """The folder as a snapshot of the hub's cache, each file a link to a blob."""
    blobs = folder.parent.parent / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(blobs / f"{number:040x}")
        path.symlink_to(f"{target}/{number:040x}")


def templates(folder: Path) -> None:
    (folder / "elsewhere.jinja").write_text("{{ messages }}", encoding="utf-8")
    (folder.parent / "templates").mkdir()
    (folder / "elsewhere.jinja").rename(folder.parent / "templates/default.jinja")
    (folder / "additional_chat_templates").symlink_to(folder.parent / "templates")


def adapter_beside(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "../other", "peft_type": "LORA"}')


LISTED = {
    # Names and links.
    "an index to another folder": Case(
        index(mapped("../elsewhere/model.safetensors")), r"names '\.\./elsewhere/model\.safetensors' for .*plain name"),
    "an index to an absolute path": Case(index(mapped(away)), r"index\.json names '/.*' for .*expected the plain name"),
    "an index to a folder below": Case(index(mapped("sub/model.safetensors")), r"names 'sub/model\.safetensors'"),
    "an index to a hidden file": Case(index(mapped(".hidden.safetensors")), r"names '\.hidden\.safetensors'"),
    "an index to a name with a line end": Case(index(mapped("a\nb.safetensors")), r"names 'a\\nb\.safetensors'"),
    "an index to a link out": Case(
        lambda folder: (
            index(mapped("model-00001-of-00001.safetensors"))(folder), moved("model-00001-of-00001.safetensors")(folder)),
        r"model-00001-of-00001\.safetensors is a link to '/.*', out of its folder"),
    "an index to itself": Case(index(mapped(INDEX)), rf"names '{re.escape(INDEX)}' for .*a \*\.safetensors file"),
    "an index to a text file": Case(index(mapped("config.json")), r"names 'config\.json' for"),
    "an index to text by the right name": Case(
        lambda folder: (index(mapped("model-00001-of-00001.safetensors"))(folder),
                        text("model-00001-of-00001.safetensors", "text")(folder)),
        r"can't be read as safetensors"),
    "an index to what is missing": Case(index(mapped("x.safetensors")), r"model-00001-of-00001\.safetensors|names x\.safeten"),
    "an index to a folder by its name": Case(
        lambda folder: ((folder / "x.safetensors").mkdir(), index(mapped("x.safetensors"))(folder)), r"index\.json"),
    "an index that is a list": Case(index([1, 2]), r"index\.json is broken"),
    "an index that is text": Case(index('"model.safetensors"'), r"index\.json is broken"),
    "an index of numbers": Case(index({"weight_map": {"a": 3}}), r"index\.json is broken"),
    "an index of nothing": Case(index({"weight_map": {}}), r"index\.json is broken"),
    "an index nested 100,000 deep": Case(index("[" * 100_000), r"index\.json is broken"),
    "an index beside one file": Case(index(mapped(SINGLE), keep=True), ""),
    "an index of other files beside one": Case(
        lambda folder: (shutil.copy(folder / SINGLE, folder / "other.safetensors"),
                        index(mapped("other.safetensors"), keep=True)(folder)), r"expected one form of the weights"),
    "weights that are a link out": Case(moved(SINGLE), r"model\.safetensors is a link to '/.*', out of its folder"),
    "a config that is a link out": Case(moved("config.json"), r"config\.json is a link to"),
    "a tokenizer that is a link out": Case(moved("tokenizer.json"), r"tokenizer\.json is a link to"),
    "a notice that is a link out": Case(link("NOTICE", "/etc/hostname"), r"NOTICE is a link to '/etc/hostname', out of"),
    "a notice that is a link into /proc": Case(link("NOTICE", "/proc/self/environ"), r"NOTICE is a link to"),
    "a notice that is a link to nothing": Case(link("NOTICE", "nothing"), r"link to 'nothing', which leads nowhere"),
    "a notice that is a link to itself": Case(link("NOTICE", "NOTICE"), r"link to 'NOTICE', which leads nowhere"),
    "a notice that is a link to a hidden file": Case(
        lambda folder: (text(".secret", "x")(folder), link("NOTICE", ".secret")(folder)), r"NOTICE is a link to '\.secret'"),
    "a notice that is a link inside": Case(
        lambda folder: (text("LICENSE", "words")(folder), link("NOTICE", "LICENSE")(folder)), ""),
    "templates that are a folder elsewhere": Case(templates, r"additional_chat_templates is a link to"),
    "the hub's cache": Case(hub_layout, ""),
    "the hub's cache with a link out": Case(
        lambda folder: (hub_layout(folder), link("NOTICE", "../../../passwords")(folder),
                        text("../../../passwords", "x")(folder)),
        r"NOTICE is a link to '\.\./\.\./\.\./passwords', out of its folder"),
    "a name with a line end": Case(text("NOTICE\n0000  config.json", "x"), r"has '\\n' in its name"),
    "a name that turns what is read": Case(text("NOTICE\u202etxt", "x"), r"has '\\u202e' in its name"),
    "a name that is no text": Case(
        lambda folder: Path(os.fsdecode(os.fsencode(folder) + b"/NOTICE\xff")).write_text("x"), r"has '\\udcff' in its name"),
    "a name with a backslash": Case(text("a\\..\\b", "x"), r"has '\\\\' in its name"),
    "a notice that is a pipe": Case(pipe("NOTICE"), r"NOTICE is a pipe"),
    "weights that are a pipe": Case(pipe(SINGLE), r"model\.safetensors is a pipe"),
    "a licence that is a socket": Case(bound_socket, r"LICENSE is a socket"),
    "a licence that is a folder": Case(lambda folder: (folder / "LICENSE2").mkdir(), ""),
    "a notice in GB18030": Case(text("NOTICE", "版权所有".encode("gb18030")), ""),
    "a notice of noise": Case(text("NOTICE", bytes(range(256))), ""),
    # What leads elsewhere without a link.
    "an adapter beside the model": Case(adapter_beside, r"holds an adapter beside the model"),
    "a config that names another": Case(
        lambda folder: (text("config.4.0.0.json", "{}")(folder), config(configuration_files=["config.4.0.0.json"])(folder)),
        r"config\.json has configuration_files"),
    "a config that names its weights": Case(config(transformers_weights="x.safetensors"), r"has transformers_weights"),
    "a tokenizer that names another": Case(
        values_of("tokenizer_config.json", fast_tokenizer_files=["../tokenizer.4.0.0.json"]), r"has fast_tokenizer_files"),
    "a tokenizer's file elsewhere": Case(
        values_of("tokenizer_config.json", tokenizer_file="/etc/hostname", vocab_file="/etc/hostname"), ""),
    # Tensors.
    "no tensors at all": Case(tensors(dict.clear), r"its files hold 0 tensors, and config\.json has num_hidden_layers 2"),
    "a tensor missing": Case(
        tensors(lambda held: held.pop(NORM)), r"its files lack 1 tensors of a Gemma3ForCausalLM, first model\.norm\.weight"),
    "half of the tensors": Case(
        tensors(lambda held: [held.pop(name) for name in sorted(held)[::2]]),
        r"lack 14 tensors .*, first model\..*, model\..* …"),
    "a tensor too much": Case(
        tensors(lambda held: held.update({"model.layers.0.mlp.extra.weight": torch.ones(3)})),
        r"hold 1 tensors that a Gemma3ForCausalLM of its config\.json has not, first model\.layers\.0\.mlp\.extra\.weight"),
    "a layer too much": Case(
        tensors(lambda held: held.update({"model.layers.2.mlp.up_proj.weight": torch.ones(64, 32)})), r"hold 1 tensors that"),
    "a bias that the config has not": Case(
        tensors(lambda held: held.update({"model.layers.0.self_attn.q_proj.bias": torch.ones(32)})), r"hold 1 tensors that"),
    "a tensor renamed": Case(
        tensors(lambda held: held.update({"model.final.weight": held.pop(NORM)})),
        r"lack 1 tensors .* and hold 1 tensors that"),
    "a tensor transposed": Case(
        tensors(lambda held: held.update(
            {"model.layers.0.mlp.up_proj.weight": held["model.layers.0.mlp.up_proj.weight"].T.contiguous()})),
        r"have 1 tensors in another shape, first model\.layers\.0\.mlp\.up_proj\.weight in \[32, 64\], expected \[64, 32\]"),
    "other sizes in the config": Case(config(intermediate_size=128), r"have 6 tensors in another shape"),
    "more layers in the config": Case(
        config(num_hidden_layers=3, layer_types=["sliding_attention"] * 3), r"its files lack 13 tensors"),
    "a head that is the embeddings": Case(
        tensors(lambda held: held.update({"lm_head.weight": held[EMBEDDINGS].clone()})), ""),
    "a head that is said to be the embeddings": Case(
        tensors(lambda held: held.update({"lm_head.weight": held[EMBEDDINGS] + 1})),
        r"hold an LM head that is not its embeddings, and config\.json says that both are one"),
    "a head by its own name alone": Case(
        tensors(lambda held: held.update({"lm_head.weight": held.pop(EMBEDDINGS)})), ""),
    "frequencies that old versions saved": Case(
        tensors(lambda held: held.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)})), ""),
    "two shards": Case(shards(lambda part: without(part, "first")), ""),
    "a tensor in two shards": Case(
        shards(lambda part: without(part, "first") | {EMBEDDINGS: part["first"]}), r"and so does model-00001-of-00002"),
    "a shard that is not named": Case(
        lambda folder: (shards(lambda part: without(part, "first"))(folder),
                        shutil.copy(folder / "model-00001-of-00002.safetensors", folder / "model-00003-of-00003.safetensors")),
        r"holds model-00003-of-00003\.safetensors, which .* does not name"),
    "weights of another form beside": Case(
        lambda folder: save_file({"tok_embeddings.weight": torch.ones(2)}, folder / "consolidated.safetensors"), ""),
    "not a number": Case(tensors(lambda held: held[NORM].fill_(float("nan"))), r"1 tensors of the base are not finite"),
    "infinite": Case(
        tensors(lambda held: held[EMBEDDINGS].fill_(float("inf"))), r"1 tensors of the base are not finite as .*, first mod"),
    "not a number where no text comes": Case(
        tensors(lambda held: held[EMBEDDINGS][-1].fill_(float("nan"))), r"1 tensors of the base are not finite"),
    "a file cut short": Case(
        lambda folder: (folder / SINGLE).write_bytes((folder / SINGLE).read_bytes()[:-9]), r"can't be read as safetensors"),
    "an empty file": Case(text(SINGLE, ""), r"can't be read as safetensors"),
    "offsets that overlap": Case(header(overlapping), r"can't be read as safetensors"),
    "a name twice in the header": Case(header(twice), ""),
    "a header of 100 MB": Case(header(huge_header), r"can't be read as safetensors"),
    "400,000 tensors": Case(many(400_000), r"holds 400,000 tensors, expected at most 300,000"),
    "a tensor's name with a line end": Case(
        tensors(lambda held: held.update({"a\nb": torch.ones(1)})), r"tensor named 'a\\nb'"),
    "PyTorch's files alone": Case(
        lambda folder: (torch.save(load_file(folder / SINGLE), folder / "pytorch_model.bin"), (folder / SINGLE).unlink()),
        r"it holds no \*\.safetensors: PyTorch's files are pickles"),
    "integers": Case(
        tensors(lambda held: held.update({NORM: held[NORM].long()})), r"1 tensors that are no floating-point numbers"),
    "a mask of booleans that old versions saved": Case(
        tensors(lambda held: held.update({"model.layers.0.self_attn.causal_mask": torch.ones(4, 4).bool()})), ""),
    "complex numbers": Case(
        tensors(lambda held: held.update({NORM: held[NORM].to(torch.complex64)})), r"no floating-point numbers, first .*C64"),
    "wider numbers": Case(tensors(lambda held: held.update({NORM: held[NORM].double()})), ""),
    # Values.
    "a kernel of the hub": Case(
        config(_attn_implementation="them/kernel:function"), r"by which code would be fetched and run"),
    "a kernel of the hub in a part": Case(config(text_config={"_experts_implementation": "a/b"}), r"by which code would be"),
    "a million million labels": Case(config(num_labels=10**12), r"has num_labels 1000000000000, expected at most 10000"),
    "a window below zero": Case(config(sliding_window=-4), r"the base does not compute by its config\.json"),
    "scales of nothing": Case(config(rms_norm_eps=float("nan")), r"base\.source"),
    "code beside the weights": Case(
        lambda folder: (text("code.py", "raise SystemExit('ran')")(folder),
                        config(auto_map={"AutoModelForCausalLM": "code.Model", "AutoConfig": "code.Config"})(folder)), ""),
    "generation settings that are broken": Case(text("generation_config.json", "{"), r"generation_config\.json is no JSON"),
    "a template that is a folder": Case(lambda folder: (folder / "chat_template.jinja").mkdir(), r"jinja is a folder"),
    "a config that is a list": Case(text("config.json", "[]"), r"holds list, expected an object"),
    "a config nested 100,000 deep": Case(text("config.json", '{"a":' + "[" * 100_000), r"is no JSON"),
    "a config of 30 MB": Case(text("config.json", '{"a": "' + "x" * 30_000_000 + '"}'), r"has 30,000,\d+ bytes"),
    "a config of other bytes": Case(text("config.json", b"\xff\xfe{}"), r"is no JSON"),
    "a kind that is a list": Case(config(model_type=["gemma3_text"]), r"model_type"),
    "a kind that is none": Case(config(model_type=None), r"model_type"),
    "no kind": Case(text("config.json", "{}"), r"model_type|base\.source"),
    "a million layers": Case(config(num_hidden_layers=1_000_000, layer_types=None), r"num_hidden_layers 1000000"),
    "a million layers of a part": Case(config(text_config={"num_hidden_layers": 10**9}), r"num_hidden_layers 1000000000"),
    "9,000 layers": Case(config(num_hidden_layers=9000, layer_types=None), r"hold 28 tensors, and config\.json has num_hidden"),
    "layers that are text": Case(config(num_hidden_layers="many"), r"num_hidden_layers"),
    "no heads": Case(config(num_attention_heads=0), r"base\.source"),
    "a size of 2^70": Case(config(hidden_size=2**70), r"base\.source"),
    "a size below zero": Case(config(hidden_size=-32), r"base\.source"),
    "a text part that is text": Case(config(text_config="gemma"), r"base\.source"),
    "a quantization that is a list": Case(config(quantization_config=[1]), r"base\.source"),
    "generation settings that are a list": Case(text("generation_config.json", "[1]"), r"base\.source"),
    "an end that is text": Case(values_of("generation_config.json", eos_token_id="end"), r"eos_token_id"),
    "an end that no token is": Case(values_of("generation_config.json", eos_token_id=2**40), r"eos_token_id"),
    "a tokenizer's config that is a list": Case(text("tokenizer_config.json", "[]"), r"holds list, expected an object"),
    "a tokenizer that is text": Case(text("tokenizer.json", "text"), r"base\.source"),
    "a tokenizer of nothing": Case(text("tokenizer.json", "{}"), r"base\.source"),
}  # fmt: skip
"""By what is wrong, made of a tiny Gemma 3."""
