"""A checkpoint of several parts in the form in which it came: what is put aside of it, and how it is written again.

`base` tunes the text part alone, as a model of its own. What else the checkpoint holds (vision and audio towers, what joins
them, heads for drafting, processors, its config) lies unchanged in a folder of the base, and `export` joins both on demand.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from tuneline.formats.closed_folder import plain_files
from tuneline.formats.safetensors_reader import Entry, entries, read, unread
from tuneline.formats.safetensors_writer import write_shards

ORIGINAL = "original"
"""Folder of a base with what its text part leaves out."""
NAMES_FILE = "names.json"
NOT_PUT_ASIDE = ("tokenizer*", "*.index.json", "generation_config.json", "special_tokens_map.json", "added_tokens.json")
"""JSON files that the base has in its own form, or that the weights bring along."""


class OriginalNames(NamedTuple):
    """How a checkpoint's files name the tensors of its text part."""

    prefix: str
    """Before `embed_tokens.weight` and `layers.0.`, where the text class has `model.`."""
    head: str | None
    """The LM head, where it is not the embeddings."""

    def to_text(self, name: str) -> str | None:
        """The text class's name of a tensor of the files; None for one of another part."""
        if name == self.head:
            return "lm_head.weight"
        return f"model.{name.removeprefix(self.prefix)}" if name.startswith(self.prefix) else None

    def to_original(self, name: str) -> str:
        """The files' name of a tensor of the text class."""
        if name == "lm_head.weight" and self.head is not None:
            return self.head
        return self.prefix + name.removeprefix("model.")


def put_aside(source: Path, base: Path, names: OriginalNames, files: Mapping[str, Entry]) -> list[str]:
    """Write what the base at `base` does not hold of `source` into a folder of it; returns the parts left out, by name."""
    folder = base / ORIGINAL
    kept = {names.to_original(name) for name in entries(base)}
    # A head that is tied to the embeddings would stay behind them.
    rest = {name: entry for name, entry in files.items() if name not in kept and name != names.head}
    write_shards(folder, [unread(name, entry) for name, entry in rest.items()], "uint8", what="base: parts left out")
    for path in plain_files(source, "*.json"):
        if not any(path.match(pattern) for pattern in NOT_PUT_ASIDE):
            shutil.copyfile(path, folder / path.name)
    (folder / NAMES_FILE).write_text(json.dumps(names._asdict(), indent=2) + "\n", encoding="utf-8")
    return part_names(rest, names)


def part_names(rest: Iterable[str], names: OriginalNames) -> list[str]:
    """Parts of a checkpoint by the first words of their tensors' names (`vision_tower`, `model.visual`, `mtp`)."""
    found = set()
    for name in rest:
        if not name.startswith(names.prefix):
            words = name.split(".")
            found.add(words[1] if words[0] in ("model", "language_model") and len(words) > 2 else words[0])
    return sorted(found)


def check_original(base: Path) -> None:
    """Raises ValueError unless the base came as a part of something."""
    if not (base / ORIGINAL / NAMES_FILE).is_file():
        raise ValueError(
            f"export.layout is 'original', expected 'native': {base} came as a model of text alone, whose layout is native"
        )


def write_original(native: Path, base: Path, folder: Path, dtype: str) -> None:
    """Write the native text model into the whole checkpoint that its base came from; all other parts stay as they were.

    Raises ValueError when what was written is not the text model and the parts that were put aside.
    """
    aside = base / ORIGINAL
    names = OriginalNames(**json.loads((aside / NAMES_FILE).read_text(encoding="utf-8")))
    text = {names.to_original(name): (name, entry) for name, entry in entries(native).items()}
    rest = {name: (name, entry) for name, entry in entries(aside).items()}
    tensors = [unread(name, entry, written_as=key) for key, (name, entry) in sorted((text | rest).items())]
    write_shards(folder, tensors, dtype, what="export: original layout")
    for path in plain_files(aside, "*.json"):
        if path.name not in (NAMES_FILE, "config.json", "model.safetensors.index.json"):
            shutil.copyfile(path, folder / path.name)
    config = json.loads((aside / "config.json").read_text(encoding="utf-8"))
    for part in (config, config.get("text_config", {})):
        for key in {"dtype", "torch_dtype"} & part.keys():
            part[key] = dtype
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for pattern in ("tokenizer*", "chat_template.jinja", "generation_config.json", "NOTICE*", "LICENSE*"):
        for path in native.glob(pattern):
            shutil.copyfile(path, folder / path.name)
    if wrong := _differences(folder, text | rest):
        raise ValueError(f"{folder} is not {native}: {len(wrong)} tensors differ, first {wrong[0]}; is the disk sound?")


def _differences(folder: Path, wanted: Mapping[str, tuple[str, Entry]]) -> list[str]:
    import torch

    written = entries(folder)
    wrong = sorted(written.keys() ^ wanted.keys())
    for key, (name, entry) in wanted.items():
        if key not in wrong and not torch.equal(
            read(key, written[key]).reshape(-1).view(torch.uint8), read(name, entry).reshape(-1).view(torch.uint8)
        ):
            wrong.append(key)
    return wrong
