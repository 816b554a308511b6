"""Event handlers of the page: asking, stopping, examples, and the switch of the language."""

import html
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import gradio as gr

from chat.conversations.record import record_html
from chat.engine import Engine, SamplingParams
from chat.examples import Example, starters
from chat.i18n.captions import Captions
from chat.i18n.texts import Text
from chat.replies.deltas import Delta
from chat.side_by_side import Column, drop_last_reply, drop_unanswered, escape_messages, open_calls, run_columns
from chat.tool_definitions import read_definitions
from tuneline.formats.records import Message

if TYPE_CHECKING:
    from chat.page import Page

REFERENCE = Text("参考答案", "Reference answer")
EVENT_OPTIONS: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
Update = dict[Any, Any]
"""Gradio update: new values by component."""


def reference_html(example: Example | None) -> str:
    if example is None:
        return ""
    return f"<h2>{REFERENCE.html()}</h2><blockquote>{html.escape(example.reference)}</blockquote>"


def page_update(page: "Page", columns: Mapping[int, Column], *, running: bool) -> Update:
    """Update of all components that change while columns run, by their place, and when they have finished."""
    composer = page.composer
    update: Update = {
        button: gr.Button(interactive=not running) for button in (composer.send, composer.retry, composer.clear)
    }
    update[composer.stop] = gr.Button(interactive=running)
    for place, column in columns.items():
        widget, messages = page.columns[place], column.messages()
        update |= {
            widget.history: messages,
            widget.pane: escape_messages(messages),
            widget.status: column.status(),
            widget.observation: gr.Textbox(visible=not running and bool(open_calls(messages))),
        }
    return update


class Handlers:
    """Event handlers: replies of both columns, to one question at a time for each visitor.

    A generator of Gradio that ends without a yield empties all its outputs, the buttons, too: what has nothing to do
    yields gr.skip().
    """

    def __init__(
        self, engine: Engine, examples: Sequence[Example], page: "Page", names: Mapping[str, Text] | None = None
    ) -> None:
        """`names` are the models' display names; a model without one keeps its own."""
        self.engine, self.page, self._names = engine, page, names or {}
        self._by_question = {example.question.strip(): example for example in examples}
        self._stop_events: dict[str | None, threading.Event] = {}

    def send(self, request: gr.Request, text: str, *values: Any) -> Any:
        if not (text or "").strip():
            yield gr.skip()
            return
        yield from self._ask(request, text, values, {self.page.composer.question: ""})

    def retry(self, request: gr.Request, _: str, left: Any, right: Any, *rest: Any) -> Any:
        if not left:
            yield gr.skip()
            return
        yield from self._stream(request, {0: drop_last_reply(left), 1: drop_last_reply(right)}, rest, {})

    def observe(self, place: int) -> Any:
        """Handler that takes what a tool gave to the next call of one column, which goes on when all have been answered."""

        def take(request: gr.Request, text: str, *values: Any) -> Any:
            widget = self.page.columns[place]
            left, right, *rest = values
            history = (left, right)[place]
            waiting = open_calls(history)
            if not waiting or self._stop_events.get(request.session_hash):
                yield gr.skip()
                return
            history = [*history, Message(role="tool", content=text or "")]
            if len(waiting) > 1:
                yield {widget.history: history, widget.pane: escape_messages(history), widget.observation: ""}
                return
            first = {widget.observation: gr.Textbox("", visible=False)}
            yield from self._stream(request, {place: history}, rest, first, (left, right))

        return take

    def stop(self, request: gr.Request) -> None:
        if stop := self._stop_events.get(request.session_hash):
            stop.set()

    def starter(self, example: Example) -> Any:
        """Handler that asks an example, with its system prompt; what has been typed stays."""

        def ask(request: gr.Request, _: str, *values: Any) -> Any:
            values = (*values[:4], example.system, *values[5:])
            yield from self._ask(request, example.question, values, {self.page.settings[0]: example.system})

        return ask

    def _ask(self, request: gr.Request, question: str, values: Sequence[Any], first: Update) -> Iterator[Any]:
        left, right, *rest = values
        asked = Message(role="user", content=question)
        histories = {place: [*drop_unanswered(history), asked] for place, history in enumerate((left, right))}
        if self.page.side:
            first = first | {self.page.side.reference: reference_html(self._by_question.get(question.strip()))}
        yield from self._stream(request, histories, rest, first)

    def _stream(
        self, request: gr.Request, histories: Mapping[int, list[Message]], values: Sequence[Any], first: Update,
        as_they_are: Sequence[Sequence[Message]] = ((), ()),
    ) -> Iterator[Any]:  # fmt: skip
        """Updates of the page until the columns of `histories` have finished; `first` is part of the first one.

        `as_they_are` are the histories of both columns, of which one that is not in `histories` stays.
        """
        *models, system, temperature, top_p, max_new_tokens, seed, tools = values
        params = SamplingParams(int(max_new_tokens), temperature, top_p, int(seed or 0))
        prefix = [Message(role="system", content=system)] if (system or "").strip() else []
        stop = threading.Event()
        if self._stop_events.setdefault(request.session_hash, stop) is not stop:
            yield gr.skip()
            return
        try:
            columns = {
                place: Column(
                    history, partial(self._start, models[place], [*prefix, *history], params, tools or ""), stop
                )
                for place, history in histories.items()
            }
            yield page_update(self.page, columns, running=True) | first
            for _ in run_columns([*columns.values()], stop):
                yield page_update(self.page, columns, running=True)
            told = [columns[n].messages() if n in columns else kept for n, kept in enumerate(as_they_are)]
            shown = [self._names.get(name, Text(name, name)) for name in models]
            record = {self.page.record: record_html(shown, system or "", told)}
            yield page_update(self.page, columns, running=False) | record
        finally:
            self._stop_events.pop(request.session_hash, None)

    def _start(
        self, name: str, messages: list[Message], params: SamplingParams, tools: str, stop: threading.Event
    ) -> Generator[Delta]:
        """A column's reply; tools that are none are an error of its own."""
        return self.engine.stream(name, messages, params._replace(tools=read_definitions(tools)), stop)


