"""ChatGLM's SentencePiece model as a fast tokenizer of transformers: the same ids for any text, no remote code.

The pieces become a BPE vocabulary with their ids, and merges in the order of the pieces' scores. The normaliser is the
model's own character map behind a dummy prefix. Control words follow the pieces, as tokenization_chatglm.py of
THUDM/chatglm3-6b counts them.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

CONTROL = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
"""Ids n, n + 1, … after n pieces."""
ALONE = ("sop", "eop")
"""Parts of words, too ("philosophy"): of a text that is not encoded as plain text, they are taken only when alone."""
SPECIAL = {"unk_token": "<unk>", "pad_token": "<unk>", "eos_token": "</s>"}
SPACE = "▁"
ESCAPE = "\ufff0"
"""Unassigned, and a control character to grapheme segmentation: what stands on its two sides is never one grapheme.

It stands for itself, for a break, or for a character, by what follows it.
"""
ITSELF, BREAK, *CHARACTERS = (ESCAPE + chr(code) for code in range(0xFFF1, 0xFFF9))
PLANES = (range(1, 0xD800), range(0xE000, 0x30000), range(0xE0000, 0xE1000))
"""Code points of which some may be mapped."""
EXTENDING = r"\p{M}\x{200c}\x{200d}\x{ff9e}\x{ff9f}\x{1f3fb}-\x{1f3ff}\x{e0020}-\x{e007f}"
"""Characters that join the one before into a grapheme."""
NORMAL = 1
"""A type of pieces in sentencepiece_model.proto."""
TIKTOKEN = re.compile(rb"[A-Za-z0-9+/]+=* \d+$")
"""A line of tiktoken's format: a token in base64, its rank."""


def build(path: Path) -> Any:
    """A PreTrainedTokenizerFast from `tokenizer.model`.

    Raises ValueError when the file is no SentencePiece BPE model with byte fallback.
    """
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=backend_of(read_model(path)),
        **SPECIAL,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def read_model(path: Path) -> Any:
    """The parsed sentencepiece_model.proto."""
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    if path.is_file() and TIKTOKEN.match(path.open("rb").readline(200)):
        raise ValueError(
            f"{path} is a tiktoken vocabulary, as GLM-4 has: this is GLM-4 with code of its own, which is never run; "
            "expected ChatGLM2 or ChatGLM3, or GLM-4 in transformers' own form (glm-4-9b-chat-hf, GLM-4-9B-0414)"
        )
    try:
        model.ParseFromString(path.read_bytes())
    except (DecodeError, OSError) as error:
        raise ValueError(f"{path} can't be read as a SentencePiece model: {error}") from None
    spec = model.trainer_spec
    if not model.pieces or spec.model_type != spec.BPE or not spec.byte_fallback:
        raise ValueError(f"{path} is no SentencePiece BPE model with byte fallback, as ChatGLM2 and ChatGLM3 have")
    normal = model.normalizer_spec
    if not normal.add_dummy_prefix or normal.remove_extra_whitespaces or not normal.escape_whitespaces:
        raise ValueError(f"{path} treats white space in another way than ChatGLM2 and ChatGLM3 do")
    return model


