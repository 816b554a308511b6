"""Export of a native `Glm` in ChatGLM's own layout, for what reads only that: vLLM's and llama.cpp's ChatGLM, older scripts.

The query, key and value rows are one tensor again, everything else is renamed. What is written is read again and
compared with the native model, tensor for tensor.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from tuneline.formats.safetensors_writer import Tensor, write_shards
from tuneline.models.chatglm.config import Shape, shape_of
from tuneline.models.chatglm.names import IGNORED, MODULES, Part, parts
from tuneline.models.chatglm.weights import Stored, opened

if TYPE_CHECKING:
    import torch

ORIGINAL = "chatglm"
"""Folder of a base with the files of the checkpoint that only its own layout needs."""
KEPT = ("config.json", "tokenizer.model", "tokenizer_config.json")
KNOWN_AS = "THUDM/chatglm3-6b"
"""By this name llama.cpp's converter tells ChatGLM3's vocabulary from GLM-4's (its pull request 8031)."""


def keep_original(source: Path, folder: Path) -> None:
    """Put aside a checkpoint's own config and tokenizer files in a new folder; never its code."""
    folder.mkdir()
    for name in KEPT:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def write_chatglm(native: Path, base: Path, folder: Path, dtype: str) -> None:
    """Write the native model as a ChatGLM checkpoint with the base's own config and tokenizer files.

    Raises ValueError when the base never was a ChatGLM, or when what was written is not the native model.
    """
    config = json.loads(original_config(base).read_text(encoding="utf-8"))
    shape = shape_of(config)
    keep_original(base / ORIGINAL, folder)
    config |= {"torch_dtype": dtype, "_name_or_path": KNOWN_AS}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    shutil.copyfile(native / "generation_config.json", folder / "generation_config.json")
    with opened(native) as stored:
        tensors = [_joined(stored, list(group)) for _, group in groupby(parts(shape), key=lambda part: part.chatglm)]
        write_shards(folder, [*tensors, _frequencies(shape, dtype)], dtype, what="export: ChatGLM's layout")
    differing = differences(native, folder, shape)
    if differing:
        raise ValueError(f"{folder} is not {native}: {len(differing)} tensors differ, first {differing[0]}")


def original_config(base: Path) -> Path:
    """The ChatGLM config that the base came with. Raises ValueError when there is none."""
    path = base / ORIGINAL / "config.json"
    if not path.is_file():
        raise ValueError(
            f"export.layout is 'chatglm3', expected 'native': {base} did not come from a ChatGLM checkpoint"
        )
    return path


def differences(native: Path, chatglm: Path, shape: Shape) -> list[str]:
    """Names of the native tensors that the other folder holds with other bits."""
    import torch

    with ExitStack() as stack:
        ours, theirs = stack.enter_context(opened(native)), stack.enter_context(opened(chatglm))
        return [
            part.native
            for part in parts(shape)
            if not torch.equal(
                ours.readers[part.native](0, part.rows).view(torch.uint8),
                theirs.readers[part.chatglm](part.first, part.rows).contiguous().view(torch.uint8),
            )
        ]


def trainable_parameters(shapes: Mapping[str, Iterable[int]]) -> int | None:
    """Trainable parameters that the same LoRA has in ChatGLM's layout, by the shapes of the native ones.

    The query, key and value layers are one there, with one A. None where only some of the three are adapted.
    """
    from math import prod

    total = sum(prod(shape) for shape in shapes.values())
    for natives in MODULES.values():
        inputs = {name: [key for key in shapes if f".{name}.lora_A." in key] for name in natives}
        if len({len(keys) for keys in inputs.values()}) > 1:
            return None
        total -= sum(prod(shapes[key]) for name in natives[1:] for key in inputs[name])
    return total


def _joined(stored: Stored, group: list[Part]) -> Tensor:
    import torch

    def read() -> "torch.Tensor":
        return torch.cat([stored.readers[part.native](0, part.rows) for part in group])

    return Tensor(group[0].chatglm, group[0].whole, read)


def _frequencies(shape: Shape, dtype: str) -> Tensor:
    """The rotary frequencies: their values are computed anew by whoever loads them, their dtype is not."""
    import torch

    turned = shape.head // 2
    steps = torch.arange(0, turned, 2).to(getattr(torch, dtype)) / turned
    return Tensor(IGNORED[0], (len(steps),), lambda: 1.0 / (10_000**steps))
