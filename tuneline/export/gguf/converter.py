"""llama.cpp's converter, in an environment of its own: it needs transformers 4, with which this project does not run."""

import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tuneline.runtime.atomic import atomic_output, cached_output
from tuneline.runtime.cache import private_folder
from tuneline.runtime.terminal.lines import say

SCRIPT = "convert_hf_to_gguf.py"
PACKAGE = "llama-cpp-python==0.3.36"
"""A package whose source archive holds llama.cpp's."""
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
INSIDE = ("convert_hf_to_gguf.py", "conversion", "gguf-py/gguf", "LICENSE")
"""What is taken of llama.cpp's folder in it; nothing is built."""
REQUIREMENTS = Path(__file__).with_name("requirements.txt")


class Converter(NamedTuple):
    python: Path
    folder: Path
    """Of llama.cpp."""


def find_converter(own: Path | None) -> Converter:
    """The converter of one's own checkout, or a pinned one; its environment is made in the user's cache at first.

    Raises ValueError that says what is missing, or what could not be downloaded.
    """
    if own is not None and not (own / SCRIPT).is_file():
        raise ValueError(f"{own} has no {SCRIPT}: expected a checkout of llama.cpp (--llama-cpp, or $LLAMA_CPP)")
    environment = private_folder("llama-cpp") / f"{PACKAGE.partition('==')[2]}-python{sys.version_info.minor}"
    if not environment.is_dir():
        _say_beforehand(environment, own)
        with cached_output(environment) as partial:
            if partial:
                _make(partial)
    _use_project(environment)
    python = environment / "bin/python"
    if own is not None:
        return Converter(python, own)
    source = environment.with_name(f"{environment.name}-source")
    if not source.is_dir():
        with cached_output(source) as partial:
            if partial:
                _unpack(python, partial)
    return Converter(python, source)


def _say_beforehand(environment: Path, own: Path | None) -> None:
    source = "" if own else f"; its own source is in the archive of {PACKAGE}, 77 MB"
    say(
        f"release: llama.cpp's converter gets an environment of its own, once, in {environment}: transformers 4.57 and "
        f"what it needs, 30 MB from the package index{source}. The project's own environment stays as it is",
    )


def _make(environment: Path) -> None:
    """With packages of its own alone."""
    _run([sys.executable, "-m", "venv", "--without-pip", str(environment)])
    _run([*_pip(environment / "bin/python"), "install", "--no-deps", "-r", str(REQUIREMENTS)])


def _use_project(environment: Path) -> None:
    """After its own packages those of this project, for torch and numpy: another one may have made the environment."""
    own = Path(sysconfig.get_path("purelib", vars={"base": str(environment), "platbase": str(environment)}))
    with atomic_output(own / "project.pth", wait=True) as partial:
        partial.write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")


def _unpack(python: Path, folder: Path) -> None:
    """llama.cpp's converter out of the package's archive, whose hash pip checks before it reads it."""
    with tempfile.TemporaryDirectory() as scratch:
        wanted = Path(scratch, "source.txt")
        wanted.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n", encoding="utf-8")
        _run(
            [*_pip(python), "download", "--no-deps", "--no-binary=:all:", "--no-build-isolation", "--require-hashes",
             "--dest", scratch, "-r", str(wanted)]
        )  # fmt: skip
        (archive,) = Path(scratch).glob("*.tar.gz")
        with tarfile.open(archive) as packed:
            for member in packed:
                inside = "/".join(PurePosixPath(member.name).parts[3:])
                if "vendor/llama.cpp/" in member.name and member.isfile() and inside.startswith(INSIDE):
                    content = packed.extractfile(member)
                    assert content is not None
                    (folder / inside).parent.mkdir(parents=True, exist_ok=True)
                    (folder / inside).write_bytes(content.read())


def _pip(python: Path) -> list[str]:
    return [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "--disable-pip-version-check",
        "--no-input",
        "--quiet",
    ]


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        said = [line for line in result.stderr.splitlines() if "ERROR" in line or "rror:" in line] or [
            result.stderr[-300:]
        ]
        raise ValueError(
            f"the environment of llama.cpp's converter could not be made ({said[-1].strip()}): connect to a package index, or "
            "set PIP_FIND_LINKS to a folder that holds the packages of tuneline/export/gguf/requirements.txt and the archive "
            f"of {PACKAGE}"
        )
