"""Conversion of a ChatGLM3-shaped checkpoint to native Glm, beside a plain copy of the same files.

    python -m benchmarks.chatglm3 [--layers 28] [--folder DIR]

Random float16 shards are written to disk first: 28 layers are ChatGLM3-6B's 12.5 GB, 9 a cut of 2.4 billion parameters.
Each measurement is a process of its own, with the files out of the page cache when the system lets us drop it. The
target of both is synced to disk inside the time. Memory is the peak resident size without mapped file pages. The best
of three rounds counts.
"""

import os
import shutil
import tempfile
import time
from pathlib import Path

from benchmarks.checkpoints import chatglm_config, write_chatglm
from benchmarks.harness import anonymous_peak, argument_parser, call_in_child, interleaved, show, table

TASKS = {"copy": "copy", "convert to float16": "float16", "convert to bfloat16": "bfloat16"}
COLUMNS = ("", "seconds", "GB/s", "of the copy", "peak memory GB")


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--layers", type=int, default=9)
    parser.add_argument("--folder", type=Path, help="where to write; it needs three times the checkpoint")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        source = Path(folder) / "source"
        write_chatglm(source, options.layers)
        sizes = [file.stat().st_size for file in source.glob("*.safetensors")]
        runs = interleaved(TASKS, 3, lambda name: call_in_child(convert_or_copy, folder, options.layers, TASKS[name]))
    best = {name: min(pairs) for name, pairs in runs.items()}
    size = sum(sizes) / 1e9
    print(f"{options.layers} layers, {size:.2f} GB of float16, largest file {max(sizes) / 1e9:.2f} GB")
    show(table(COLUMNS, (
        (name, f"{seconds:.1f}", f"{size / seconds:.2f}", f"{best['copy'][0] / seconds:.2f}", f"{peak / 1e9:.2f}")
        for name, (seconds, peak) in best.items()
    )))  # fmt: skip


def convert_or_copy(folder: str, layers: int, task: str) -> tuple[float, int]:
    """(seconds until the target is on disk, peak anonymous memory in bytes); the target is removed after that."""
    source, target = Path(folder) / "source", Path(folder) / "target"
    drop_from_page_cache(source)
    with anonymous_peak() as peak:
        start = time.monotonic()
        if task == "copy":
            target.mkdir()
            for file in sorted(source.glob("*.safetensors")):
                shutil.copyfile(file, target / file.name)
        else:
            from tuneline.models.chatglm.config import shape_of
            from tuneline.models.chatglm.weights import convert

            convert(source, shape_of(chatglm_config(layers)), task, target)
        os.sync()
        seconds = time.monotonic() - start
    shutil.rmtree(target)
    return seconds, peak()


def drop_from_page_cache(folder: Path) -> None:
    """So that both read the files from disk."""
    os.sync()
    for file in folder.iterdir():
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
