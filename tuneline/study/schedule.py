"""Schedule of a study: what each run will take, which runs fit a budget, and the runs one after another on each device."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tuneline.runtime.slots import VISIBLE, gpu_slots, on_cpu, visible_names
from tuneline.study.experiments import Started, finished, start
from tuneline.study.plan import Run, describe

ATTEMPTS = 3
"""Of a run that ended well and left no experiment, as when two that begin at once take each other's place in DVC's list."""
POLL = 0.3
"""Seconds between two looks at what goes on."""


class Times(NamedTuple):
    """Seconds of a run with the parameters as they are."""

    training: float
    rest: float
    """Evaluation, and what DVC takes."""
    source: str
    """Where they are from, for a sentence."""
    rows: int | None = None
    """Rows of an epoch of theirs; None where nothing tells them."""

    def of(self, run: Run, plain: Mapping[str, Any]) -> float | None:
        """Of a run; `plain` are the parameters that the times are of.

        None where one has epochs, the other steps, and `rows` is None.
        """
        share = plain["data"].get("train_share", 1.0)
        # Of two that have epochs, the rows of one are nothing to the ratio.
        rows = 1.0 if not (in_steps(run.document) or in_steps(plain)) else self.rows and self.rows / share
        part, whole = work(run.document, rows), work(plain, rows)
        return None if part is None or whole is None else self.rest + self.training * part / whole


def in_steps(document: Mapping[str, Any]) -> bool:
    """Whether training is a number of steps, and not of epochs."""
    return bool(document["train"].get("max_steps"))


def work(document: Mapping[str, Any], rows: float | None) -> float | None:
    """Rows that training goes through; `rows` are those of an epoch of the whole data, and None of epochs without them."""
    train = document["train"]
    if in_steps(document):
        return float(train["max_steps"] * train["batch_size"])
    return None if rows is None else float(train["epochs"] * document["data"].get("train_share", 1.0) * rows)


def fitting(
    runs: Sequence[Run], seconds: Mapping[str, float], budget: float, workers: int
) -> tuple[list[Run], list[Run]]:
    """(runs that fit, those left out), in order, each on the worker that is free first; `budget` in seconds."""
    free, taken, left = [0.0] * workers, [], []
    for run in runs:
        worker = free.index(min(free))
        if free[worker] + seconds[run.key] <= budget:
            free[worker] += seconds[run.key]
            taken.append(run)
        else:
            left.append(run)
    return taken, left


def read_budget(text: str) -> float:
    """Seconds of 90s, 60m, 1.5h or 2d. Raises ValueError for anything else."""
    number, unit = text[:-1], text[-1:]
    try:
        seconds = float(number) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
    except (ValueError, KeyError):
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ValueError(f"--budget is {text!r}, expected a time such as 90s, 60m or 8h")
    return seconds


def devices(processes: int | str) -> list[dict[str, str]]:
    """Variables of each worker: GPUs of its own, as many as a run has processes; on a CPU one worker has all cores.

    Stages take the slots of their devices as well, so that no other program's stage computes on one meanwhile.
    """
    if on_cpu() or not (gpus := visible_names(len(gpu_slots()))):
        return [{}]
    size = processes if isinstance(processes, int) else 1
    if size > len(gpus):
        raise ValueError(f"deepspeed.processes is {size} and {len(gpus)} GPUs are there, expected at most as many")
    groups = [gpus[first : first + size] for first in range(0, len(gpus) - size + 1, size)]
    return [{VISIBLE: ",".join(group)} for group in groups]


class Schedule:
    """Runs that wait, go on, have ended and have failed."""

    def __init__(self, study: str, runs: Sequence[Run], workers: Sequence[dict[str, str]], logs: Path) -> None:
        self.study, self.logs = study, logs
        self.waiting = list(runs)
        self.going: list[tuple[dict[str, str], Started]] = []
        self.free = list(workers)
        self.failed: dict[str, Path] = {}
        """Log of each run that failed, by its key."""
        self.attempts: dict[str, int] = {}

    def run(self, may_begin: Callable[[Run], bool]) -> Iterator[tuple[Run, str, float]]:
        """Yield each run that has ended well, with its revision and its seconds; one that may not begin stays in `waiting`."""
        while self.going or any(map(may_begin, self.waiting)):
            while self.free and (run := next(filter(may_begin, self.waiting), None)):
                self._begin(run)
            time.sleep(POLL)
            for place in [place for place in self.going if place[1].process.poll() is not None]:
                yield from self._ended(*place)

    def _begin(self, run: Run) -> None:
        self.waiting.remove(run)
        worker, log = self.free.pop(0), self.logs / f"{run.key[:10]}.log"
        print(f"study: begins {describe(run)}" + (f" on GPU {worker[VISIBLE]}" if worker else ""), flush=True)
        process = start(self.study, run, log, worker, os.environ)
        self.going.append((worker, Started(run, process, log, time.monotonic())))

    def _ended(self, worker: dict[str, str], started: Started) -> Iterator[tuple[Run, str, float]]:
        self.going.remove((worker, started))
        self.free.append(worker)
        run = started.run
        revision = finished(self.study, [run]).get(run.key)
        if revision is not None:
            yield run, revision, time.monotonic() - started.begun
            return
        self.attempts[run.key] = self.attempts.get(run.key, 0) + 1
        if self.attempts[run.key] < ATTEMPTS and (started.process.returncode == 0 or _locked(started.log)):
            self.waiting.insert(0, run)
            return
        self.failed[run.key] = started.log
        print(f"study: FAILED {describe(run)}: {last_line(started.log)} ({started.log})", flush=True)


def _locked(log: Path) -> bool:
    """Whether another command of DVC had the project's lock."""
    return "Unable to acquire lock" in log.read_text(encoding="utf-8", errors="replace")[-4000:]


def last_line(log: Path) -> str:
    """What a run said of its end: a stage's sentence rather than DVC's after it."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(("ERROR", "WARNING", "Running", "Reproducing", ">"))]
    return (said or lines or ["it said nothing"])[-1][:300]
