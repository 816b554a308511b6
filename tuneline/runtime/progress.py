"""Progress bars: one style for all stages in a terminal, and plain lines now and then where there is none (a log, a pipe).

Both go to stderr. Of several training processes only the first has one.
"""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, Self, TypeVar

from tuneline.runtime.terminal.lines import columns, is_terminal, say

T = TypeVar("T")
EVERY = 30.0
"""Seconds between plain lines."""
DELAY = 1.0
"""Seconds before a bar appears: what is done by then needs none."""
KNOWN = "{desc}  {bar:16}  {n:,.0f} of {total:,.0f} {unit}, {remaining} left{postfix}"
UNKNOWN = "{desc}{bar:0}  {n:,.0f} {unit}, {elapsed}{postfix}"
NARROW = "{desc}{bar:0}  {percentage:.0f} %, {remaining} left{postfix}"
WIDE_ENOUGH = 72
"""Columns from which there is room for the bar itself and figures; tqdm cuts a line to the terminal's width where it has a
bar, though one of no length."""
LIBRARY_LABELS = {
    "Loading weights": "loading weights",
    "Writing model shards": "writing weights",
    "Converting and de-quantizing GGUF tensors...": "reading the GGUF file",
}
"""What transformers calls its bars, to what ours are called."""


class ProgressBar:
    """Work that is `done` of `total` units; a total of None is unknown."""

    def __init__(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self.label, self.unit, self.done = label, unit, done
        self._total, self._first, self._notes = total, done, ""
        self._started = self._printed = time.monotonic()
        self._bar: Any = None
        self._silent = os.environ.get("RANK", "0") != "0"
        if not self._silent and is_terminal(sys.stderr):
            self._bar = _bar(label, total, unit, done)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def total(self) -> int | None:
        return self._total

    @total.setter
    def total(self, value: int) -> None:
        """A better estimate of what there is to do."""
        self._total = value
        if self._bar is not None:
            self._bar.total = value

    def note(self, **facts: str) -> None:
        """Facts to show behind the time left: `note(loss="0.35")`."""
        self._notes = "".join(f", {name} {value}" for name, value in facts.items())
        if self._bar is not None:
            # tqdm puts ", " before it.
            self._bar.set_postfix_str(self._notes.removeprefix(", "), refresh=False)

    def update(self, count: int = 1) -> None:
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        elif not self._silent and time.monotonic() - self._printed >= EVERY:
            self._printed = time.monotonic()
            say(self.line(self._printed - self._started), file=sys.stderr)

    def line(self, seconds: float) -> str:
        """The plain line after so many seconds of work."""
        if self._total is None:
            return f"{self.label}: {self.done:,} {self.unit}{self._notes}"
        new = self.done - self._first
        left = f", {clock(seconds / new * max(0, self._total - self.done))} left" if new else ""
        return f"{self.label}: {self.done:,} of {self._total:,} {self.unit}{left}{self._notes}"

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _bar(label: str, total: int | None, unit: str, done: int) -> Any:
    """tqdm's bar: one line that goes away at its end, never longer than the terminal is wide."""
    from tqdm import tqdm

    known = KNOWN if columns(sys.stderr) >= WIDE_ENOUGH else NARROW
    return tqdm(
        total=total, initial=done, desc=label, unit=unit, bar_format=UNKNOWN if total is None else known,
        file=sys.stderr, leave=False, dynamic_ncols=True, delay=DELAY, smoothing=0,
    )  # fmt: skip


def track(items: Iterable[T], label: str, total: int | None, unit: str) -> Iterator[T]:
    """The items one by one, with a bar of how many are done."""
    with ProgressBar(label, total, unit) as bar:
        for item in items:
            yield item
            bar.update()


def clock(seconds: float) -> str:
    """A duration: 45 s, 2 min 09 s, 1 h 05 min."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


class _LibraryBar:
    """What transformers asks tqdm for, as a bar of ours; of tqdm's methods only what it uses."""

    def __init__(self, items: Iterable[Any] | None = None, **options: Any) -> None:
        self._items = items
        self._label = LIBRARY_LABELS.get(options.get("desc") or "", str(options.get("desc") or "working").rstrip(". "))
        self._total = options.get("total") or (len(items) if isinstance(items, Sized) else None)

    def __iter__(self) -> Iterator[Any]:
        return track(self._items or (), self._label, self._total, "tensors")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def restyle_library_bars() -> None:
    """Let transformers show its progress through ProgressBar."""
    from transformers.utils import logging

    logging.set_tqdm_hook(lambda _, items, options: _LibraryBar(*items, **options))


def restyle_gguf_bar() -> None:
    """Let transformers show through ProgressBar how it reads a GGUF file, for which it asks tqdm past its own hook."""
    from transformers import modeling_gguf_pytorch_utils

    vars(modeling_gguf_pytorch_utils)["tqdm"] = _LibraryBar
