"""Gradio page: one question, two models side by side, and the reference answer of an example."""

import html
from collections.abc import Sequence
from typing import Any, NamedTuple

import gradio as gr

from chat.engine import Engine
from chat.examples import Example, starters
from chat.i18n.captions import Captions
from chat.i18n.model_names import display_names
from chat.i18n.texts import Text
from chat.limits import MAX_CHARACTERS, MAX_NEW_TOKENS, MAX_RUNNING, MAX_WAITING
from chat.page_events import connect_events, connect_language

FONTS = ("PingFang SC", "Microsoft YaHei", "Noto Sans SC", "Noto Sans CJK SC", "system-ui", "sans-serif")
"""System fonts: none is loaded over the network."""
SUBTITLE = Text("同一个问题，两个模型。", "One question, two models.")
DISCLAIMER = Text("模型的回答不构成医疗或法律建议。", "Answers are no medical or legal advice.")
OTHER_LANGUAGE = Text("English", "中文")
SIDES = (Text("左侧模型", "Left model"), Text("右侧模型", "Right model"))
NO_ANSWER = Text("还没有回答", "No answer yet")
TRY_ONE = Text("试一道留出题：", "Try a held-out question:")
ALL_EXAMPLES = Text("全部示例（填入问题框）", "All examples (fills the question box)")
SETTINGS = Text("设置", "Settings")
TOOLS = Text("工具定义", "Tools")
TOOLS_HINT = Text("粘贴函数定义的列表，格式与接口相同", "Paste a list of function definitions, as the API takes them")
OBSERVATION = Text("工具结果", "What the tool gave")
OBSERVE = Text(
    "请填写上一个调用的结果，回车发送；不会真正执行", "Write what the call gave, then press Enter; nothing is run"
)
ASK = Text("请输入问题，回车发送", "Ask, then press Enter")
CONVERSATIONS = Text("历史对话", "History")


class ColumnWidgets(NamedTuple):
    model: gr.Dropdown
    pane: gr.Chatbot
    status: gr.HTML
    observation: gr.Textbox
    """There while a call waits for what its tool gives."""
    history: gr.State
    """Stays on the server: a browser sends a question, never what was answered before."""


class SideWidgets(NamedTuple):
    """What is shown beside the answers: examples while there are none, and the reference of an example that was asked."""

    starters: list[gr.Button]
    reference: gr.HTML
    examples: gr.Dropdown


class Composer(NamedTuple):
    question: gr.Textbox
    send: gr.Button
    stop: gr.Button
    retry: gr.Button
    clear: gr.Button


class Page(NamedTuple):
    """Components that events read and write."""

    columns: tuple[ColumnWidgets, ColumnWidgets]
    side: SideWidgets | None
    """None without held-out items."""
    composer: Composer
    settings: list[Any]
    record: gr.HTML
    """The conversation as data, for the browser to keep."""


def make_column(captions: Captions, label: Text, names: dict[str, Text], selected: str) -> ColumnWidgets:
    with gr.Column(min_width=240, elem_classes="answer-column"):
        choices = [(text, name) for name, text in names.items()]
        model = captions.add(
            gr.Dropdown, captions={"label": label, "choices": choices},
            value=selected, filterable=False, interactive=True,
        )  # fmt: skip
        pane = captions.add(
            gr.Chatbot, captions={"label": label, "placeholder": NO_ANSWER}, show_label=False, height="var(--pane)",
            layout="bubble", buttons=["copy", "copy_all"], render_markdown=False, sanitize_html=True, allow_tags=False,
            latex_delimiters=[], feedback_options=None, reasoning_tags=[(html.escape("<think>"), html.escape("</think>"))],
        )  # fmt: skip
        status = gr.HTML(elem_classes="answer-status")
        observation = captions.add(
            gr.Textbox, captions={"label": OBSERVATION, "placeholder": OBSERVE}, visible=False, max_lines=8,
            max_length=MAX_CHARACTERS, elem_classes="observation",
        )  # fmt: skip
        return ColumnWidgets(model, pane, status, observation, gr.State([]))


def make_side(captions: Captions, examples: Sequence[Example]) -> SideWidgets:
    with gr.Column(min_width=240, elem_id="side"):
        with gr.Column(min_width=0, elem_id="starters"):
            gr.HTML(f"<p>{TRY_ONE.html()}</p>", padding=False)
            buttons = [gr.Button(example.question, elem_classes="starter") for example in starters(examples)]
        reference = gr.HTML(elem_id="reference", padding=False)
        choices = [(item.label, number) for number, item in enumerate(examples)]
        dropdown = captions.add(
            gr.Dropdown,
            captions={"label": ALL_EXAMPLES},
            choices=choices,
            value=None,
            filterable=False,
            elem_id="examples",
        )
        return SideWidgets(buttons, reference, dropdown)


