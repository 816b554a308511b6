"""Verification of a merged model's folder, from the folder alone: checksums, tensors against the config, stop tokens."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tuneline.runtime.hashing import SUMS, file_sha256, files

NEEDED = (
    "README.md", "chat_template.jinja", "config.json", "generation_config.json", "lineage.json", "tokenizer.json",
    "tokenizer_config.json",
)  # fmt: skip
INDEX = "model.safetensors.index.json"


def problems(folder: Path, ends: Sequence[int] | None = None) -> list[str]:
    """What is wrong with a folder that `export` or `release` wrote, a sentence each; each names its file.

    `ends` is what ends an answer by the folder's tokenizer, where that is known: it takes seconds to read.
    """
    if not folder.is_dir():
        return [f"{folder} is no folder: run `dvc repro`, or `dvc pull`"]
    found = [f"{name} is missing" for name in NEEDED if not (folder / name).is_file()]
    found += changed(folder)
    broken = list(unreadable(folder))
    if ends is None and not (found + broken):
        ends, broken = trusted_ends(folder)
    # What follows reads the files that were just named.
    return found + broken or [*tensors(folder), *stops(folder, ends)]


def changed(folder: Path) -> Iterator[str]:
    """Files that are not as SHA256SUMS says."""
    sums = folder / SUMS
    if not sums.is_file():
        yield f"{SUMS} is missing"
        return
    lines = [line.partition("  ") for line in sums.read_text(encoding="utf-8", errors="replace").splitlines() if line]
    expected = {name: digest for digest, _, name in lines}
    present = {path.relative_to(folder).as_posix(): path for path in files(folder) if path != sums}
    for name in sorted(expected.keys() | present.keys()):
        if name not in present:
            yield f"{name} is missing, and {SUMS} lists it"
        elif name not in expected:
            yield f"{name} is not listed in {SUMS}"
        elif (digest := file_sha256(present[name])) != expected[name]:
            yield f"{name} has changed: its sha256 is {digest[:12]}…, expected {expected[name][:12]}…"


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
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob("*.json")):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            yield f"{path.name} is no JSON: {error}"
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        yield "*.safetensors is missing: there are no weights"
    for path in weights:
        try:
            with safe_open(str(path), framework="pt") as file:
                file.keys()
        except (SafetensorError, OSError) as error:
            yield f"{path.name} is cut short or no safetensors file: {error}"


def trusted_ends(folder: Path) -> tuple[list[int], list[str]]:
    """(what ends an answer by the folder's tokenizer, why config or tokenizer of a stranger's folder are not to be used)."""
    from tuneline.models.chat_format import load_prompter
    from tuneline.models.loading import empty_model, load_tokenizer
    from tuneline.models.untrusted.tokenizers import try_tokenizer

    try:
        empty_model(folder)
        try_tokenizer(folder)
        return load_prompter(load_tokenizer(folder)).stop_ids, []
    except (ValueError, TypeError, KeyError, AttributeError, OSError, RuntimeError) as error:
        return [], [f"{folder} can't be used: {' '.join(str(error).split())[:400]}"]


def tensors(folder: Path) -> Iterator[str]:
    """Tensors that the config asks for and the files do not hold, in their shape; or that are not finite."""
    import torch
    from safetensors import safe_open

    from tuneline.models.conversion.file_names import file_shapes

    wanted = file_shapes(folder)
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"] if (folder / INDEX).is_file() else {}
    found: dict[str, str] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(str(path), framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                found[name] = path.name
                shape = tuple(file.get_slice(name).get_shape())
                if name in wanted and shape != wanted[name]:
                    yield f"{path.name}: {name} has shape {shape}, expected {wanted[name]}"
                elif not bool(torch.isfinite(file.get_tensor(name)).all()):
                    yield f"{path.name}: {name} is not finite"
    for name in sorted(wanted.keys() - found.keys()):
        yield f"{index.get(name, 'model.safetensors')}: {name} is missing"
    for name in sorted(name for name, file in index.items() if found.get(name) != file):
        yield f"{INDEX}: {name} is said to be in {index[name]}, and is in {found.get(name, 'no file')}"


def stops(folder: Path, ends: Sequence[int] | None = None) -> Iterator[str]:
    """Ids at which answers end and generation would not."""
    from tuneline.models.chat_format import load_prompter
    from tuneline.models.loading import load_tokenizer

    given: Any = json.loads((folder / "generation_config.json").read_text(encoding="utf-8")).get("eos_token_id")
    ends = load_prompter(load_tokenizer(folder)).stop_ids if ends is None else ends
    if missing := sorted(set(ends) - set(given if isinstance(given, list) else [given])):
        tokens = load_tokenizer(folder).convert_ids_to_tokens(missing)
        lacks = f"lacks {missing} ({', '.join(tokens)})"
        yield f"generation_config.json: eos_token_id is {given}, and {lacks}: answers would not end"
