"""Gradio page: two columns, one question, and the event handlers of its buttons."""

import threading
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import gradio as gr

from chat.engine import Engine, SamplingParams
from chat.examples import Example
from chat.limits import MAX_CHARACTERS, MAX_NEW_TOKENS, MAX_RUNNING, MAX_WAITING
from chat.side_by_side import Column, drop_last_reply, drop_unanswered, escape_messages, run_columns
from tuneline.formats.records import Message

FONTS = ("PingFang SC", "Microsoft YaHei", "Noto Sans SC", "Noto Sans CJK SC", "system-ui", "sans-serif")
"""System fonts: none is loaded over the network."""
HEADER = "<h1>Tuneline</h1><p>同一个问题，两个模型。 One question, two models.</p>"
SCRIPT = """() => {
  document.documentElement.lang = "zh-Hans";
  // Panes hold escaped text; what is copied from them is the text itself.
  const board = navigator.clipboard, write = board?.writeText.bind(board);
  if (board) board.writeText = text =>
    write(text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&"));
}"""
EVENT_OPTIONS: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
DISCLAIMER = "<p>模型的回答不构成医疗或法律建议。 Answers are no medical or legal advice.</p>"


class ColumnWidgets(NamedTuple):
    model: gr.Dropdown
    pane: gr.Chatbot
    status: gr.HTML
    history: gr.State
    """Stays on the server: a browser sends a question, never what was answered before."""


def make_column(label: str, names: Sequence[str], selected: str) -> ColumnWidgets:
    with gr.Column(min_width=300, elem_classes="answer-column"):
        model = gr.Dropdown([*names], value=selected, label=label, filterable=False, interactive=True)
        pane = gr.Chatbot(
            label=label, show_label=False, height="max(15rem, 100dvh - 30.5rem)", layout="bubble", buttons=["copy", "copy_all"],
            render_markdown=False, sanitize_html=True, allow_tags=False, latex_delimiters=[], feedback_options=None,
            placeholder="还没有回答 No answer yet",
        )  # fmt: skip
        return ColumnWidgets(model, pane, gr.HTML(elem_classes="answer-status"), gr.State([]))


def make_settings() -> list[gr.Textbox | gr.Slider | gr.Number]:
    return [
        gr.Textbox(label="系统提示 System prompt", lines=2, max_length=MAX_CHARACTERS, elem_id="system"),
        gr.Slider(0, 2, value=0, step=0.1, label="温度 Temperature（0：贪心 greedy）", elem_id="temperature"),
        gr.Slider(0.05, 1, value=1, step=0.05, label="Top-p"),
        gr.Slider(1, MAX_NEW_TOKENS, value=256, step=1, label="最多新词元 Max new tokens", elem_id="max-new-tokens"),
        gr.Number(0, minimum=0, maximum=2**31 - 1, precision=0, label="随机种子 Seed"),
    ]


class Composer(NamedTuple):
    question: gr.Textbox
    send: gr.Button
    stop: gr.Button
    retry: gr.Button
    clear: gr.Button


def make_composer() -> Composer:
    with gr.Column(elem_id="composer"):
        question = gr.Textbox(
            label="问题 Question", show_label=False, placeholder="请输入问题，回车发送 Ask, then press Enter",
            max_lines=5, max_length=MAX_CHARACTERS, autofocus=True, container=False, elem_id="question",
        )  # fmt: skip
        with gr.Row(elem_id="buttons"):
            send = gr.Button("发送 Send", variant="primary", min_width=80)
            stop = gr.Button("停止 Stop", interactive=False, min_width=80)
            retry, clear = gr.Button("重试 Retry", min_width=80), gr.Button("清空 Clear", min_width=80)
        gr.HTML(DISCLAIMER, elem_id="disclaimer")
    return Composer(question, send, stop, retry, clear)


