"""Training in the stage's own process, where one process on a CPU trains: nothing is imported twice."""

import os

from tuneline.runtime.machine import free_port
from tuneline.runtime.slots import threads
from tuneline.runtime.stopping import SIGNALS, STATUS, take_signals
from tuneline.train.process_arguments import Command

ONE_HOST = "127.0.0.1"


def rank_variables(port: int) -> dict[str, str]:
    """What DeepSpeed's launcher sets for the only process of a run."""
    place = {"RANK": "0", "LOCAL_RANK": "0", "CROSS_RANK": "0"}
    size = {"WORLD_SIZE": "1", "LOCAL_SIZE": "1", "CROSS_SIZE": "1"}
    return place | size | {"MASTER_ADDR": ONE_HOST, "MASTER_PORT": str(port), "OMP_NUM_THREADS": str(threads())}


def run_here(command: Command, port: int | None) -> int:
    """Train in this process. Returns the signal that stopped it, or 0; raises what training raises.

    Before training has begun a signal ends the process at once, as in any stage; then the step is finished and saved.
    """
    os.environ.update(rank_variables(port or free_port()))
    from torch import set_num_threads

    from tuneline.train.run import run

    # The variable is read when torch is imported, and it has been.
    set_num_threads(threads())
    try:
        run(command)
    except SystemExit as end:
        number = int(end.code or 0) - STATUS
        if number not in SIGNALS:
            raise
        return number
    finally:
        take_signals()
    return 0
