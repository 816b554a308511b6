"""Words of Chinese text, as ROUGE and BLEU here count them: jieba's precise mode, white space dropped."""

import logging
import os
from functools import cache
from pathlib import Path
from typing import Any


@cache
def _segmenter() -> Any:
    import jieba

    jieba.setLogLevel(logging.WARNING)
    segmenter = jieba.Tokenizer()
    # jieba caches its dictionary with marshal in the shared temporary folder: keep it in a private one.
    folder = Path(os.environ.get("TUNELINE_SCRATCH") or Path.home() / ".cache" / "tuneline") / "jieba"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    segmenter.tmp_dir = str(folder)
    return segmenter


def words(text: str) -> list[str]:
    """The words in order, punctuation included."""
    return [word for word in _segmenter().cut(text) if word.strip()]