def make_settings(captions: Captions) -> list[gr.Textbox | gr.Slider | gr.Number]:
    with captions.add(gr.Accordion, captions={"label": SETTINGS}, open=False, elem_id="settings"):
        return [
            captions.add(
                gr.Textbox, captions={"label": Text("系统提示", "System prompt")},
                lines=2, max_length=MAX_CHARACTERS, elem_id="system",
            ),
            captions.add(
                gr.Slider, captions={"label": Text("温度（0 为贪心解码）", "Temperature (0 is greedy)")},
                minimum=0, maximum=2, value=0, step=0.1, elem_id="temperature",
            ),
            gr.Slider(0.05, 1, value=1, step=0.05, label="Top-p"),
            captions.add(
                gr.Slider, captions={"label": Text("最多生成的词元数", "Max new tokens")},
                minimum=1, maximum=MAX_NEW_TOKENS, value=256, step=1, elem_id="max-new-tokens",
            ),
            captions.add(
                gr.Number, captions={"label": Text("随机种子", "Seed")},
                value=0, minimum=0, maximum=2**31 - 1, precision=0,
            ),
            captions.add(
                gr.Textbox, captions={"label": TOOLS, "placeholder": TOOLS_HINT},
                lines=3, max_lines=12, max_length=MAX_CHARACTERS, elem_id="tools",
            ),
        ]  # fmt: skip


def make_composer(captions: Captions) -> tuple[Composer, list[Any]]:
    """Question box and buttons, with the settings among them, which open over the answers."""

    def button(name: str, text: Text, **options: Any) -> Any:
        return captions.add(gr.Button, captions={"value": text}, elem_id=name, min_width=60, **options)

    with gr.Column(elem_id="composer"):
        question = captions.add(
            gr.Textbox, captions={"label": Text("问题", "Question"), "placeholder": ASK}, show_label=False,
            max_lines=5, max_length=MAX_CHARACTERS, autofocus=True, container=False, elem_id="question",
        )  # fmt: skip
        with gr.Row(elem_id="buttons"):
            composer = Composer(
                question,
                button("send", Text("发送", "Send"), variant="primary"),
                button("stop", Text("停止", "Stop"), interactive=False),
                button("retry", Text("重试", "Retry")),
                button("clear", Text("清空", "Clear")),
            )
            settings = make_settings(captions)
        gr.HTML(f"<p>{DISCLAIMER.html()}</p>", elem_id="disclaimer")
    return composer, settings


def make_page(engine: Engine, examples: Sequence[Example]) -> gr.Blocks:
    """Page of an engine. A model name that a browser sends is looked up in the registry, never opened as a path."""
    names = display_names(engine.models.names)
    # The adapter shares the base's weights: the two need no more memory than one.
    first, last = engine.models.names[0], engine.models.names[-1]
    tuned = next((name for name in ("adapter", "merged") if name in names), last)
    captions = Captions()
    with gr.Blocks(title="Tuneline", analytics_enabled=False) as blocks:
        with gr.Row(elem_id="top-row"):
            gr.HTML(f"<h1>Tuneline</h1><p>{SUBTITLE.html()}</p>", elem_id="header", padding=False)
            captions.add(
                gr.Button, captions={"value": CONVERSATIONS}, elem_id="conversations", size="sm", min_width=80, scale=0
            )
            language = captions.add(
                gr.Button, captions={"value": OTHER_LANGUAGE}, elem_id="language", size="sm", min_width=80, scale=0
            )
        with gr.Row(elem_id="main"):
            columns = (
                make_column(captions, SIDES[0], names, first),
                make_column(captions, SIDES[1], names, tuned),
            )
            side = make_side(captions, examples) if examples else None
        composer, settings = make_composer(captions)
        record = gr.HTML(elem_id="record", padding=False)
        connect_events(engine, examples, Page(columns, side, composer, settings, record), names)
        connect_language(blocks, captions, language)
    # `launch` hands it to the browser.
    blocks.i18n_instance = captions.translations()
    # A question takes two of the engine's slots.
    return blocks.queue(
        max_size=MAX_WAITING, default_concurrency_limit=(MAX_RUNNING + MAX_WAITING) // 2, api_open=False
    )


def make_theme() -> gr.themes.Base:
    theme = gr.themes.Default(
        primary_hue="teal", neutral_hue="slate", font=FONTS, font_mono=("ui-monospace", "monospace")
    )
    # The hue's own 500 is too light for white letters, and so is its 600, which a dark page has.
    fills = {f"button_primary_background_fill{kind}": "*primary_700" for kind in ("", "_dark")}
    hovers = {f"button_primary_background_fill_hover{kind}": "*primary_800" for kind in ("", "_dark")}
    return theme.set(**fills, **hovers)
