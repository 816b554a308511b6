"""Two models side by side in the browser: the same question to both, answers streamed.

    python -m chat.demo
    python -m chat.demo --revision HEAD~1 --port 7861
    TUNELINE_PASSWORD=<8 characters or more> python -m chat.demo --host 0.0.0.0

Other machines get in by the name `tuneline` and that password only. Answers are no medical or legal advice.
"""

import argparse
import html
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse

from chat.answers import Answerer, Piece, Settings
from chat.limits import CHARACTERS, NEW_TOKENS, RUNNING, WAITING, BusyError
from chat.models import Models
from chat.start import is_loopback, quiet, secret
from tuneline.records import Message, Record, last_question, read_records, references

# Read when Gradio is imported: nothing about its use leaves this machine.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
import gradio as gr

HELDOUT = Path("data/processed/heldout.jsonl")
EXAMPLES = 50
TICK = 0.08
"""Seconds between two looks at what the models have said: the page is not redrawn for every token."""
BODY = 512 * 1024
"""Bytes of one request: room for the longest question and system prompt, each in UTF-8 and JSON."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
POLICY = "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; object-src 'none'; frame-ancestors 'self'"
"""Whatever a text says, the browser asks no other host. Gradio's own page is made of inline scripts."""
FONTS = ("PingFang SC", "Microsoft YaHei", "Noto Sans SC", "Noto Sans CJK SC", "system-ui", "sans-serif")
"""Of the reader's own system: none is loaded."""
HEADER = "<h1>Tuneline</h1><p>同一个问题，两个模型。 One question, two models.</p>"
SCRIPT = """() => {
  document.documentElement.lang = "zh-Hans";
  // Panes hold escaped text; what is copied from them is the text itself.
  const board = navigator.clipboard, write = board?.writeText.bind(board);
  if (board) board.writeText = text =>
    write(text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&"));
}"""
PLAIN: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
DISCLAIMER = "<p>模型的回答不构成医疗或法律建议。 Answers are no medical or legal advice.</p>"


class Example(NamedTuple):
    label: str
    question: str
    system: str
    reference: str


def examples_of(records: Sequence[Record]) -> list[Example]:
    """The first held-out items that are one question and its answer: a later turn says little without the earlier ones."""
    single = (one for one in records if sum(message["role"] == "user" for message in one["messages"]) == 1)
    return [example(number, record) for number, record in enumerate(islice(single, EXAMPLES), start=1)]


def example(number: int, record: Record) -> Example:
    first, question = record["messages"][0], last_question(record)
    line = " ".join(question.split())
    label = f"{number}. {line[:40]}…" if len(line) > 40 else f"{number}. {line}"
    return Example(
        label, question, first["content"] if first["role"] == "system" else "", "\n".join(references(record))
    )


def settled(history: Sequence[Message]) -> list[Message]:
    """The conversation without a question that was refused, or stopped before its answer began."""
    return list(history[:-1] if history and history[-1]["role"] == "user" else history)


def asked(history: Sequence[Message]) -> list[Message]:
    """The conversation up to the last question."""
    return list(history if history and history[-1]["role"] == "user" else history[:-1])


class Side:
    """One column while its model answers, in a thread of its own: neither waits for the other one's place in the queue."""

    def __init__(self, history: list[Message], ask: Callable[[], Generator[Piece]], stop: threading.Event) -> None:
        self.history, self.text, self.refusal = history, "", ""
        self.last: Piece | None = None
        self.over = False
        self._ask, self._stop, self._started = ask, stop, time.monotonic()
        self._said: SimpleQueue[Piece | Exception | None] = SimpleQueue()
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        try:
            for piece in (pieces := self._ask()):
                self._said.put(piece)
                if self._stop.is_set():
                    # Closed here: a generator can't be closed while another thread is in it.
                    pieces.close()
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


class Column(NamedTuple):
    model: gr.Dropdown
    pane: gr.Chatbot
    status: gr.HTML
    history: gr.State
    """Stays on the server: a browser sends a question, never what was answered before."""


def column(label: str, names: Sequence[str], chosen: str) -> Column:
    with gr.Column(min_width=300, elem_classes="side"):
        model = gr.Dropdown([*names], value=chosen, label=label, filterable=False, interactive=True)
        pane = gr.Chatbot(
            label=label, show_label=False, height="max(15rem, 100dvh - 30.5rem)", layout="bubble", buttons=["copy", "copy_all"],
            render_markdown=False, sanitize_html=True, allow_tags=False, latex_delimiters=[], feedback_options=None,
            placeholder="还没有回答 No answer yet",
        )  # fmt: skip
        return Column(model, pane, gr.HTML(elem_classes="told"), gr.State([]))


