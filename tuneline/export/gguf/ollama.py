"""The Modelfile of a released folder, from its own chat template and stop tokens."""

import json
from pathlib import Path
from typing import Any

from tuneline.export.gguf.conversion import chatglm_template
from tuneline.export.gguf.modelfile import Chat, Turns, modelfile, read_turns
from tuneline.formats.records import read_heldout
from tuneline.models.chat_format import as_list
from tuneline.models.chatglm.layout import ORIGINAL as CHATGLM
from tuneline.models.loading import load_tokenizer
from tuneline.models.template_render import TemplateRenderer


def write_modelfile(folder: Path, file: str, base: Path, heldout: Path) -> list[str]:
    """Write Modelfile into the folder; returns what a user should know, a sentence each: why there is none, if so."""
    tokenizer = load_tokenizer(folder)
    if (base / CHATGLM).is_dir():
        tokenizer.chat_template = chatglm_template(tokenizer.chat_template, {})
    try:
        turns = turns_of(tokenizer)
    except ValueError as error:
        return [f"no Modelfile for Ollama: {error}; llama.cpp's server has the template itself"]
    config, generation = (
        json.loads((folder / name).read_text(encoding="utf-8")) for name in ("config.json", "generation_config.json")
    )
    stops = tokenizer.convert_ids_to_tokens(as_list(generation["eos_token_id"]))
    text = modelfile(file, turns, stops, config.get("max_position_embeddings", 2048), common_system(heldout))
    (folder / "Modelfile").write_text(text, encoding="utf-8")
    return []


def turns_of(tokenizer: Any) -> Turns:
    """Of a tokenizer's chat template, without the token that Ollama puts first by itself."""
    renderer = TemplateRenderer(tokenizer)

    def render(chat: Chat, generation: bool) -> str:
        messages: list[Any] = [{"role": role, "content": content} for role, content in chat]
        return renderer.render(messages, generation)

    turns, bos = read_turns(render), tokenizer.bos_token
    twice = bos is not None and tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id
    return turns._replace(head=turns.head.removeprefix(bos)) if twice else turns


def common_system(heldout: Path) -> str | None:
    """The system prompt of the data, where all of it has the same."""
    if not heldout.is_file():
        return None
    first = {
        record["messages"][0]["content"] if record["messages"][0]["role"] == "system" else None
        for record in read_heldout(heldout)
    }
    return first.pop() if len(first) == 1 else None
