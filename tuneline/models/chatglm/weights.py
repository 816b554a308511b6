"""Conversion of ChatGLM's weights to native ones, a tensor at a time: memory holds one tensor, never a checkpoint."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline.formats.safetensors_reader import file_entries
from tuneline.formats.safetensors_writer import Tensor, write_shards
from tuneline.formats.weight_files import pickled_files, safetensors_files
from tuneline.models.chatglm.config import Shape
from tuneline.models.chatglm.names import IGNORED, parts

if TYPE_CHECKING:
    import torch


class Stored:
    """The tensors of a checkpoint by name, read on demand."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.readers: dict[str, Callable[[int, int], torch.Tensor]] = {}
        """Rows [first, first + rows) of a tensor."""

    def add(self, name: str, shape: tuple[int, ...], reader: "Callable[[int, int], torch.Tensor]", file: Path) -> None:
        if name in self.shapes:
            raise ValueError(f"{file} holds {name}, and another file of the checkpoint does, too: expected it once")
        self.shapes[name], self.readers[name] = shape, reader


def convert(source: Path, shape: Shape, dtype: str, folder: Path) -> None:
    """Write the checkpoint at `source` as native safetensors in `dtype`.

    Raises ValueError naming a tensor that is missing, not known, or of another shape, and a file that is missing or torn.
    """
    import torch

    target = getattr(torch, dtype)
    with opened(source) as stored:
        check(stored.shapes, shape)
        tensors = [
            Tensor(
                part.native,
                part.shape,
                lambda part=part: stored.readers[part.chatglm](part.first, part.rows).to(target).reshape(part.shape),  # type: ignore[misc]
            )
            for part in parts(shape)
        ]
        write_shards(folder, tensors, dtype)


def check(shapes: Mapping[str, tuple[int, ...]], shape: Shape) -> None:
    """Raises ValueError unless the checkpoint holds exactly the tensors of such a network."""
    expected = {part.chatglm: part.whole for part in parts(shape)}
    missing = sorted(expected.keys() - shapes.keys())
    extra = sorted(shapes.keys() - expected.keys() - set(IGNORED))
    if missing or extra:
        found = [f"{len(missing)} missing, first {missing[0]}"] if missing else []
        found += [f"{len(extra)} that such a network has not, first {extra[0]}"] if extra else []
        raise ValueError(f"the checkpoint's tensors are not those of its config.json: {'; '.join(found)}")
    for name, size in expected.items():
        if shapes[name] != size:
            raise ValueError(f"tensor {name} has shape {list(shapes[name])}, expected {list(size)} by config.json")


@contextmanager
def opened(source: Path) -> Iterator[Stored]:
    """The tensors of a folder: safetensors if there are any, else PyTorch files read as plain weights."""
    stored = Stored()
    with ExitStack() as stack:
        for file in files_of(source):
            (_add_safetensors if file.suffix == ".safetensors" else _add_pytorch)(stored, file, stack)
        yield stored


def files_of(source: Path) -> list[Path]:
    """Weight files, by the index where there is one. Raises ValueError for an index that names a missing file."""
    files = safetensors_files(source) or pickled_files(source)
    if not files:
        raise ValueError(f"{source} holds no weights: expected *.safetensors or pytorch_model*.bin")
    return files


def _add_safetensors(stored: Stored, file: Path, stack: ExitStack) -> None:
    from safetensors import safe_open

    shapes = {name: entry.shape for name, entry in file_entries(file).items()}
    tensors = stack.enter_context(safe_open(str(file), framework="pt"))
    for name, shape in shapes.items():
        piece = tensors.get_slice(name)
        stored.add(name, shape, lambda first, rows, piece=piece: piece[first : first + rows], file)  # type: ignore[misc]


def _add_pytorch(stored: Stored, file: Path, stack: ExitStack) -> None:
    from pickle import UnpicklingError

    import torch

    try:
        # Memory-mapped, and weights only: no object but tensors is ever made.
        tensors: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, ValueError, EOFError, OSError, UnpicklingError) as error:
        raise ValueError(
            f"{file} can't be read as plain PyTorch weights: {' '.join(str(error).split())[:200]}"
        ) from None
    if not are_tensors(tensors):
        raise ValueError(f"{file} holds something else than tensors by name")
    for name, tensor in tensors.items():
        stored.add(
            name, tuple(tensor.shape), lambda first, rows, tensor=tensor: tensor[first : first + rows], file  # type: ignore[misc]
        )  # fmt: skip


def are_tensors(read: Any) -> bool:
    """Whether what a pickle held is plain tensors by name, with values in memory."""
    import torch

    return isinstance(read, dict) and all(
        isinstance(name, str) and isinstance(one, torch.Tensor) and one.layout == torch.strided
        and one.device.type == "cpu" and not one.is_quantized
        for name, one in read.items()
    )  # fmt: skip
