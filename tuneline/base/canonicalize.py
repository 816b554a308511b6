"""One canonical form for any base: safetensors, fast tokenizer, chat template, generation config, native classes."""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoTokenizer, GgufConfig, logging

from tuneline.base.architecture import Architecture, examine
from tuneline.base.checkpoint import in_one_sentence, read_checkpoint
from tuneline.base.generation import generation_sentence, read_generation, settle_generation
from tuneline.base.refusals import check_words, refuse_quantised, refuse_remote_code
from tuneline.base.text_part import account_text_part, find_text_part, load_text_part
from tuneline.base.whole_checkpoint import account_whole
from tuneline.formats.notices import copy_notices
from tuneline.models.chat_format import Prompter, load_prompter
from tuneline.models.chat_templates import chat_template
from tuneline.models.chatglm import config as chatglm
from tuneline.models.chatglm.layout import ORIGINAL, keep_original
from tuneline.models.chatglm.tokenizer import build
from tuneline.models.chatglm.weights import convert
from tuneline.models.config import Base
from tuneline.models.conversion.file_names import cast
from tuneline.models.conversion.portable import make_portable
from tuneline.models.conversion.saving import save_model
from tuneline.models.loading import load_whole
from tuneline.models.original import put_aside
from tuneline.models.template_check import template_rules
from tuneline.models.template_prompt import TemplatePrompter
from tuneline.models.template_render import TemplateRenderer
from tuneline.models.untrusted.native_config import native_config
from tuneline.models.untrusted.tokenizers import try_tokenizer
from tuneline.runtime.progress import restyle_gguf_bar, restyle_library_bars

DOES_NOT_LOAD = "does not load with transformers' own classes"
SAMPLE = [("system", "{system}"), *[("user", "{question}"), ("assistant", "{answer}")] * 2]
"""A conversation that shows a prompt."""


class Prompt(NamedTuple):
    """How a base is prompted."""

    family: str
    """Of tuneline.models.chat_families, or `own`."""
    chat_template: str
    """`own`, or `tuneline` for a base that has none."""
    text: str
    """What a conversation becomes."""
    rules: list[str]
    """What the base's own template does besides writing contents down."""

    def sentence(self) -> str:
        """For a person who reads along."""
        if self.chat_template == "own":
            return "; ".join(["prompt: the base's own chat template", *self.rules])
        return f"prompt: Tuneline's of the family {self.family}, since the base brings no chat template"


class Canonical(NamedTuple):
    """What a base turned out to be."""

    prompt: Prompt
    architecture: Architecture
    generation: dict[str, Any]
    """Of its generation settings, what is kept and what is left out."""
    left_out: tuple[str, ...] = ()
    """Parts of the checkpoint that are no text: neither loaded nor trained."""

    def sentences(self) -> list[str]:
        """For a person who reads along."""
        said = [self.prompt.sentence(), self.architecture.sentence()]
        if self.left_out:
            said.append(f"of the checkpoint the part of text alone, without {', '.join(self.left_out)}")
        if sentence := generation_sentence(self.generation):
            said.append(sentence)
        return said


def canonicalize(source: Path, gguf: str | None, params: Base, folder: Path) -> Canonical:
    """Write the checkpoint at `source`, or the GGUF file of that name in it, into `folder`.

    Raises ValueError for a checkpoint that transformers' own classes do not load, whose turn markers are unknown, or that a
    later stage could not train, evaluate or export.
    """
    logging.set_verbosity_error()
    restyle_library_bars()
    with in_one_sentence(params, "is no checkpoint that can be taken"):
        config = {} if gguf else read_checkpoint(source)
        if not chatglm.is_chatglm(config):
            refuse_remote_code(config, params)
            refuse_quantised(config, params)
    if chatglm.is_chatglm(config):
        return _canonicalize_chatglm(source, config, params, folder)
    options: dict[str, Any] = {"local_files_only": True}
    weights: dict[str, Any] = {"dtype": getattr(torch, params.dtype)}
    if gguf:
        options["gguf_file"] = gguf
        _read_gguf_once()
        restyle_gguf_bar()
        # Dequantised in float32, then cast once.
        weights = {"dtype": torch.float32, "quantization_config": GgufConfig(dequantize=True)}
    else:
        weights["use_safetensors"] = True
    # What needs no weights comes first: reading them takes minutes.
    with in_one_sentence(params, DOES_NOT_LOAD):
        # Given to both below, for which a GGUF file's whole vocabulary would be parsed again: seconds each.
        options["config"] = native_config(source, **({"gguf_file": gguf} if gguf else {}))
        highest = None if gguf else try_tokenizer(source)
        tokenizer = AutoTokenizer.from_pretrained(source, **options, trust_remote_code=False)
        part = None if gguf else find_text_part(source)
        known = options["config"] if part is None else part.config
    # Whoever reads the base would be asked to run code that is not there.
    tokenizer.init_kwargs.pop("auto_map", None)
    # A tokenizer may load and then encode nothing.
    with in_one_sentence(params, "has a tokenizer that does not work"):
        prompter, prompt = _prompt_of_source(tokenizer, params)
    with in_one_sentence(params, "can't be tuned"):
        check_words(prompter, known, highest)
        if not gguf:
            account_whole(source, known) if part is None else account_text_part(part)
        architecture = examine(known)
    with in_one_sentence(params, DOES_NOT_LOAD):
        if part is None:
            model = load_whole(source, **options, **weights)
        else:
            model = load_text_part(part, weights["dtype"])
            if (source / "generation_config.json").is_file():
                model.generation_config = read_generation(source)
        settled = settle_generation(model.generation_config, prompter, tokenizer.pad_token_id)
    model = cast(model, getattr(torch, params.dtype))
    save_model(model, folder)
    tokenizer.save_pretrained(folder)
    make_portable(folder)
    copy_notices(source, folder)
    left_out = () if part is None else put_aside(source, folder, part.names, part.files)
    return Canonical(prompt, architecture, settled, tuple(left_out))


