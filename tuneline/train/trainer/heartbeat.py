"""Heartbeat between the hosts of a run: a host that says nothing for a minute is lost, and the run ends with a sentence.

Collective operations wait much longer: gloo 30 minutes in DeepSpeed's groups, whatever Trainer is told, NCCL ten.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple, Protocol

from tuneline.runtime.terminal.lines import say

BEAT_SECONDS = 5.0
SILENT_SECONDS = 60.0
"""After which a host is lost."""


class Store(Protocol):
    """What torch.distributed.TCPStore does here."""

    def add(self, key: str, amount: int) -> int:
        """Returns the new value, 0 and up."""


class HostRank(NamedTuple):
    """Where a process runs."""

    host: int
    hosts: int
    first: bool
    """Whether it is its host's first process, which speaks for the host."""


def place_of(environment: Mapping[str, str]) -> HostRank:
    """By the variables that DeepSpeed's launcher, torch's and our start by srun set."""
    hosts = environment.get("CROSS_SIZE") or environment.get("GROUP_WORLD_SIZE") or "1"
    host = environment.get("CROSS_RANK") or environment.get("GROUP_RANK") or "0"
    return HostRank(int(host), int(hosts), environment.get("LOCAL_RANK", "0") == "0")


@contextmanager
def hosts_watched() -> Iterator[None]:
    """End this process when another host, or the connection to it, is lost within the block. Nothing on one host."""
    import torch.distributed

    place = place_of(os.environ)
    if place.hosts > 1 and torch.distributed.is_initialized():
        # One host may have read the base for minutes longer than another, which would take it for lost.
        torch.distributed.barrier()
    if place.hosts == 1 or not place.first:
        yield
        return
    # A connection of its own: the process group's may be waiting.
    store = torch.distributed.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=False,
        timeout=timedelta(seconds=SILENT_SECONDS),
    )
    done = threading.Event()
    heard = Heard(place, time.monotonic)
    for target in (lambda: beat(store, heard, done), lambda: end_when_silent(heard, done)):
        threading.Thread(target=target, name="heartbeat", daemon=True).start()
    try:
        yield
    finally:
        done.set()


class Heard:
    """When each other host's number of beats was last seen to grow."""

    def __init__(self, place: HostRank, now: Callable[[], float]) -> None:
        self.place, self.now = place, now
        self.beats = dict.fromkeys((host for host in range(place.hosts) if host != place.host), 0)
        self.last = dict.fromkeys(self.beats, now())

    def exchange(self, store: Store) -> None:
        """Beat once, and read the others' numbers."""
        store.add(f"beats of host {self.place.host}", 1)
        for host, before in self.beats.items():
            count = store.add(f"beats of host {host}", 0)
            if count != before:
                self.beats[host], self.last[host] = count, self.now()

    def silent(self) -> list[int]:
        """Hosts that are lost."""
        return [host for host, last in self.last.items() if self.now() - last > SILENT_SECONDS]


def beat(store: Store, heard: Heard, done: threading.Event) -> None:
    """Exchange beats until the store is gone, which is silence, too."""
    while not done.wait(BEAT_SECONDS):
        try:
            heard.exchange(store)
        except RuntimeError:
            return


def end_when_silent(heard: Heard, done: threading.Event) -> None:
    """The main thread may be waiting for a host that is lost, where no exception reaches it."""
    while not done.wait(1.0):
        if lost := heard.silent():
            names = ", ".join(str(host + 1) for host in lost)
            say(
                f"train: host {names} of {heard.place.hosts} has said nothing for {SILENT_SECONDS:.0f} seconds, it or the "
                "connection to it is lost; `dvc repro` goes on from the newest checkpoint",
                file=sys.stderr,
            )
            os._exit(1)
