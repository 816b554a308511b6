"""Bounded concurrency: so many requests at once, taken one by one, and answers as they come."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def in_flight(
    ask: Callable[[Item], Answer], items: Iterable[Item], concurrency: int
) -> Iterator[tuple[Item, Answer | ValueError]]:
    """(item, answer) in the order of answers, or (item, error) where `ask` raised a ValueError; others are raised here.

    An item is taken only when a request is free for it, so `items` may stop when something is wrong. The threads end with the
    process: Ctrl-C does not wait for answers.
    """
    waiting: SimpleQueue[tuple[Item] | None] = SimpleQueue()
    done: SimpleQueue[tuple[Item, Answer | BaseException]] = SimpleQueue()

    def work() -> None:
        while (taken := waiting.get()) is not None:
            try:
                done.put((taken[0], ask(taken[0])))
            except BaseException as error:
                done.put((taken[0], error))

    source, running = iter(items), 0
    threads = [Thread(target=work, daemon=True, name=f"request {number}") for number in range(concurrency)]
    for thread in threads:
        thread.start()
    try:
        while True:
            for item in islice(source, concurrency - running):
                waiting.put((item,))
                running += 1
            if not running:
                return
            item, answer = done.get()
            running -= 1
            if isinstance(answer, BaseException) and not isinstance(answer, ValueError):
                raise answer
            yield item, answer
    finally:
        for _ in threads:
            waiting.put(None)
