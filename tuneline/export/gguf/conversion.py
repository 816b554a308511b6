"""Conversion of a merged model's folder to a GGUF file that asks and stops as the folder does."""

import json
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tuneline.export.gguf.converter import SCRIPT, Converter
from tuneline.models.chat_format import as_list, load_prompter
from tuneline.models.chatglm.layout import ORIGINAL as CHATGLM
from tuneline.models.chatglm.layout import write_chatglm
from tuneline.models.chatglm.tokenizer import ALONE, CONTROL, decode_charsmap, read_model
from tuneline.models.loading import load_tokenizer

RENAMED = {word: f"<|{word}|>" for word in ALONE}
"""ChatGLM's control words that are parts of words: llama.cpp would find `sop` in "philosophy"."""
NOT_NORMALISED = (
    "llama.cpp maps no characters before it encodes, as this model's SentencePiece tokenizer does: the GGUF's template does so "
    "for forms of full width, and rarer characters (ligatures, Roman numerals) may become other tokens there"
)
KNOWN_ENDS = frozenset({
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>",
    "[EOT]", "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>", "<｜end▁of▁sentence｜>",
})  # fmt: skip
"""Tokens at which llama.cpp ends an answer by their text. Source: llama-vocab.cpp, special_eog_ids."""


def to_gguf(converter: Converter, folder: Path, base: Path, target: Path, kind: str) -> list[str]:
    """Write `target`, of `kind` bf16 or f16; returns what a user should know, a sentence each.

    Raises ValueError with the converter's last words.
    """
    tokenizer = load_tokenizer(folder)
    stops = stop_tokens(folder, tokenizer)
    template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    facts: dict[str, Any] = {
        "llama_cpp": str(converter.folder.resolve()), "template": template, "eos": tokenizer.eos_token_id,
        "stops": stops, "pieces": None,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="tuneline-gguf-") as scratch:
        source = folder
        if (base / CHATGLM).is_dir():
            source = Path(scratch, "chatglm")
            _as_chatglm(folder, base, source)
            pieces = {"model": str(source / "tokenizer.model"), "control": CONTROL, "renamed": RENAMED}
            facts |= {"pieces": pieces, "template": chatglm_template(template, charsmap(base))}
        given = Path(scratch, "facts.json")
        given.write_text(json.dumps(facts), encoding="utf-8")
        command = [converter.python, Path(__file__).with_name("run_converter.py"), given, source, "--outfile", target]
        result = subprocess.run(
            [*map(str, command), "--outtype", kind],
            capture_output=True,
            text=True,
            check=False,
            errors="replace",
            stdin=subprocess.DEVNULL,
        )
    if result.returncode or not target.is_file():
        raise ValueError(f"{converter.folder / SCRIPT} failed: {result.stderr.strip()[-500:] or 'it wrote nothing'}")
    said = (
        [f"the GGUF file has no place for the stop tokens {', '.join(text for _, text in stops[2:])}"]
        if stops[2:]
        else []
    )
    return said + ([NOT_NORMALISED] if facts["pieces"] and charsmap(base) else [])


def stop_tokens(folder: Path, tokenizer: Any) -> list[tuple[int, str]]:
    """(id, text) of what ends an answer and llama.cpp does not know for an end by its text; what the prompt stops at first."""
    given = json.loads((folder / "generation_config.json").read_text(encoding="utf-8")).get("eos_token_id")
    ours = load_prompter(tokenizer).stop_ids
    ordered = dict.fromkeys([*ours, *as_list(given)])
    return unknown_ends(ordered, tokenizer.eos_token_id, tokenizer.convert_ids_to_tokens(list(ordered)))


def unknown_ends(ids: Iterable[int], eos: int | None, texts: Sequence[str]) -> list[tuple[int, str]]:
    return [(one, text) for one, text in zip(ids, texts, strict=True) if one != eos and text not in KNOWN_ENDS]


def chatglm_template(template: str, mapped: Mapping[str, str]) -> str:
    """A ChatGLM template for llama.cpp: control words spelled otherwise, and forms of full width as the tokenizer maps them."""
    widths = [(one, mapped[one]) for one in map(chr, (*range(0xFF01, 0xFF5F), 0x3000)) if one in mapped]
    quoted = (f"replace({json.dumps(one, ensure_ascii=False)}, {json.dumps(to)})" for one, to in widths)
    content = " | ".join(["message.content", *quoted])
    template = template.replace("+ message.content", f"+ ({content})") if widths else template
    return template.replace("[gMASK]sop", f"[gMASK]{RENAMED['sop']}")


def charsmap(base: Path) -> dict[str, str]:
    """What the SentencePiece model of a ChatGLM maps before it encodes, which llama.cpp does not."""
    found = read_model(base / CHATGLM / "tokenizer.model").normalizer_spec.precompiled_charsmap
    return decode_charsmap(found) if found else {}


def _as_chatglm(folder: Path, base: Path, target: Path) -> None:
    """ChatGLM's own layout, which the converter knows; native Glm it takes for GLM-4, with another vocabulary."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_chatglm(folder, base, target, config["dtype"])
    if not (target / "tokenizer_config.json").is_file():
        (target / "tokenizer_config.json").write_text("{}\n", encoding="utf-8")
