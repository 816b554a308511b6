"""Captions of Gradio components: labels, placeholders and choices that follow the page's language."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from chat.i18n.texts import Language, Text

Caption = Text | Sequence[tuple[Text, str]]
"""A text, or the choices of a dropdown: a text and a value each."""


class Captions:
    """Registry of captioned components.

    At first Gradio itself shows them in the browser's language (gr.I18n), so that nothing flickers; `updates` are for a
    switch of the language.
    """

    def __init__(self) -> None:
        self._texts: list[Text] = []
        self._captions: dict[Any, dict[str, Caption]] = {}

    def add(self, kind: Any, *, captions: dict[str, Caption], **options: Any) -> Any:
        """Component of a class, made with captions in both languages."""
        component = kind(**{name: self._markers(caption) for name, caption in captions.items()}, **options)
        self._captions[component] = captions
        return component

    @property
    def components(self) -> list[Any]:
        return [*self._captions]

    def translations(self) -> gr.I18n:
        languages: tuple[Language, ...] = ("zh", "en")
        return gr.I18n(
            **{name: {f"text_{n}": getattr(text, name) for n, text in enumerate(self._texts)} for name in languages}
        )

    def updates(self, language: Language) -> dict[Any, Any]:
        """Gradio updates that put every caption into one language."""
        return {
            component: type(component)(**{name: in_language(caption, language) for name, caption in captions.items()})
            for component, captions in self._captions.items()
        }

    def _markers(self, caption: Caption) -> Any:
        if not isinstance(caption, Text):
            return [(self._markers(text), value) for text, value in caption]
        self._texts.append(caption)
        return gr.i18n.I18nData(f"text_{len(self._texts) - 1}")


def in_language(caption: Caption, language: Language) -> Any:
    """A caption's string, or choices with strings."""
    if isinstance(caption, Text):
        return getattr(caption, language)
    return [(getattr(text, language), value) for text, value in caption]
