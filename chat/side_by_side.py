"""Side-by-side columns: one model's reply each, streamed in threads of their own."""

import html
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from queue import SimpleQueue

from chat.i18n.texts import Text
from chat.replies.deltas import Delta
from tuneline.formats.calls import call_text
from tuneline.formats.records import Message, ToolCall
from tuneline.runtime.errors import sentence

POLL_INTERVAL = 0.08
"""Seconds between two updates: the page is not redrawn for every token."""
STOPPED = Text("已停止", "stopped")
WAITING = Text("等待填写工具结果", "waits for what the tool gives")
AT_LIMIT = Text("已到长度上限", "cut off at the length limit")


def drop_unanswered(history: Sequence[Message]) -> list[Message]:
    """Conversation without a last question that was refused, stopped before its reply began, or led to calls without end."""
    last = history[-1] if history else None
    if last is None or (last["role"] == "assistant" and not last.get("tool_calls")):
        return list(history)
    return list(history[: max(n for n, message in enumerate(history) if message["role"] == "user")])


def drop_last_reply(history: Sequence[Message]) -> list[Message]:
    """Conversation up to the last question, or what tools gave to all calls of a reply."""
    kept = list(history)
    while kept and kept[-1]["role"] != "user" and (kept[-1]["role"] == "assistant" or open_calls(kept)):
        kept.pop()
    return kept


def open_calls(history: Sequence[Message]) -> list[ToolCall]:
    """Calls of the last reply that no tool has answered yet, in order."""
    last = max((n for n, message in enumerate(history) if message["role"] != "tool"), default=None)
    calls = history[last].get("tool_calls", []) if last is not None else []
    return list(calls[len(history) - 1 - last :]) if last is not None else []


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
        calls = self.last.calls if self.last else ()
        if not self.text and not calls:
            return self.history
        reply: Message = {"role": "assistant", "content": self.text}
        return [*self.history, {**reply, "tool_calls": list(calls)} if calls else reply]

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
        if end := {"length": AT_LIMIT, "tool_calls": WAITING, None: STOPPED if stopped else None}.get(reason):
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
        return Text(f"未能回答：{sentence(error)}", sentence(error))
    logging.getLogger(__name__).error("a question was not answered", exc_info=error)
    return Text("未能回答，原因在服务器日志里。", "This was not answered: the server's log says why.")


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
    """HTML-escaped messages: gr.Chatbot takes what looks like HTML for HTML even where it is told to render nothing.

    A call is a line of its reply, and what a tool gave is on the visitor's side, who wrote it.
    """
    return [
        {"role": "user" if message["role"] == "tool" else message["role"], "content": html.escape(shown, quote=False)}
        for message, shown in zip(messages, map(shown_text, messages), strict=True)
    ]


def shown_text(message: Message) -> str:
    """A message as people read it."""
    sign = "← " if message["role"] == "tool" else ""
    calls = [f"→ {call_text(call)}" for call in message.get("tool_calls", [])]
    return "\n".join(filter(None, [sign + message["content"], *calls]))
