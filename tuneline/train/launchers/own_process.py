"""Training in the stage's own process, where one process on a CPU trains: nothing is imported twice."""

import os
import signal
import sys
from types import FrameType

from tuneline.runtime.machine import free_port
from tuneline.runtime.slots import threads
from tuneline.train.process_arguments import Command

ONE_HOST = "127.0.0.1"


def rank_variables(port: int) -> dict[str, str]:
    """What DeepSpeed's launcher sets for the only process of a run."""
    place = {"RANK": "0", "LOCAL_RANK": "0", "CROSS_RANK": "0"}
    size = {"WORLD_SIZE": "1", "LOCAL_SIZE": "1", "CROSS_SIZE": "1"}
    return place | size | {"MASTER_ADDR": ONE_HOST, "MASTER_PORT": str(port), "OMP_NUM_THREADS": str(threads())}


def run_here(command: Command, port: int | None) -> bool:
    """Train in this process. Returns whether SIGTERM or SIGINT came; raises what training raises.

    Before training has begun a signal ends it at once; then the step is finished and saved.
    """
    stop = _Stop()
    os.environ.update(rank_variables(port or free_port()))
    # After the handlers: libraries swallow what is raised while they are imported.
    from torch import set_num_threads

    from tuneline.train.run import STOPPED, run

    # The variable is read when torch is imported, and it has been.
    set_num_threads(threads())
    try:
        # First, so that no signal falls between the two.
        stop.at_once = STOPPED
        if not stop.requested:
            run(command)
    except SystemExit as end:
        if end.code != STOPPED:
            raise
        return True
    return stop.requested


class _Stop:
    """SIGTERM and SIGINT before training takes them over."""

    def __init__(self) -> None:
        self.requested = False
        self.at_once: int | None = None
        """Exit status that a signal ends with, once nothing that is imported would swallow it."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._request)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if self.at_once is not None:
            sys.exit(self.at_once)