def settings_boxes() -> list[gr.Textbox | gr.Slider | gr.Number]:
    return [
        gr.Textbox(label="系统提示 System prompt", lines=2, max_length=CHARACTERS, elem_id="system"),
        gr.Slider(0, 2, value=0, step=0.1, label="温度 Temperature（0：贪心 greedy）", elem_id="temperature"),
        gr.Slider(0.05, 1, value=1, step=0.05, label="Top-p"),
        gr.Slider(1, NEW_TOKENS, value=256, step=1, label="最多新词元 Max new tokens", elem_id="most"),
        gr.Number(0, minimum=0, maximum=2**31 - 1, precision=0, label="随机种子 Seed"),
    ]


class Composer(NamedTuple):
    question: gr.Textbox
    send: gr.Button
    stop: gr.Button
    retry: gr.Button
    clear: gr.Button


def composer() -> Composer:
    with gr.Column(elem_id="composer"):
        question = gr.Textbox(
            label="问题 Question", show_label=False, placeholder="请输入问题，回车发送 Ask, then press Enter",
            max_lines=5, max_length=CHARACTERS, autofocus=True, container=False, elem_id="question",
        )  # fmt: skip
        with gr.Row(elem_id="buttons"):
            send = gr.Button("发送 Send", variant="primary", min_width=80)
            stop = gr.Button("停止 Stop", interactive=False, min_width=80)
            retry, clear = gr.Button("重试 Retry", min_width=80), gr.Button("清空 Clear", min_width=80)
        gr.HTML(DISCLAIMER, elem_id="disclaimer")
    return Composer(question, send, stop, retry, clear)


