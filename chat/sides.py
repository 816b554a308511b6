"""What one column of the page says while its model answers, and how two go along together."""

import html
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from queue import SimpleQueue

from chat.answers import Piece
from chat.limits import BusyError
from tuneline.formats.records import Message

TICK = 0.08
"""Seconds between two looks at what the models have said: the page is not redrawn for every token."""


def settled(history: Sequence[Message]) -> list[Message]:
    """The conversation without a question that was refused, or stopped before its answer began."""
    return list(history[:-1] if history and history[-1]["role"] == "user" else history)


def asked(history: Sequence[Message]) -> list[Message]:
    """The conversation up to the last question."""
    return list(history if history and history[-1]["role"] == "user" else history[:-1])


class Side:
    """One column while its model answers, in a thread of its own: neither waits for the other one's place in the queue."""

    def __init__(
        self, history: list[Message], ask: Callable[[threading.Event], Generator[Piece]], stop: threading.Event
    ) -> None:
        self.history, self.text, self.refusal = history, "", ""
        self.last: Piece | None = None
        self.over = False
        self._ask, self._stop, self._started = ask, stop, time.monotonic()
        self._said: SimpleQueue[Piece | Exception | None] = SimpleQueue()
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        try:
            for piece in self._ask(self._stop):
                self._said.put(piece)
        except Exception as error:
            self._said.put(error)
        self._said.put(None)

    def catch_up(self) -> None:
        """Take in what was said since the last time."""
        while not self._said.empty():
            one = self._said.get()
            if one is None:
                self.over = True
            elif isinstance(one, Exception):
                self.refusal = refusal(one)
            else:
                self.text, self.last = self.text + one.text, one

    def messages(self) -> list[Message]:
        """The conversation with as much of the answer as there is."""
        return [*self.history, {"role": "assistant", "content": self.text}] if self.text else self.history

    def status(self) -> str:
        """The line under the column."""
        if self.refusal:
            return line(self.refusal, "refusal")
        stopped = self._stop.is_set()
        if self.last is None:
            return line("已停止 Stopped" if stopped else f"等待中 Waiting, {time.monotonic() - self._started:.0f} s")
        speed = f"{self.last.tokens / max(self.last.seconds, 1e-3):.1f} tokens/s"
        end = "，已到长度上限 Length limit" if self.last.finish == "length" else ""
        end = "，已停止 Stopped" if stopped and not self.last.finish else end
        return line(f"{self.last.tokens} tokens, {self.last.seconds:.1f} s, {speed}{end}")


def line(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{html.escape(text)}</p>'


def refusal(error: Exception) -> str:
    """A sentence for whoever asked; what nobody foresaw is told to the server's log only."""
    if isinstance(error, (ValueError, BusyError)):
        return " ".join(str(error).split())
    logging.getLogger(__name__).error("a question was not answered", exc_info=error)
    return "没有答成，原因在服务器日志里。 This was not answered: the server's log says why."


def together(sides: Sequence[Side], stop: threading.Event) -> Iterator[None]:
    """Tick until all have answered or are told to stop. Closing it, as when the browser has gone, stops them, too."""
    try:
        while not stop.is_set() and not all(side.over for side in sides):
            stop.wait(TICK)
            for side in sides:
                side.catch_up()
            yield
    finally:
        stop.set()


def escaped(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Messages for a pane, which takes what looks like HTML for HTML even where it is told to render nothing."""
    return [{"role": one["role"], "content": html.escape(one["content"], quote=False)} for one in messages]
