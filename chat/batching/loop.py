"""Step loop: one thread that admits requests, and gives every batch a step in turn."""

import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import TypeVar

import torch

from chat.batching.alone import start_alone
from chat.batching.batch import Batch
from chat.batching.rows import Row
from chat.batching.scheduling import admit, width_of
from chat.limits import LIMITS, MAX_RUNNING, MAX_WAIT, MAX_WAITING, BusyError, WaitedError
from chat.models import ActiveModel, Models

LINGER = 2.0
"""Seconds that the thread waits for another request before it ends; the next one starts it anew."""
POLL = 0.05
"""Seconds between two looks at requests that wait while nothing runs in batches."""
T = TypeVar("T")


class StepLoop:
    """Requests of all models, in a bounded queue and in running batches.

    Batches of different models take their steps in turn, each with the model's own adapter.
    """

    def __init__(self, models: Models) -> None:
        self.models = models
        self._changed = threading.Condition()
        self._places: set[Row] = set()
        self._waiting: list[Row] = []
        self._running: list[Row] = []
        self._batches: dict[tuple[str, int], tuple[ActiveModel, Batch]] = {}
        self._thread: threading.Thread | None = None

    @property
    def in_flight(self) -> int:
        """Requests that are queued or running."""
        return len(self._places)

    def reserve(self, row: Row) -> None:
        """Place for a request. Raises BusyError where all are taken."""
        with self._changed:
            if len(self._places) >= MAX_RUNNING + MAX_WAITING:
                raise BusyError(len(self._places))
            self._places.add(row)

    def submit(self, row: Row) -> None:
        """Queue a request that has a place; its model has been loaded."""
        row.arrived = time.monotonic()
        with self._changed:
            self._waiting.append(row)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="batches", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def release(self, row: Row) -> None:
        """Give the place of a request back, which ends it if it goes on. It may be given back before."""
        row.closed.set()
        with self._changed:
            self._places.discard(row)
            self._changed.notify_all()

    def _run(self) -> None:
        while self._admit():
            for key, (model, batch) in list(self._batches.items()):
                self._advance(model, batch)
                if not len(batch):
                    del self._batches[key]

    def _admit(self) -> bool:
        """Start what may run now; False when there has been nothing to do for a while, and the thread ends."""
        with self._changed:
            if not self._batches:
                self._changed.wait_for(lambda: bool(self._waiting), POLL if self._running else LINGER)
            self._clear()
            if not (self._waiting or self._running or self._batches):
                self._thread = None
                return False
            chosen = admit(self._waiting, self._running, LIMITS)
            self._waiting = without(self._waiting, chosen)
            self._running += chosen
            if not chosen and not self._batches:
                self._changed.wait(POLL)
        for row in chosen:
            self._start(row)
        return True

    def _clear(self) -> None:
        """Requests that have ended make room; those that have gone, or waited too long, leave the queue."""
        over = [row for row in self._running if row.over]
        self._running = without(self._running, over)
        now = time.monotonic()
        late = [row for row in self._waiting if row.gone or now - row.arrived > MAX_WAIT]
        self._waiting = without(self._waiting, late)
        for row in late:
            row.end(None if row.gone else WaitedError(now - row.arrived))
        self._places.difference_update(over, late)

    def _start(self, row: Row) -> None:
        try:
            model = self.models.get(row.name)
            if not row.batched:
                start_alone(row, partial(self.models.use, model), self.models.pad_id)
                return
            key = (row.name, width_of(row.size, LIMITS))
            if key not in self._batches:
                self._batches[key] = (model, Batch(model.network, self.models.pad_id))
            self._batches[key][1].add(row)
        except Exception as error:
            row.end(error)

    @torch.inference_mode()
    def _advance(self, model: ActiveModel, batch: Batch) -> None:
        try:
            with self.models.use(model):
                batch.advance()
        except Exception as error:
            # Such as memory that is not there: every row of the batch has lost its cache.
            batch.fail(error)


def without(rows: Sequence[T], others: Sequence[T]) -> list[T]:
    """Rows but for the others, in order."""
    return [row for row in rows if row not in others]
