"""A disk that refuses: one sentence with the path, whichever library was writing, and nothing half-written."""

import errno
import json
import os
import sqlite3
from pathlib import Path

import pytest
import torch

from tests.helpers.commands import python
from tests.helpers.paths import ROOT
from tuneline.formats.safetensors_writer import Tensor, write_shards
from tuneline.runtime.atomic import atomic_output, write_json
from tuneline.runtime.errors import exit_with_sentence
from tuneline.runtime.storage import failures, room
from tuneline.runtime.storage.failures import UnwritableError, explain, writing
from tuneline.runtime.storage.room import amount, require_room, size_of

BIG = 200_000
"""Bytes, of which a limited process may write LIMIT."""
LIMIT = 65_536
WRITERS = {
    "safetensors": "from safetensors.torch import save_file; save_file({'a': torch.zeros(N)}, 'x.safetensors')",
    "safetensors of numpy": "from safetensors.numpy import save_file; save_file({'a': np.zeros(N)}, 'x.safetensors')",
    "torch": "torch.save(torch.zeros(N), 'x.pt')",
    "torch, older": "torch.save(torch.zeros(N), 'x.pt', _use_new_zipfile_serialization=False)",
    "numpy": "np.save('x.npy', np.zeros(N))",
    "numpy, raw": "np.zeros(N).tofile('x.bin')",
    "text": "open('x', 'w').write('a' * N)",
    "zip": "import zipfile; zipfile.ZipFile('x.zip', 'w').writestr('a', os.urandom(N))",
    "sqlite": "import sqlite3; c = sqlite3.connect('x'); c.execute('create table t(a)')\n"
    "c.executemany('insert into t values(?)', [('x' * 1000,)] * 500); c.commit()",
    "arrow": "import pyarrow as pa; s = pa.OSFile('x', 'wb'); s.write(b'a' * N); s.close()",
    "tokenizers": "from tokenizers import Tokenizer, models\n"
    "Tokenizer(models.BPE(vocab={f'a{n}': n for n in range(20000)}, merges=[])).save('x.json')",
}
CHILD = """
import io, os, resource, sys
from pathlib import Path
import numpy as np, torch
from tuneline.runtime.atomic import atomic_output
from tuneline.runtime.errors import exit_with_sentence

N = {size}
for name, source in {writers}.items():
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
        try:
            with exit_with_sentence(name), atomic_output(Path("models/made")) as folder, atomic_output(Path("metrics/a.json")):
                folder.mkdir()
                os.chdir(folder)
                try:
                    exec(source)
                finally:
                    os.chdir("../..")
        except SystemExit as end:
            print(end, flush=True)
        except BaseException as error:
            print("TRACEBACK", name, repr(error), flush=True)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
"""


def test_every_library_that_writes_ends_in_one_sentence(tmp_path):
    """At a limit on the size of a file, which every writer meets as it meets a full disk."""
    writers = WRITERS
    result = python(tmp_path, "-c", CHILD.format(size=BIG, limit=LIMIT, writers=writers), env={"PYTHONPATH": str(ROOT)})
    said = result.stdout.splitlines()
    assert len(said) == len(writers), result.stderr
    for name, line in zip(writers, said, strict=True):
        limit = "it is larger than the limit on files, 66 KB (`ulimit -f`)"
        assert line.startswith(f"{name}: models/made could not be written: {limit}")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


FULL = os.strerror(errno.ENOSPC)
ERRORS = {
    "safetensors": lambda: Exception(f"Error while serializing: I/O error: {FULL} (os error 28)"),
    "torch": lambda: RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
    "torch's stream": lambda: RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"),
    "torch, older": lambda: RuntimeError(f"write(): fd 3 failed with {FULL}"),
    "numpy": lambda: OSError("2000000 requested and 262112 written"),
    "python": lambda: OSError(errno.ENOSPC, FULL),
    "quota": lambda: OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
    "sqlite": lambda: sqlite3.OperationalError("database or disk is full"),
    "arrow": lambda: OSError(errno.ENOSPC, f"Error writing bytes to file. Detail: [errno 28] {FULL}"),
    "C++": lambda: RuntimeError("basic_ios::clear: iostream error"),
}


def raised(error: Exception) -> str:
    """What a program says that ends with it."""
    with pytest.raises(SystemExit) as end, exit_with_sentence("base"):
        raise error
    return str(end.value)


@pytest.mark.parametrize("name", ERRORS)
def test_the_sentence_has_path_what_was_written_and_what_is_free(workspace, monkeypatch, name):
    workspace()
    monkeypatch.setattr(failures, "free_bytes", lambda path: 4_000)
    Path("models/base").mkdir(parents=True)
    with (  # noqa: PT012
        pytest.raises(SystemExit) as end,
        exit_with_sentence("base"),
        atomic_output(Path("models/base")) as folder,
        atomic_output(Path("metrics/base.json")),
    ):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"0" * 1_500_000)
        raise ERRORS[name]()
    room_ = "the quota was used up" if name == "quota" else "no space was left"
    assert end.value.code == (
        f"base: models/base could not be written: {room_}, 1.5 MB of it were written, "
        "now 4 KB free in models; make room there and run again"
    )
    assert [path.name for path in Path("models").iterdir()] == ["base"], "the earlier one stays"


