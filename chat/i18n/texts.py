"""Bilingual texts: what a visitor reads, once in Chinese and once in English."""

import html
from typing import Literal, NamedTuple

Language = Literal["zh", "en"]


class Text(NamedTuple):
    """One sentence or label in both languages."""

    zh: str
    en: str

    def escaped(self) -> "Text":
        return Text(html.escape(self.zh), html.escape(self.en))

    def html(self) -> str:
        """Both languages as HTML, of which the style below shows the page's own."""
        return f'<span lang="zh-Hans">{self.zh}</span><span lang="en">{self.en}</span>'


ONE_LANGUAGE = "html:lang(zh) span[lang=en], html:not(:lang(zh)) span[lang=zh-Hans] { display: none; }"
"""CSS for what `html` returns: a switch of the page's language needs no new texts from the server."""