def make_page(answerer: Answerer, examples: Sequence[Example]) -> gr.Blocks:
    """The page. What a browser says a model is called is looked up by the answerer, never opened."""
    names = answerer.models.names
    # The adapter shares the base's weights: the two need no more memory than one.
    tuned = next((name for name in ("adapter", "merged") if name in names), names[-1])
    with gr.Blocks(title="Tuneline", analytics_enabled=False) as page:
        with gr.Row(elem_id="top"):
            gr.HTML(HEADER, elem_id="header")
            labels = [(one.label, number) for number, one in enumerate(examples)]
            example = gr.Dropdown(
                labels,
                value=None,
                label="示例问题（保留集） Held-out questions",
                visible=bool(labels),
                elem_id="examples",
            )
        with gr.Row(elem_id="sides"):
            columns = (column("左侧模型 Left model", names, names[0]), column("右侧模型 Right model", names, tuned))
        with gr.Row(elem_id="folded"):
            with gr.Accordion("参考答案 Reference", open=False, visible=bool(labels)):
                reference = gr.Textbox(
                    show_label=False, container=False, lines=2, max_lines=12, interactive=False, elem_id="reference"
                )
            with gr.Accordion("设置 Settings", open=False):
                boxes = settings_boxes()
        below = composer()
        wire(answerer, columns, boxes, below)
        example.change(
            lambda number: [""] * 3 if number is None else list(examples[number][1:]),
            example, [below.question, boxes[0], reference], **PLAIN,
        )  # fmt: skip
    # An answered question takes two of the engine's places.
    return page.queue(max_size=WAITING, default_concurrency_limit=(RUNNING + WAITING) // 2, api_open=False)


def shown(columns: Sequence[Column], below: Composer, sides: Sequence[Side], *, running: bool) -> dict[Any, Any]:
    """What changes on the page while both sides answer, and when they are done."""
    update: dict[Any, Any] = {one: gr.Button(interactive=not running) for one in (below.send, below.retry, below.clear)}
    update[below.stop] = gr.Button(interactive=running)
    for here, side in zip(columns, sides, strict=True):
        update |= {here.history: side.messages(), here.pane: escaped(side.messages()), here.status: side.status()}
    return update


def escaped(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Messages for a pane, which takes what looks like HTML for HTML even where it is told to render nothing."""
    return [{"role": one["role"], "content": html.escape(one["content"], quote=False)} for one in messages]


def wire(answerer: Answerer, columns: Sequence[Column], boxes: Sequence[Any], below: Composer) -> None:
    """Let the buttons do what they say."""
    stops: dict[str | None, threading.Event] = {}

    def answer(session: str | None, histories: Sequence[list[Message]], names: Sequence[str], said: Any) -> Any:
        system, temperature, top_p, most, seed = said
        settings = Settings(int(most), temperature, top_p, int(seed or 0))
        before = [Message(role="system", content=system)] if (system or "").strip() else []
        stop = stops[session] = threading.Event()
        sides = [
            Side(history, partial(answerer.ask, name, [*before, *history], settings), stop)
            for name, history in zip(names, histories, strict=True)
        ]
        try:
            yield shown(columns, below, sides, running=True) | {below.question: ""}
            for _ in together(sides, stop):
                yield shown(columns, below, sides, running=True)
            yield shown(columns, below, sides, running=False)
        finally:
            stops.pop(session, None)

    def on_send(request: gr.Request, text: str, left: Any, right: Any, *rest: Any) -> Any:
        if (text or "").strip():
            histories = [[*settled(one), Message(role="user", content=text)] for one in (left, right)]
            yield from answer(request.session_hash, histories, rest[:2], rest[2:])

    def on_retry(request: gr.Request, _: str, left: Any, right: Any, *rest: Any) -> Any:
        if left:
            yield from answer(request.session_hash, [asked(left), asked(right)], rest[:2], rest[2:])

    def on_stop(request: gr.Request) -> None:
        if stop := stops.get(request.session_hash):
            stop.set()

    histories, panes = [here.history for here in columns], [here.pane for here in columns]
    statuses = [here.status for here in columns]
    inputs = [below.question, *histories, *(here.model for here in columns), *boxes]
    outputs = [*below, *histories, *panes, *statuses]
    gr.on([below.send.click, below.question.submit], on_send, inputs, outputs, trigger_mode="once", **PLAIN)
    below.retry.click(on_retry, inputs, outputs, **PLAIN)
    below.stop.click(on_stop, queue=False, **PLAIN)
    below.clear.click(lambda: ([], [], [], [], "", ""), None, [*histories, *panes, *statuses], **PLAIN)


class Door:
    """Lets in what the page itself asks: other sites' pages, other names for this machine and uploads stay outside."""

    def __init__(self, app: Any, loopback: bool) -> None:
        self.app, self.loopback = app, loopback

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = POLICY
            await send(message)

        reason = "" if scope["type"] != "http" else self.objection(scope["method"], scope["path"], Headers(scope=scope))
        await (PlainTextResponse(reason, 403) if reason else self.app)(scope, receive, guarded)

    def objection(self, method: str, path: str, headers: Headers) -> str:
        """Why a request is refused; empty when it is not."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.loopback and urlsplit(f"//{host}").hostname not in LOOPBACK:
            return f"this page is at {LOOPBACK[0]}, not at {host}"
        if origin is not None and urlsplit(origin).netloc != host:
            return f"{origin} is another page"
        if "/upload" in path or (method == "POST" and int(headers.get("content-length", BODY + 1)) > BODY):
            return f"no files are taken, and at most {BODY} bytes"
        return ""


def theme() -> gr.themes.Base:
    look = gr.themes.Default(
        primary_hue="teal", neutral_hue="slate", font=FONTS, font_mono=("ui-monospace", "monospace")
    )
    # The hue's own 500 is too light for white letters.
    return look.set(button_primary_background_fill="*primary_700", button_primary_background_fill_hover="*primary_800")


def launch_settings(host: str, port: int) -> dict[str, Any]:
    """How Gradio serves the page. Raises ValueError where other machines could ask without a password."""
    password = secret("TUNELINE_PASSWORD", host)
    return {
        "server_name": host, "server_port": port, "auth": [("tuneline", password)] if password else None,
        "auth_message": "用户名 User name: tuneline", "share": False, "strict_cors": True, "max_file_size": "1kb",
        "allowed_paths": [], "enable_monitoring": False, "ssr_mode": False, "mcp_server": False, "pwa": False,
        "run_history": False, "footer_links": [], "show_error": False, "quiet": True, "state_session_capacity": 100,
        "app_kwargs": {"middleware": [Middleware(Door, loopback=is_loopback(host))]}, "prevent_thread_lock": True,
        "theme": theme(),
        "css_paths": Path(__file__).with_name("demo.css"), "js": SCRIPT,
    }  # fmt: skip


def serve(page: gr.Blocks, settings: dict[str, Any]) -> str:
    """Start to serve in a thread of its own; returns the URL. Raises OSError when the port is taken."""
    # Gradio asks itself whether it is up, which must not go through a proxy.
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), *LOOPBACK, settings["server_name"])))
    try:
        return str(page.launch(**settings)[1])
    except OSError as error:
        taken = f"port {settings['server_port']} of {settings['server_name']} can't be had: choose another by --port"
        raise OSError(taken) from error


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m chat.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default=LOOPBACK[0])
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument(
        "--revision", action="append", default=[], help="also an adapter of this git revision or experiment"
    )
    options = parser.parse_args()
    try:
        quiet()
        settings = launch_settings(options.host, options.port)
        records = list(read_records(HELDOUT)) if HELDOUT.is_file() else []
        page = make_page(Answerer(Models(options.revision)), examples_of(records))
        print(f"{serve(page, settings)}  (Ctrl-C ends it)", flush=True)
    except (ValueError, OSError) as error:
        sys.exit(f"chat.demo: {' '.join(str(error).split())}")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        page.close(verbose=False)


if __name__ == "__main__":
    main()