@pytest.mark.parametrize("name", ERRORS)
def test_a_chain_of_errors_is_told_by_its_root(name):
    def chained() -> Exception:
        try:
            try:
                raise ERRORS[name]()
            except Exception as error:
                raise RuntimeError("could not save") from error
        except RuntimeError as error:
            return error

    assert explain(chained()).startswith("writing failed: ")
    assert explain(ERRORS[name]()).startswith("writing failed: ")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "data/raw/a.csv"), "data/raw/a.csv: permission denied; "),
        (OSError(errno.EROFS, "Read-only file system", "models"), "models: the file system is read-only; expected"),
        (OSError(errno.EIO, "Input/output error", "models/a"), "models/a: the disk gives an input/output error"),
        (OSError(errno.ENOSPC, FULL, "from", None, "to/x"), "to/x: no space was left, now "),
        (OSError(errno.EMFILE, "Too many open files", "a"), "too many files are open at once, the limit is "),
        (MemoryError(), "there is not enough memory: none is left"),
        (MemoryError("Unable to allocate 728 TiB"), "there is not enough memory: Unable to allocate 728 TiB"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 4000 bytes"), "there is not enough memory: Default"),
        (RuntimeError("std::bad_alloc"), "there is not enough memory: "),
    ],
)
def test_what_else_a_machine_refuses(error, said):
    assert raised(error).startswith(f"base: {said}")
    assert "\n" not in raised(error)


@pytest.mark.parametrize(
    "error",
    [KeyError("messages"), RuntimeError("shapes do not fit"), TypeError("os"), AssertionError("unexpected pos")],
)
def test_a_bug_keeps_its_traceback(error):
    assert explain(error) is None
    with pytest.raises(type(error)), exit_with_sentence("base"):
        raise error


def test_an_error_about_another_file_is_not_about_the_output(workspace):
    workspace()
    with pytest.raises(PermissionError) as error, atomic_output(Path("models/base")) as folder:  # noqa: PT012
        folder.mkdir()
        raise PermissionError(errno.EACCES, "Permission denied", "data/raw/a.csv")
    assert (
        explain(error.value) == "data/raw/a.csv: permission denied; expected a place that this user can read and write"
    )
    with (  # noqa: PT012
        pytest.raises(UnwritableError, match=r"^models/base/a\.json could not be written"),
        atomic_output(Path("models/base")) as folder,
    ):
        folder.mkdir()
        raise OSError(errno.ENOSPC, FULL, str(folder / "a.json"))
    with pytest.raises(ValueError, match="no row"), writing(Path("models")):
        raise ValueError("no row")
    # A read has no name in its error.
    with pytest.raises(OSError, match="Input/output error") as error, writing(Path("models")):
        raise OSError(errno.EIO, "Input/output error")
    assert type(error.value) is OSError


def test_needed_room_is_asked_for_before_weights_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "free_bytes", lambda path: 100)
    tensor = Tensor("a", (50, 2), lambda: torch.zeros(50, 2), "float32")
    with pytest.raises(ValueError, match=r"made needs 0 KB, and 0 KB are free in .*: make room there$"):
        write_shards(tmp_path / ".made.partial", [tensor], "float32")
    assert list(tmp_path.rglob("*.safetensors")) == []
    require_room(tmp_path / "made", 100)
    monkeypatch.setattr(room, "free_bytes", lambda path: 2_500_000)
    with pytest.raises(ValueError, match=r"/base needs 5\.36 GB, and 2\.5 MB are free in "):
        require_room(tmp_path / ".base.partial", 5_360_000_000)


def test_amounts_and_sizes(tmp_path):
    assert [amount(size) for size in (0, 12_345, 3_100_000, 1_250_000_000)] == ["0 KB", "12 KB", "3.1 MB", "1.25 GB"]
    (tmp_path / "a").write_bytes(b"12")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/c").write_bytes(b"345")
    assert (size_of(tmp_path), size_of(tmp_path / "a"), size_of(tmp_path / "no")) == (5, 2, 0)


def test_json_is_whole_or_as_it_was(workspace, monkeypatch):
    workspace()
    write_json(Path("metrics/a.json"), {"a": 1})

    def full(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, FULL)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        write_json(Path("metrics/a.json"), {"a": 2})
    assert json.loads(Path("metrics/a.json").read_bytes()) == {"a": 1}
    assert [path.name for path in Path("metrics").iterdir()] == ["a.json"]
