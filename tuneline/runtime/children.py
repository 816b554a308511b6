"""A function in several processes at once, such as one on each GPU; one that fails or dies is one error here."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

from tuneline.runtime.errors import EXPECTED, is_out_of_memory, sentence
from tuneline.runtime.process import exit_with_parent
from tuneline.runtime.stopping import SIGNALS

T = TypeVar("T")
R = TypeVar("R")


def in_children(function: Callable[[T], R], tasks: Sequence[T], names: Sequence[str]) -> list[R]:
    """function(task) of each task in a process of its own; `names` say in an error what each is for.

    The first to fail ends all. Raises ValueError for an error that is expected, torch's error when a GPU's memory does not
    suffice, and ChildProcessError for a process that died.
    """
    # Forking copies a CUDA context, which then works nowhere; spawning starts clean.
    context = multiprocessing.get_context("spawn")
    running: dict[Connection, tuple[int, SpawnProcess]] = {}
    results: dict[int, R] = {}
    try:
        with kept_from_signals():
            for number, task in enumerate(tasks):
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(function, task, number, theirs, os.getpid()), daemon=True)
                process.start()
                theirs.close()
                running[ours] = number, process
        waiting = list(running)
        while waiting:
            for connection in wait(waiting):
                assert isinstance(connection, Connection)
                number, process = running[connection]
                results[number] = _received(connection, process, names[number])
                waiting.remove(connection)
        return [results[number] for number in range(len(tasks))]
    finally:
        for _, process in running.values():
            process.kill()
            process.join()


@contextmanager
def kept_from_signals() -> Iterator[None]:
    """What is started inside never gets what a terminal or `timeout` sends to all: this process ends the others."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        # The first process else starts it, which unblocks signals.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(function: Callable[[T], R], task: T, number: int, results: Connection, parent: int) -> None:
    """In the process: run, and send the result, or the error's sentence and whether a GPU's memory did not suffice."""
    exit_with_parent(parent)
    # Of several processes only the first has bars, as in training.
    os.environ["RANK"] = str(number)
    try:
        results.send((function(task), None))
    except Exception as error:
        full = is_out_of_memory(error)
        if os.environ.get("TUNELINE_TRACEBACK") or not (isinstance(error, EXPECTED) or full):
            raise
        results.send((None, (sentence(error), full)))


def _received(connection: Connection, process: SpawnProcess, name: str) -> Any:
    try:
        result, error = connection.recv()
    except EOFError:
        process.join()
        raise ChildProcessError(f"the process for {name} {_end(process.exitcode or 0)}") from None
    if error is None:
        return result
    said, full = error
    if full:
        from torch import OutOfMemoryError

        raise OutOfMemoryError(said)
    raise ValueError(said)


def _end(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}: what it said is above"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    why = ", most likely for want of main memory" if -status == signal.SIGKILL else ""
    return f"was ended by {name}{why}; run the stage again"
