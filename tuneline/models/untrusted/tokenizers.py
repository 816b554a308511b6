"""A stranger's tokenizer, before this process loads it: sizes of its files, and a trial in a child process with limits."""

from functools import cache
from pathlib import Path

from tuneline.models.untrusted.limited_process import LimitedProcess, LimitError, Limits

LIMITS = Limits(cpu_seconds=60, memory_mb=6144, wall_seconds=900)
SIZES = {
    "tokenizer.json": 100, "tokenizer.model": 20, "*.tiktoken": 20, "*.model": 20, "vocab.json": 40, "merges.txt": 40,
    "vocab.txt": 40, "tekken.json": 40, "tokenizer_config.json": 20, "special_tokens_map.json": 20, "added_tokens.json": 20,
    "chat_template*": 1, "additional_chat_templates/*": 1, "config.json": 20, "generation_config.json": 1,
}  # fmt: skip
"""Largest size of a file that comes with a tokenizer, in MB; several times that of the largest published one."""


@cache
def _child() -> LimitedProcess:
    return LimitedProcess(LIMITS)


def try_tokenizer(folder: Path, *, chatglm: bool = False) -> int | None:
    """The largest id of the vocabulary of the folder's tokenizer; None for one in another form that can't be converted.

    Raises ValueError for one that takes too long or too much memory, or whose ids are not to be told apart.
    """
    check_sizes(folder)
    path = folder / ("tokenizer.model" if chatglm else "tokenizer.json")
    if not chatglm and not path.is_file():
        # In another form, which transformers converts.
        path = folder / "tokenizer_config.json"
    try:
        answer = _child().ask({"kind": "tokenizer", "path": str(path.absolute()), "chatglm": chatglm})
    except LimitError as error:
        raise ValueError(f"its tokenizer ({path.name}) {error}") from None
    if "wrong" in answer:
        raise ValueError(f"its tokenizer ({path.name}) {answer['wrong']}")
    if "refused" not in answer:
        return int(answer["highest"])
    if path.name == "tokenizer.json":
        raise ValueError(f"its tokenizer (tokenizer.json) can't be read: {answer['refused']}")
    # Whoever converts it here is told the same again, in more words.
    return None


def check_sizes(folder: Path) -> None:
    """Raises ValueError for a file that is larger than one of a tokenizer can be."""
    for pattern, most in SIZES.items():
        for path in sorted(folder.glob(pattern)):
            if (size := path.stat().st_size) > most * 10**6:
                raise ValueError(
                    f"{path.relative_to(folder)} has {size / 10**6:.0f} MB, expected at most {most} MB of such a file"
                )