def connect_events(engine: Engine, examples: Sequence[Example], page: "Page", names: Mapping[str, Text]) -> None:
    """Events of the buttons and the examples; `names` are the models' display names."""
    handlers = Handlers(engine, examples, page, names)
    composer, side, system = page.composer, page.side, page.settings[0]
    histories, panes = [widget.history for widget in page.columns], [widget.pane for widget in page.columns]
    statuses = [widget.status for widget in page.columns]
    inputs = [composer.question, *histories, *(widget.model for widget in page.columns), *page.settings]
    observations = [widget.observation for widget in page.columns]
    outputs = [
        *composer,
        *histories,
        *panes,
        *statuses,
        *observations,
        system,
        page.record,
        *([side.reference] if side else []),
    ]
    asking = [composer.send.click, composer.question.submit]
    gr.on(asking, handlers.send, inputs, outputs, trigger_mode="once", **EVENT_OPTIONS)
    composer.retry.click(handlers.retry, inputs, outputs, **EVENT_OPTIONS)
    for place, box in enumerate(observations):
        box.submit(handlers.observe(place), [box, *inputs[1:]], outputs, trigger_mode="once", **EVENT_OPTIONS)
    composer.stop.click(handlers.stop, queue=False, **EVENT_OPTIONS)
    emptied: Update = {item: [] for item in [*histories, *panes]} | dict.fromkeys(statuses, "")
    emptied |= {box: gr.Textbox("", visible=False) for box in observations} | {page.record: ""}
    if side:
        emptied |= {side.reference: "", side.examples: None}
        for button, example in zip(side.starters, starters(examples), strict=True):
            button.click(handlers.starter(example), inputs, outputs, **EVENT_OPTIONS)
        side.examples.input(
            lambda number: [examples[number].question, examples[number].system, reference_html(examples[number])],
            side.examples, [composer.question, system, side.reference], **EVENT_OPTIONS,
        )  # fmt: skip
    composer.clear.click(lambda: emptied, None, [*emptied], **EVENT_OPTIONS)


LANGUAGE_AT_START = """() => {
  const saved = localStorage.getItem("tuneline-language");
  const language = saved ?? (document.documentElement.lang.startsWith("zh") ? "zh" : "en");
  document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
  return language;
}"""
"""Gradio has set the element's language to the browser's."""
OTHER_LANGUAGE = """() => {
  const language = document.documentElement.lang.startsWith("zh") ? "en" : "zh";
  localStorage.setItem("tuneline-language", language);
  document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
  return language;
}"""


def connect_language(blocks: gr.Blocks, captions: Captions, switch: gr.Button) -> None:
    """Events that put the captions into the visitor's language; what `js` returns takes the place of the input's value."""
    options = EVENT_OPTIONS | {"inputs": switch, "outputs": captions.components, "queue": False}
    blocks.load(captions.updates, js=LANGUAGE_AT_START, **options)
    switch.click(captions.updates, js=OTHER_LANGUAGE, **options)
