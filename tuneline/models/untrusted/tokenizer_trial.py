"""A tokenizer tried in the child: it is loaded, and encodes texts that make bad normalisers and patterns explode."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LENGTH = 2000
"""Characters of a probe."""
PIECES = (
    "a",
    "A",
    "1",
    " ",
    "\n",
    "\t",
    "!",
    ".",
    "-",
    "中",
    "。",
    "é",
    "e\u0301",
    "ﷺ",
    "😀",
    "\u200b",
    "ab",
    "a ",
    "1a",
    "a中",
    "\r\n",
)
"""What probes repeat: each kind of character that a pattern can loop over, and what normalisers make longer."""
TEXTS = (
    "",
    "感冒一般一周左右会自行好转，请多休息。",
    "Hello  world, it's 3.14!\n\n\tdef f(x): return x\r\n",
    "½ ① ﬁ Ǆ ｆｕｌｌ １２３",
)
MOST_IDS, MOST_TEXT, FREE = 16, 64, 1024
"""Ids a byte of text, characters a byte that is decoded; and so many of both in any case."""
GROWTH = 64
"""How much longer replacements of a normaliser may make a text."""
MOST_ADDED, MOST_WORDS = 100_000, 4_000_000
TREE = 20_000
"""Parts that a tokenizer.json has beside its vocabulary and added tokens."""


class UnfitTokenizerError(ValueError):
    """A tokenizer that is not to be used; the message is the end of a sentence."""


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """In the child: {"highest": largest id of its vocabulary}, or {"wrong": why it is not to be used}."""
    try:
        backend, probes = _loaded(Path(question["path"]), question["chatglm"])
        for probe in probes:
            _try(backend, probe)
        return {"highest": check_vocabulary(backend)}
    except UnfitTokenizerError as error:
        return {"wrong": str(error)}
    except (Exception, MemoryError):
        raise
    except BaseException as panic:
        # What Rust raises is no Exception of Python's.
        return {"wrong": f"fails: {' '.join(str(panic).split())[:200]}"}


def _loaded(path: Path, chatglm: bool) -> tuple[Any, list[str]]:
    """The backend and the texts to try it with."""
    probes = [*(piece * (LENGTH // len(piece)) + "!" for piece in PIECES), *TEXTS]
    if path.name != "tokenizer.json":
        return _converted(path, chatglm), probes
    from tokenizers import Tokenizer

    own = probes_of(path)
    return Tokenizer.from_file(str(path)), [*own, *probes]


def _converted(path: Path, chatglm: bool) -> Any:
    """The backend of a tokenizer in another form, as the base stage converts it."""
    if chatglm:
        from tuneline.models.chatglm.tokenizer import build

        return build(path).backend_tokenizer
    from transformers import AutoTokenizer

    made = AutoTokenizer.from_pretrained(path.parent, local_files_only=True, trust_remote_code=False)
    if not getattr(made, "is_fast", False):
        raise UnfitTokenizerError("has no fast form, expected a tokenizer that transformers converts")
    return made.backend_tokenizer


def _try(backend: Any, text: str) -> None:
    size = len(text.encode())
    first, again = (backend.encode(text, add_special_tokens=True).ids for _ in range(2))
    if len(first) > MOST_IDS * size + FREE:
        raise UnfitTokenizerError(
            f"makes {len(first)} ids of {text[:8]!r}… ({size} bytes), expected at most {MOST_IDS} a byte"
        )
    if first != again:
        raise UnfitTokenizerError(f"makes other ids of {text[:8]!r}… each time, expected no dropout in its model")
    if len(said := backend.decode(first, skip_special_tokens=False)) > MOST_TEXT * size + FREE:
        raise UnfitTokenizerError(f"makes {len(said)} characters of the {len(first)} ids of {text[:8]!r}…")


def check_vocabulary(backend: Any) -> int:
    """The largest id that text becomes. Raises UnfitTokenizerError for one id of two tokens, and for too many of them."""
    added = len(backend.get_added_tokens_decoder())
    if added > MOST_ADDED:
        raise UnfitTokenizerError(f"has {added} added tokens, expected at most {MOST_ADDED}")
    words = backend.get_vocab(with_added_tokens=False)
    if not words or len(words) > MOST_WORDS:
        raise UnfitTokenizerError(f"has {len(words)} tokens, expected 1 to {MOST_WORDS}")
    if twice := len(words) - len(set(words.values())):
        raise UnfitTokenizerError(f"gives {twice} of its {len(words)} tokens an id that another has, too")
    return int(max(words.values()))


def probes_of(path: Path) -> list[str]:
    """Texts that this tokenizer's own patterns match again and again. Raises UnfitTokenizerError for a file of another form."""
    values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict) or not isinstance(values.get("model"), dict):
        raise UnfitTokenizerError("is no object with a model, expected what the library tokenizers writes")
    if len(values.get("added_tokens") or []) > MOST_ADDED:
        raise UnfitTokenizerError(f"has {len(values['added_tokens'])} added tokens, expected at most {MOST_ADDED}")
    parts = list(_parts([values.get(name) for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder")]))
    check_growth(values.get("normalizer"))
    texts = []
    for part in parts:
        for kind, pattern in (part.get("pattern") or {}).items() if isinstance(part.get("pattern"), dict) else ():
            if not isinstance(pattern, str):
                continue
            if kind == "String" and pattern:
                texts.append(pattern * max(1, LENGTH // len(pattern)))
            else:
                texts += [char * LENGTH + "!" for char in sorted(set(pattern)) if ord(char) > 127][:64]
                texts += [char * LENGTH + "~" for char in sorted(set(pattern)) if char.isascii() and char.isalnum()]
    return texts[:500]


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a value. Raises UnfitTokenizerError for more than any tokenizer has."""
    waiting, seen = [value], 0
    while waiting:
        part = waiting.pop()
        seen += 1
        if seen > TREE:
            raise UnfitTokenizerError(f"has more than {TREE} parts beside its vocabulary")
        if isinstance(part, dict):
            yield part
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def check_growth(normalizer: Any) -> None:
    """Raises UnfitTokenizerError for replacements that one after the other make a text too long, on whatever text it may be."""
    growth = 1.0
    for part in _parts(normalizer):
        if part.get("type") == "Replace" and isinstance(part.get("content"), str):
            pattern = part["pattern"] if isinstance(part.get("pattern"), dict) else {}
            matched = len(pattern["String"]) if isinstance(pattern.get("String"), str) else 1
            growth *= max(1.0, len(part["content"]) / max(1, matched))
    if growth > GROWTH:
        raise UnfitTokenizerError(f"replaces texts by ones {growth:.3g} times as long, expected at most {GROWTH} times")
