"""Map over batches in several processes, in order and with few batches in flight. One batch alone starts no process."""

import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from typing import TypeVar

from tuneline.runtime.process import die_with

T = TypeVar("T")
R = TypeVar("R")
AHEAD = 2
"""Batches per worker that wait or are worked on."""


def workers() -> int:
    """Processes to use: TUNELINE_WORKERS, else the cores that this process may use."""
    given = os.environ.get("TUNELINE_WORKERS", "")
    if given and (not given.isdecimal() or not int(given)):
        raise ValueError(f"TUNELINE_WORKERS is {given!r}, expected a number of processes, 1 or more")
    return int(given) if given else len(os.sched_getaffinity(0))


def ordered_map(function: Callable[[T], R], batches: Iterable[T], processes: int) -> Iterator[R]:
    """Yield function(batch) for each batch in order, whatever the number of processes."""
    batches = iter(batches)
    beginning = list(islice(batches, 2))
    if processes == 1 or len(beginning) < 2:
        yield from map(function, chain(beginning, batches))
        return
    # Forking copies locks that other threads hold; spawning starts clean.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=die_with, initargs=(os.getpid(),)) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for batch in chain(beginning, batches):
                waiting.append(pool.submit(function, batch))
                if len(waiting) > AHEAD * processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            _unblock(pool)
            raise ValueError(
                "a worker process was killed, most likely for want of memory: set TUNELINE_WORKERS=1 or close other programs"
            ) from None


def _unblock(pool: ProcessPoolExecutor) -> None:
    """Let the pool end: a thread of it may be writing a batch that no worker is left to read (python/cpython#94777).

    Python does so itself since 3.11.5; in Debian 12's 3.11.2 the pool would wait for ever.
    """
    queue = getattr(pool, "_call_queue", None)
    if sys.version_info < (3, 11, 5) and queue is not None:
        queue._reader.close()
