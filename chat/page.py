"""The page itself, in Gradio's terms: two columns, one question, and what its buttons do."""

import threading
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import gradio as gr

from chat.answers import Answerer, Settings
from chat.examples import Example
from chat.limits import CHARACTERS, NEW_TOKENS, RUNNING, WAITING
from chat.sides import Side, asked, escaped, settled, together
from tuneline.formats.records import Message

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


def theme() -> gr.themes.Base:
    look = gr.themes.Default(
        primary_hue="teal", neutral_hue="slate", font=FONTS, font_mono=("ui-monospace", "monospace")
    )
    # The hue's own 500 is too light for white letters.
    return look.set(button_primary_background_fill="*primary_700", button_primary_background_fill_hover="*primary_800")
