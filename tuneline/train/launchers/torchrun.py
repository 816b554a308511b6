"""Torch's elastic launcher, which else ends with a page about a failed process that says less than the process did.

python -m tuneline.train.launchers.torchrun …       (on each host of a hostfile; arguments of torch.distributed.run)
"""

import logging
import sys
from collections.abc import Sequence

MODULE = "tuneline.train.launchers.torchrun"


def run_torchrun(arguments: Sequence[str]) -> bool:
    """Run it in this process. Returns whether every process ended well. Raises RuntimeError when it can't start."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    try:
        run.main(list(arguments))
    except ChildFailedError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(0 if run_torchrun(sys.argv[1:]) else 1)