def _canonicalize_chatglm(source: Path, config: dict[str, Any], params: Base, folder: Path) -> Canonical:
    """The same for ChatGLM2 and ChatGLM3, whose network and tokenizer transformers has under other names."""
    with in_one_sentence(params, "is no checkpoint that can be taken"):
        shape = chatglm.shape_of(config)
        try_tokenizer(source, chatglm=True)
        tokenizer = build(source / "tokenizer.model")
        prompter, prompt = prompt_of(tokenizer)
        if max(prompter.control) >= shape.words:
            raise ValueError(
                f"the tokenizer has {len(tokenizer)} tokens and the embedding {shape.words} rows: they do not fit"
            )
        pad = tokenizer.pad_token_id
        native = chatglm.native_config(shape, params.dtype, pad, prompter.stop_ids)
        architecture = examine(native)
        generation = read_generation(source)
        settled = settle_generation(generation, prompter, pad)
        convert(source, shape, params.dtype, folder)
    keep_original(source, folder / ORIGINAL)
    native.save_pretrained(folder)
    generation.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    make_portable(folder)
    copy_notices(source, folder)
    return Canonical(prompt, architecture, settled)


def details_of(base: Canonical) -> dict[str, Any]:
    """What is in metrics/base_details.json."""
    return {
        "base_prompt": base.prompt.text,
        "rules": base.prompt.rules,
        "rows": "packed" if base.architecture.padded is None else "padded",
        "padded_since": base.architecture.padded,
        "linear_layers": base.architecture.targets,
        "left_out": list(base.left_out),
        "generation": base.generation,
    }


def quantization_of(source: Path, gguf: str | None) -> dict[str, str]:
    """{"quantization": that of the GGUF file's weights, "Q4_K_M"}, which were dequantised; {} of other checkpoints."""
    if gguf is None:
        return {}
    from gguf import GGUFReader, LlamaFileType

    # Under the name that transformers gives it, by which the one reader is found again.
    field = GGUFReader(str(source / gguf)).get_field("general.file_type")
    return {} if field is None else {"quantization": LlamaFileType(field.contents()).name.removeprefix("MOSTLY_")}


def _read_gguf_once() -> None:
    """Share one reader of the GGUF file: transformers opens it four times, each time parsing its vocabulary in Python."""
    import gguf

    gguf.GGUFReader = functools.cache(gguf.GGUFReader)


def _prompt_of_source(tokenizer: Any, params: Base) -> tuple[Prompter, Prompt]:
    try:
        return prompt_of(tokenizer)
    except ValueError as error:
        raise ValueError(
            f"base.source {params.source!r}: {error}; a chat_template.jinja beside its weights takes the place of its template"
        ) from None


def prompt_of(tokenizer: Any) -> tuple[Prompter, Prompt]:
    """How the tokenizer's base is prompted; one that has no chat template gets ours.

    Raises ValueError for a template that is not followed, and for a base without one whose turn markers are unknown.
    """
    if isinstance(tokenizer.chat_template, dict):
        # Those beside the default one are for tools and the like.
        tokenizer.chat_template = tokenizer.chat_template.get("default")
    prompter = load_prompter(tokenizer)
    rules = template_rules(prompter) if isinstance(prompter, TemplatePrompter) else None
    if rules is None:
        tokenizer.chat_template = chat_template(prompter.name)
    renderer = TemplateRenderer(tokenizer)
    messages: list[Any] = [{"role": role, "content": content} for role, content in SAMPLE]
    text = renderer.render(renderer.arranged(messages))
    return prompter, Prompt(prompter.name, "tuneline" if rules is None else "own", text, rules or [])
