"""Files of a checkpoint's weights: by the index where there is one, each of them a plain file of the folder."""

import json
import re
from pathlib import Path
from typing import Any

from tuneline.formats.closed_folder import closed, is_plain_name, plain_files

INDEX = "model.safetensors.index.json"
PICKLED_INDEX = "pytorch_model.bin.index.json"
SINGLE = "model.safetensors"
SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")


def safetensors_files(folder: Path) -> list[Path]:
    """The folder's safetensors files that hold its weights; none where there are none.

    An index names them. Others beside them are another form of the model, as Mistral's `consolidated.safetensors`.
    Raises ValueError for an index that is none, or that does not name exactly the parts that are there.
    """
    found = plain_files(folder, "*.safetensors")
    if not closed(folder / INDEX):
        single = [path for path in found if path.name == SINGLE]
        return single or found
    named = indexed(folder / INDEX, ".safetensors")
    beside = [path for path in found if path not in named and (path.name == SINGLE or SHARD.fullmatch(path.name))]
    if beside:
        raise ValueError(
            f"{folder} holds {beside[0].name}, which {INDEX} beside it does not name: expected one form of the weights; "
            "take the file or the index away"
        )
    return named


def pickled_files(folder: Path) -> list[Path]:
    """The folder's files of plain PyTorch weights. Raises ValueError as safetensors_files does."""
    if closed(folder / PICKLED_INDEX):
        return indexed(folder / PICKLED_INDEX, ".bin")
    return plain_files(folder, "pytorch_model*.bin")


def indexed(index: Path, ending: str) -> list[Path]:
    """Files that an index of weights names. Raises ValueError for one that is broken, or names what is not there."""
    named = weight_map(index)
    files = sorted(set(named.values()))
    odd = [name for name in files if not is_plain_name(name) or not name.endswith(ending)]
    if odd:
        raise ValueError(
            f"{index} names {odd[0]!a} for {_shown(next(key for key, name in named.items() if name == odd[0]))}, expected the "
            f"plain name of a *{ending} file in its folder"
        )
    missing = [name for name in files if not closed(index.parent / name)]
    if missing:
        raise ValueError(
            f"{index} names {missing[0]}, which is not in {index.parent}: {len(missing)} of {len(files)} missing"
        )
    return [index.parent / name for name in files]


def weight_map(index: Path) -> dict[str, str]:
    """Name of each tensor to its file's, by an index. Raises ValueError for one that is broken."""
    try:
        read: Any = json.loads(index.read_text(encoding="utf-8"))
        found = read["weight_map"]
        whole = isinstance(found, dict) and bool(found) and all(isinstance(name, str) for name in found.values())
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        whole, found = False, {}
    if not whole:
        raise ValueError(f"{index} is broken, expected a JSON object whose weight_map has the file of each tensor")
    return dict(found)


def _shown(name: str) -> str:
    return ascii(name[:80])[1:-1]
