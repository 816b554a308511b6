"""Processes that validate together: one may answer for hours while another waits, and all end with what the first one finds.

A collective operation gives up after 30 minutes (gloo in DeepSpeed's groups) or ten (NCCL). So the processes first wait for one
another by a key each in the store that they met by, without an end: whoever starts them ends those that are left when one dies,
and the heartbeat ends a host whose neighbour is lost.
"""

import os
from collections.abc import Callable
from time import sleep
from typing import Any, Protocol, TypeVar

import torch.distributed

T = TypeVar("T")
SECONDS = 0.1
"""Between two looks at the store."""


class Store(Protocol):
    """What torch.distributed.TCPStore does here."""

    def set(self, key: str, value: str) -> None: ...

    def check(self, keys: list[str]) -> bool:
        """Whether all of them are there."""


def rank() -> int:
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def world() -> int:
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def wait_for_all(point: str, store: Store | None = None) -> None:
    """Return when all processes have come to this point, which each comes to once; however long that takes."""
    if world() == 1:
        return
    store = store or connection()
    keys = [f"tuneline: {point}: {number}" for number in range(world())]
    store.set(keys[rank()], "")
    # Not store.wait(), within which no signal would be heard.
    while not store.check(keys):
        sleep(SECONDS)


def connection() -> Store:
    """A connection of its own to the store of the process group."""
    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store: Store = torch.distributed.TCPStore(*place, is_master=False)  # type: ignore[attr-defined]
    return store


def gathered(mine: dict[int, T]) -> dict[int, T]:
    """What all processes have, in each."""
    if world() == 1:
        return mine
    parts: list[Any] = [None] * world()
    torch.distributed.all_gather_object(parts, mine)
    return {item: output for part in parts for item, output in part.items()}


def by_first(compute: Callable[[], T], point: str) -> T:
    """What the first process computes, in each; its ValueError, too, so that none is left waiting."""
    box: list[Any] = [None, None]
    if rank() == 0:
        try:
            box[0] = compute()
        except ValueError as error:
            if world() == 1:
                raise
            box[1] = str(error)
    if world() > 1:
        wait_for_all(point)
        torch.distributed.broadcast_object_list(box, src=0)
    if box[1] is not None:
        raise ValueError(box[1])
    value: T = box[0]
    return value
