"""Ordered map over batches in several processes, with few batches in flight. One batch alone starts no process.

(joblib's generator does not wait for its consumer: it works on all batches and holds their results, and its workers
outlive a parent that is killed.)
"""

import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from types import TracebackType
from typing import TypeVar

from tuneline.runtime.children import kept_from_signals
from tuneline.runtime.process import exit_with_parent

T = TypeVar("T")
R = TypeVar("R")
AHEAD = 2
"""Batches per worker that wait or are worked on."""


def workers() -> int:
    """Number of processes: TUNELINE_WORKERS, else the cores that this process may use."""
    setting = os.environ.get("TUNELINE_WORKERS", "")
    if setting and (not setting.isdecimal() or not int(setting)):
        raise ValueError(f"TUNELINE_WORKERS is {setting!r}, expected a number of processes, 1 or more")
    return int(setting) if setting else len(os.sched_getaffinity(0))


class Workers:
    """Processes that start when a map has two batches or more, and stay for the maps after it."""

    def __init__(self, processes: int) -> None:
        self.processes = processes
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool:
            self._pool.shutdown()

    def map(self, function: Callable[[T], R], batches: Iterable[T]) -> Iterator[R]:
        """function(batch) for each batch in order, whatever the number of processes. Raises ValueError for a dead worker."""
        batches = iter(batches)
        first_two = list(islice(batches, 2))
        if self.processes == 1 or len(first_two) < 2:
            yield from map(function, chain(first_two, batches))
            return
        pool = self._start()
        waiting: deque[Future[R]] = deque()
        try:
            for batch in chain(first_two, batches):
                with kept_from_signals():
                    # It may start a process.
                    waiting.append(pool.submit(function, batch))
                if len(waiting) > AHEAD * self.processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            _unblock(pool)
            raise ValueError(
                "a worker process was killed, most likely for want of memory: set TUNELINE_WORKERS=1 or close other programs"
            ) from None

    def _start(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # Forking copies locks that other threads hold; spawning starts clean.
            context = multiprocessing.get_context("spawn")
            with kept_from_signals():
                self._pool = ProcessPoolExecutor(
                    self.processes, mp_context=context, initializer=exit_with_parent, initargs=(os.getpid(),)
                )
        return self._pool


def _unblock(pool: ProcessPoolExecutor) -> None:
    """Let the pool end: a thread of it may be writing a batch that no worker is left to read (python/cpython#94777).

    Python does so itself since 3.11.5; in Debian 12's 3.11.2 the pool would wait for ever.
    """
    queue = getattr(pool, "_call_queue", None)
    if sys.version_info < (3, 11, 5) and queue is not None:
        queue._reader.close()