def backend_of(model: Any) -> Any:
    """The model as a `tokenizers.Tokenizer`, control words and prefix included."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, processors

    vocabulary = {piece.piece: number for number, piece in enumerate(model.pieces)}
    count = len(vocabulary)
    control = {word: count + number for number, word in enumerate(CONTROL)}
    # No merge leads to a control word, so as entries of the vocabulary they are out of text's reach.
    tokenizer = Tokenizer(
        models.BPE(vocabulary | control, merges(model), unk_token="<unk>", fuse_unk=True, byte_fallback=True)  # noqa: S106
    )
    tokenizer.normalizer = normaliser(model.normalizer_spec.precompiled_charsmap)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    for word, number in control.items():
        token = AddedToken(word, normalized=False, special=True, single_word=word in ALONE)
        tokenizer.add_special_tokens([token])
        assert tokenizer.token_to_id(word) == number, f"{word} has another id than {number}"
    prefix = [("[gMASK]", control["[gMASK]"]), ("sop", control["sop"])]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[gMASK] sop $A", pair="[gMASK] sop $A $B", special_tokens=prefix
    )
    return tokenizer


def merges(model: Any) -> list[tuple[str, str]]:
    """Every way to join two pieces into a third, the best third first: what SentencePiece does by score.

    Of the ways to make the same piece, the one of the pieces with the smaller ids comes first.
    """
    ids = {piece.piece: number for number, piece in enumerate(model.pieces) if piece.type == NORMAL}
    ways = []
    for text, number in ids.items():
        halves = [(text[:place], text[place:]) for place in range(1, len(text))]
        found = [(left, right) for left, right in halves if left in ids and right in ids]
        ways += [(-model.pieces[number].score, ids[left], ids[right], left, right) for left, right in found]
    # Sorted by score alone, pieces of one score stand in the order of their ids.
    ways.sort(key=lambda way: way[:3])
    return [(left, right) for _, _, _, left, right in ways]


def normaliser(charsmap: bytes) -> Any:
    """Dummy prefix, the character map, and spaces as "▁".

    `Precompiled` maps a grapheme as a whole, by the first entry that begins it, and so loses the rest of what it does
    not find ("２" with an accent loses the accent); SentencePiece takes the longest entry at each character. So breaks
    are put wherever no entry spans two characters, and what remains together is composed first.
    """
    from tokenizers import Regex, normalizers

    prefix, spaces = normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)
    if not charsmap:
        return normalizers.Sequence([prefix, spaces])
    entries = decode_charsmap(charsmap)
    protected = dict(zip(changed_by_nfkc(charsmap), CHARACTERS, strict=False))
    return normalizers.Sequence(
        [
            prefix,
            normalizers.Replace(ESCAPE, ITSELF),
            *(normalizers.Replace(character, stand_in) for character, stand_in in protected.items()),
            normalizers.Replace(Regex(breaks(entries)), BREAK),
            normalizers.NFKC(),
            normalizers.Precompiled(charsmap),
            normalizers.Replace(BREAK, ""),
            *(normalizers.Replace(stand_in, character) for character, stand_in in protected.items()),
            normalizers.Replace(ITSELF, ESCAPE),
            spaces,
        ]
    )


@lru_cache
def decode_charsmap(charsmap: bytes) -> dict[str, str]:
    """The map's entries: text to text. Source: Darts double array as SentencePiece's normalizer.cc stores it."""
    import numpy as np

    size = int.from_bytes(charsmap[:4], "little")
    units = np.frombuffer(charsmap, np.dtype("<u4"), size // 4, 4)
    texts = charsmap[4 + size :]
    entries: dict[str, str] = {}
    every = np.arange(1, 256, dtype=np.int64)
    waiting = [(_offset(int(units[0])), b"")]
    while waiting:
        place, key = waiting.pop()
        found = place ^ every
        inside = found < len(units)
        found, labels = found[inside], every[inside]
        for child in found[(units[found] & 0x800000FF) == labels].tolist():
            unit = int(units[child])
            below, longer = child ^ _offset(unit), key + bytes([unit & 0xFF])
            if unit >> 8 & 1:
                begin = int(units[below]) & 0x7FFFFFFF
                entries[longer.decode()] = texts[begin : texts.index(b"\0", begin)].decode()
            waiting.append((below, longer))
    return entries


def _offset(unit: int) -> int:
    return (unit >> 10) << ((unit & 0x200) >> 6)


@lru_cache
def changed_by_nfkc(charsmap: bytes) -> tuple[str, ...]:
    """Characters that the map leaves as they are and NFKC would change: "～" in the map of ChatGLM3.

    Raises ValueError for more than there are stand-ins: a map that is not built on NFKC.
    """
    from tokenizers import normalizers

    entries = decode_charsmap(charsmap)
    after = normalizers.Sequence([normalizers.NFKC(), normalizers.Precompiled(charsmap)])
    # All at once is a hundred times faster than one by one. What stands between them joins neither side.
    characters = [char for plane in PLANES for char in map(chr, plane) if char not in entries and char != ESCAPE]
    mapped = after.normalize_str(ESCAPE.join(characters)).split(ESCAPE)
    found = tuple(one for one, other in zip(characters, mapped, strict=True) if one != other)
    if len(found) > len(CHARACTERS):
        raise ValueError(
            f"the SentencePiece model's character map leaves {len(found)} characters as they are that NFKC changes, "
            f"expected at most {len(CHARACTERS)}: it is another kind of map than those of ChatGLM2 and ChatGLM3"
        )
    return found


def breaks(entries: dict[str, str]) -> str:
    """A pattern of the places where a break must stand: before an extending character that no entry joins to its base."""
    bases: dict[str, set[str]] = defaultdict(set)
    for key in entries:
        if len(key) > 1 and _extends(key[-1]):
            bases[key[1:]].add(key[0])
    contexts: dict[str, list[str]] = defaultdict(list)
    for suffix, first in sorted(bases.items()):
        contexts[suffix[-1]].append(f"{_any(first)}{''.join(map(_escaped, suffix[:-1]))}")
    joining = [f"(?={_escaped(mark)})(?<!{'|'.join(before)})" for mark, before in sorted(contexts.items())]
    others = f"(?=[{EXTENDING}])(?!{_any(contexts)})" if contexts else f"(?=[{EXTENDING}])"
    return rf"(?<=\r)(?=\n)|(?=[{EXTENDING}])(?:{'|'.join([others, *joining])})"


def _extends(character: str) -> bool:
    import unicodedata

    return unicodedata.category(character).startswith("M") or character in "\u200c\u200d\uff9e\uff9f"


def _any(characters: Iterable[str]) -> str:
    return f"[{''.join(map(_escaped, sorted(characters)))}]"


def _escaped(character: str) -> str:
    return rf"\x{{{ord(character):x}}}"
