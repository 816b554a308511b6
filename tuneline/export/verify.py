"""Verification of a merged model's folder, from the folder alone: checksums, tensors against the config, stop tokens."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from tuneline.formats.closed_folder import open_entries, plain_files
from tuneline.formats.safetensors_reader import Entry, file_entries, read
from tuneline.formats.weight_files import INDEX, weight_map
from tuneline.runtime.errors import sentence
from tuneline.runtime.hashing import files, sum_mismatches

NEEDED = (
    "README.md", "chat_template.jinja", "config.json", "generation_config.json", "lineage.json", "tokenizer.json",
    "tokenizer_config.json",
)  # fmt: skip


SAID = 50
"""Sentences about one file, at most."""
LONGEST = 400
"""Characters of a library's error."""


def problems(folder: Path, ends: Sequence[int] | None = None) -> list[str]:
    """What is wrong with a folder that `export` or `release` wrote, a sentence each; each names its file.

    `ends` is what ends an answer by the folder's tokenizer, where that is known: it takes seconds to read.
    """
    if not folder.is_dir():
        return [f"{folder} is no folder: run `dvc repro`, or `dvc pull`"]
    if found := list(open_entries(folder)):
        # Nothing is read of a folder that leads out of itself.
        return found
    found = [f"{name} is missing" for name in NEEDED if not (folder / name).is_file()]
    found += sum_mismatches(folder)
    broken = list(unreadable(folder))
    # What follows reads the files that were just named.
    return found + broken or [*_told("config.json", tensors(folder)), *_told("tokenizer.json", stops(folder, ends))]


def _told(name: str, check: Iterator[str]) -> Iterator[str]:
    """What a check finds, and what it can't do, as a sentence about a file."""
    try:
        yield from islice(check, SAID)
        if any(True for _ in check):
            yield f"{name}: and more of the kind"
    except Exception as error:
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        yield f"{name} is not what a model of transformers has: {kind}{sentence(error)[:LONGEST]}"


def private(folder: Path) -> Iterator[str]:
    """Files and folders that another user, such as a server's, could not read."""
    found = files(folder)
    folders = {folder, *(folder / above for path in found for above in path.relative_to(folder).parents)}
    for path in [*sorted(folders), *found]:
        needed = 0o005 if path.is_dir() else 0o004
        if path.stat().st_mode & needed != needed:
            yield f"{path.relative_to(folder)} can't be read by other users: chmod -R a+rX {folder}"


def unreadable(folder: Path) -> Iterator[str]:
    """JSON that is none, and weights that are cut short or missing."""
    for path in plain_files(folder, "*.json"):
        try:
            read = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            yield f"{path.name} is no JSON: {error}"
        else:
            if not isinstance(read, dict):
                yield f"{path.name} holds {type(read).__name__}, expected an object"
    weights = plain_files(folder, "*.safetensors")
    if not weights:
        yield "*.safetensors is missing: there are no weights"
    for path in weights:
        try:
            file_entries(path)
        except ValueError as error:
            yield f"{path.name} is cut short or no safetensors file: {error}"


def tensors(folder: Path) -> Iterator[str]:
    """Tensors that the config asks for and the files do not hold, in their shape; that it has not; or that are not finite."""
    import torch

    from tuneline.models.conversion.file_names import groups, skeleton
    from tuneline.models.conversion.whole import is_unread

    index = weight_map(folder / INDEX) if (folder / INDEX).is_file() else {}
    found: dict[str, Entry] = {}
    for name, entry in (one for path in plain_files(folder, "*.safetensors") for one in file_entries(path).items()):
        if name in found:
            yield f"{entry.file.name}: {name} is in {found[name].file.name}, too"
        found[name] = entry
    model = skeleton(folder, found)
    wanted = {name: shape for group in groups(model) for name, shape in group.files.items()}
    for name, entry in found.items():
        if name in wanted and entry.shape != wanted[name]:
            yield f"{entry.file.name}: {name} has shape {entry.shape}, expected {wanted[name]}"
        elif name not in wanted and name not in model.all_tied_weights_keys and not is_unread(name, model):
            yield f"{entry.file.name}: {name} is no tensor of such a model"
        elif not bool(torch.isfinite(read(name, entry)).all()):
            yield f"{entry.file.name}: {name} is not finite"
    yield from untied(found, model.all_tied_weights_keys)
    for name in sorted(wanted.keys() - found.keys()):
        yield f"{index.get(name, 'model.safetensors')}: {name} is missing"
    for name in sorted(name for name, file in index.items() if name not in found or found[name].file.name != file):
        there = found[name].file.name if name in found else "no file"
        yield f"{INDEX}: {name} is said to be in {index[name]}, and is in {there}"


def untied(found: Mapping[str, Entry], tied: Mapping[str, str]) -> Iterator[str]:
    """Tensors beside those that the config says they are, such as a head beside embeddings, with other values."""
    import torch

    for name, source in tied.items():
        if name in found and source in found:
            one, other = read(name, found[name]), read(source, found[source])
            if one.shape != other.shape or not torch.equal(one, other.to(one.dtype)):
                yield f"{found[name].file.name}: {name} is not {source}, and config.json says that both are one"


def stops(folder: Path, ends: Sequence[int] | None = None) -> Iterator[str]:
    """Ids at which answers end and generation would not."""
    from tuneline.models.chat_format import load_prompter
    from tuneline.models.loading import load_tokenizer
    from tuneline.models.untrusted.tokenizers import try_tokenizer

    given: Any = json.loads((folder / "generation_config.json").read_text(encoding="utf-8")).get("eos_token_id")
    if ends is None:
        try_tokenizer(folder)
        ends = load_prompter(load_tokenizer(folder)).stop_ids
    if missing := sorted(set(ends) - set(given if isinstance(given, list) else [given])):
        tokens = load_tokenizer(folder).convert_ids_to_tokens(missing)
        lacks = f"lacks {missing} ({', '.join(tokens)})"
        yield f"generation_config.json: eos_token_id is {given}, and {lacks}: answers would not end"
