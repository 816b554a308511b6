"""Side-by-side columns: one model's reply each, streamed in threads of their own."""

import html
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from queue import SimpleQueue

from chat.deltas import Delta
from chat.i18n.texts import Text
from tuneline.formats.records import Message
from tuneline.runtime.errors import sentence

POLL_INTERVAL = 0.08
"""Seconds between two updates: the page is not redrawn for every token."""
STOPPED = Text("已停止", "stopped")
AT_LIMIT = Text("已到长度上限", "cut off at the length limit")


def drop_unanswered(history: Sequence[Message]) -> list[Message]:
    """Conversation without a last question that was refused, or stopped before its reply began."""
    return list(history[:-1] if history and history[-1]["role"] == "user" else history)


def drop_last_reply(history: Sequence[Message]) -> list[Message]:
    """Conversation up to the last question."""
    return list(history if history and history[-1]["role"] == "user" else history[:-1])


class Column:
    """Column of the page while its model replies. Its thread lets neither column wait for the other one's queue."""

    def __init__(
        self,
        history: list[Message],
        start: Callable[[threading.Event], Generator[Delta]],
        stop: threading.Event,
    ) -> None:
        self.history, self.text = history, ""
        self.error: Text | None = None
        self.last: Delta | None = None
        self.finished = False
        self._start, self._stop, self._started = start, stop, time.monotonic()
        self._queue: SimpleQueue[Delta | Exception | None] = SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            for delta in self._start(self._stop):
                self._queue.put(delta)
        except Exception as error:
            self._queue.put(error)
        self._queue.put(None)

    def update(self) -> None:
        """Take in the deltas since the last time."""
        while not self._queue.empty():
            item = self._queue.get()
            if item is None:
                self.finished = True
            elif isinstance(item, Exception):
                self.error = error_text(item)
            else:
                self.text, self.last = self.text + item.text, item

    def messages(self) -> list[Message]:
        """Conversation with as much of the reply as there is."""
        return [*self.history, {"role": "assistant", "content": self.text}] if self.text else self.history

    def status(self) -> str:
        """Status line under the column, as HTML in both languages."""
        if self.error:
            return status_html(self.error, "error")
        stopped = self._stop.is_set()
        if self.last is None:
            waited = time.monotonic() - self._started
            return status_html(STOPPED if stopped else Text(f"等待中，{waited:.0f} 秒", f"Waiting, {waited:.0f} s"))
        tokens, seconds = self.last.completion_tokens, self.last.seconds
        rate = tokens / max(seconds, 1e-3)
        zh = f"{tokens} 词元，{seconds:.1f} 秒，每秒 {rate:.1f} 词元"
        en = f"{tokens} tokens, {seconds:.1f} s, {rate:.1f} tokens/s"
        reason = self.last.finish_reason
        if end := {"length": AT_LIMIT, None: STOPPED if stopped else None}.get(reason):
            zh, en = f"{zh}，{end.zh}", f"{en}, {end.en}"
        return status_html(Text(zh, en))


def status_html(text: Text, kind: str = "") -> str:
    return f'<p class="{kind}">{text.escaped().html()}</p>'


def error_text(error: Exception) -> Text:
    """User-facing error message; an unexpected error goes to the server's log only."""
    if isinstance(text := getattr(error, "text", None), Text):
        return text
    if isinstance(error, ValueError):
        # Nothing that a visitor did: whoever serves the page reads English errors in the terminal, too.
        return Text(f"没有答成：{sentence(error)}", sentence(error))
    logging.getLogger(__name__).error("a question was not answered", exc_info=error)
    return Text("没有答成，原因在服务器日志里。", "This was not answered: the server's log says why.")


def run_columns(columns: Sequence[Column], stop: threading.Event) -> Iterator[None]:
    """Update loop until all columns have finished or are stopped. Closing it, as when the browser has gone, stops them."""
    try:
        while not stop.is_set() and not all(column.finished for column in columns):
            stop.wait(POLL_INTERVAL)
            for column in columns:
                column.update()
            yield
    finally:
        stop.set()


def escape_messages(messages: Sequence[Message]) -> list[dict[str, str]]:
    """HTML-escaped messages: gr.Chatbot takes what looks like HTML for HTML even where it is told to render nothing."""
    return [{"role": message["role"], "content": html.escape(message["content"], quote=False)} for message in messages]
