"""The model card: what a stranger must know of a merged model, in the form that model hubs read.

It holds no commit and no time, so that the same inputs give the same bytes.
"""

import json
from pathlib import Path
from typing import Any

from tuneline.formats.metrics import known_metrics
from tuneline.formats.templates import fill

SHOWN = {
    "lora": (
        "r",
        "alpha",
        "dropout",
        "variant",
        "target_modules",
        "modules_to_save",
        "layers_to_transform",
        "bias",
        "quantize",
    ),
    "p_tuning": ("num_virtual_tokens", "encoder_hidden_size"),
    "prefix": ("num_virtual_tokens", "projection", "encoder_hidden_size"),
    "prompt": ("num_virtual_tokens",),
    "freeze": ("layers", "patterns"),
    "full": (),
}
"""Which parameters of its section a method uses."""
TRAINED = ("init", "learning_rate", "lr_scheduler_type", "batch_size", "epochs", "max_steps", "seed")


def card(
    lineage: dict[str, Any], facts: dict[str, Any], base: dict[str, Any], notice: str, beside: str | None = None
) -> str:
    """The page as Markdown with YAML before it.

    `facts` holds the contents of metrics/{convert_details,eval_details,train,export}.json by stage, `base` section `base` of
    the parameters, `notice` the base's own; `beside` names the folder of an adapter that can't be merged.
    """
    from huggingface_hub import ModelCardData

    source = base["source"]
    # A folder's path says something of a machine, and a hub id something of the model.
    name = Path(source).name if source.startswith(("/", ".", "~")) else source
    method = lineage["params"]["tune"]["method"]
    data = ModelCardData(
        language="zh",
        library_name="transformers",
        pipeline_tag="text-generation",
        base_model=name if "/" in name else None,
        license="other",
        license_name="that-of-the-base",
        tags=["tuneline", method],
    )
    values = {
        "data": data.to_yaml(),
        "title": f"{name.rpartition('/')[2]}, fine-tuned",
        "base": {"source_name": name, "revision": base["revision"], "sums": lineage["base_sums"]},
        "method": method,
        "notice": notice,
        "counts": facts["convert"],
        "training": facts["train"],
        "evaluation": facts["eval"],
        "equality": facts["export"],
        "parameters": parameters(lineage["params"]),
        "titles": {name: metric.title for name, metric in known_metrics(facts["eval"]).items()},
        "beside": beside,
        "imported": lineage.get("imported"),
    }
    return fill(Path(__file__).with_name("model_card.md.jinja"), values)


def parameters(params: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """Names and values, as JSON, of what decided the training."""
    method = params["tune"]["method"]
    section = {"p_tuning": "ptuning", "prefix": "ptuning", "prompt": "ptuning"}.get(method, method)
    # Of an adapter from elsewhere only its own configuration is known.
    names = [(section, name) for name in SHOWN[method]] + [("train", name) for name in TRAINED]
    chosen = [(f"{one}.{name}", params[one][name]) for one, name in names if name in params.get(one, {})]
    return [(name, json.dumps(value, ensure_ascii=False)) for name, value in chosen]