def make_page(engine: Engine, examples: Sequence[Example]) -> gr.Blocks:
    """Page of an engine. A model name that a browser sends is looked up in the registry, never opened as a path."""
    names = engine.models.names
    # The adapter shares the base's weights: the two need no more memory than one.
    tuned = next((name for name in ("adapter", "merged") if name in names), names[-1])
    with gr.Blocks(title="Tuneline", analytics_enabled=False) as page:
        with gr.Row(elem_id="top-row"):
            gr.HTML(HEADER, elem_id="header")
            choices = [(item.label, number) for number, item in enumerate(examples)]
            example = gr.Dropdown(
                choices,
                value=None,
                label="示例问题（保留集） Held-out questions",
                visible=bool(choices),
                elem_id="examples",
            )
        with gr.Row():
            columns = (
                make_column("左侧模型 Left model", names, names[0]),
                make_column("右侧模型 Right model", names, tuned),
            )
        with gr.Row(elem_id="accordions"):
            with gr.Accordion("参考答案 Reference", open=False, visible=bool(choices)):
                reference = gr.Textbox(
                    show_label=False, container=False, lines=2, max_lines=12, interactive=False, elem_id="reference"
                )
            with gr.Accordion("设置 Settings", open=False):
                settings = make_settings()
        composer = make_composer()
        connect_events(engine, columns, settings, composer)
        example.change(
            lambda number: [""] * 3 if number is None else list(examples[number][1:]),
            example, [composer.question, settings[0], reference], **EVENT_OPTIONS,
        )  # fmt: skip
    # A question takes two of the engine's slots.
    return page.queue(max_size=MAX_WAITING, default_concurrency_limit=(MAX_RUNNING + MAX_WAITING) // 2, api_open=False)


def page_update(
    widgets: Sequence[ColumnWidgets], composer: Composer, columns: Sequence[Column], *, running: bool
) -> dict[Any, Any]:
    """Gradio update of all components that change while both columns run, and when they have finished."""
    update: dict[Any, Any] = {
        button: gr.Button(interactive=not running) for button in (composer.send, composer.retry, composer.clear)
    }
    update[composer.stop] = gr.Button(interactive=running)
    for widget, column in zip(widgets, columns, strict=True):
        update |= {
            widget.history: column.messages(),
            widget.pane: escape_messages(column.messages()),
            widget.status: column.status(),
        }
    return update


def connect_events(
    engine: Engine, widgets: Sequence[ColumnWidgets], settings: Sequence[Any], composer: Composer
) -> None:
    """Event handlers of the buttons."""
    stop_events: dict[str | None, threading.Event] = {}

    def reply(session: str | None, histories: Sequence[list[Message]], names: Sequence[str], values: Any) -> Any:
        system, temperature, top_p, max_new_tokens, seed = values
        params = SamplingParams(int(max_new_tokens), temperature, top_p, int(seed or 0))
        prefix = [Message(role="system", content=system)] if (system or "").strip() else []
        stop = stop_events[session] = threading.Event()
        columns = [
            Column(history, partial(engine.stream, name, [*prefix, *history], params), stop)
            for name, history in zip(names, histories, strict=True)
        ]
        try:
            yield page_update(widgets, composer, columns, running=True) | {composer.question: ""}
            for _ in run_columns(columns, stop):
                yield page_update(widgets, composer, columns, running=True)
            yield page_update(widgets, composer, columns, running=False)
        finally:
            stop_events.pop(session, None)

    def on_send(request: gr.Request, text: str, left: Any, right: Any, *rest: Any) -> Any:
        if (text or "").strip():
            histories = [[*drop_unanswered(history), Message(role="user", content=text)] for history in (left, right)]
            yield from reply(request.session_hash, histories, rest[:2], rest[2:])

    def on_retry(request: gr.Request, _: str, left: Any, right: Any, *rest: Any) -> Any:
        if left:
            histories = [drop_last_reply(left), drop_last_reply(right)]
            yield from reply(request.session_hash, histories, rest[:2], rest[2:])

    def on_stop(request: gr.Request) -> None:
        if stop := stop_events.get(request.session_hash):
            stop.set()

    histories, panes = [widget.history for widget in widgets], [widget.pane for widget in widgets]
    statuses = [widget.status for widget in widgets]
    inputs = [composer.question, *histories, *(widget.model for widget in widgets), *settings]
    outputs = [*composer, *histories, *panes, *statuses]
    gr.on(
        [composer.send.click, composer.question.submit], on_send, inputs, outputs, trigger_mode="once", **EVENT_OPTIONS
    )
    composer.retry.click(on_retry, inputs, outputs, **EVENT_OPTIONS)
    composer.stop.click(on_stop, queue=False, **EVENT_OPTIONS)
    composer.clear.click(lambda: ([], [], [], [], "", ""), None, [*histories, *panes, *statuses], **EVENT_OPTIONS)


def make_theme() -> gr.themes.Base:
    theme = gr.themes.Default(
        primary_hue="teal", neutral_hue="slate", font=FONTS, font_mono=("ui-monospace", "monospace")
    )
    # The hue's own 500 is too light for white letters.
    return theme.set(button_primary_background_fill="*primary_700", button_primary_background_fill_hover="*primary_800")
