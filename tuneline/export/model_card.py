"""The model card: what a stranger must know of a merged model, in the form that model hubs read.

It holds no commit and no time, so that the same inputs give the same bytes.
"""

import json
from pathlib import Path
from typing import Any

from tuneline.evaluate.checks import checks
from tuneline.evaluate.page.glossary import task_name
from tuneline.evaluate.tasks import results_by_task
from tuneline.evaluate.verdict import headline, measured, outcome, trained
from tuneline.export.card_figures import figure_lines
from tuneline.export.inputs import Inputs
from tuneline.formats.stored import COUNTS, EVALUATION, TRAINING, read_object, read_rows
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
ROW = {"task": str, "references": list, "base": str, "tuned": str, "scores.base": dict, "scores.tuned": dict}
"""Of a line of predictions.jsonl, for the figures of each task."""
LABELLING = ("label", "labels")
"""Tasks whose answers are names of classes."""
LABELS_SHOWN = 60
URGENT = "急"
"""In the name of a label: then an emergency has one."""
TRAINED = ("init", "learning_rate", "lr_scheduler_type", "batch_size", "epochs", "max_steps", "seed")


def card(
    lineage: dict[str, Any], facts: dict[str, Any], base: dict[str, Any], notice: str, beside: str | None = None
) -> str:
    """The page as Markdown with YAML before it.

    `facts` are those of read_facts(), and metrics/export.json as `export`; `base` is section `base` of the parameters,
    `notice` the base's own; `beside` names the folder of an adapter that can't be merged.
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
        "labels": known_labels(facts["classes"]),
        "beside": beside,
        "imported": lineage.get("imported"),
    }
    values |= findings(name, method, facts)
    return fill(Path(__file__).with_name("model_card.md.jinja"), values)


def read_facts(inputs: Inputs) -> dict[str, Any]:
    """What earlier stages wrote, by stage, with evaluate's `rows` and convert's `classes`.

    Raises ValueError naming the file that is not as its stage writes it.
    """
    return {
        "eval": read_object(inputs.evaluation, {**EVALUATION, "tasks": dict, "general": dict}, "evaluate"),
        "rows": list(read_rows(inputs.predictions, ROW, "evaluate")),
        "train": read_object(inputs.training, TRAINING, "train"),
        "convert": read_object(inputs.counts, COUNTS, "convert"),
        "classes": read_object(inputs.classes, {"*": list}, "convert"),
    }


def findings(base: str, method: str, facts: dict[str, Any]) -> dict[str, Any]:
    """What the report says at its top, by the same functions: the verdict, each task's figures, and what is wrong."""
    evaluation, sources = facts["eval"], facts["convert"]["sources"]
    results = results_by_task(evaluation, facts["rows"])
    found = checks(evaluation, results, sources)
    outcomes = {one.task: outcome(one.metric, one.delta) for one in results}
    return {
        "trained": trained(base, method, facts["train"], sources, evaluation["items"]),
        "headline": headline(outcomes, found),
        # Never as if a task were alone: its number of items belongs to its figure.
        "measured": [{"task": task_name(one.task), "said": measured(one, alone=False)} for one in results],
        "forgetting": next((one.finding for one in found if one.name == "forgetting"), None),
        "wrong": [one.finding for one in found if one.level != "ok" and one.name != "forgetting"],
        "unending_base": evaluation["base"]["eos_rate"]["value"] == 0,
        "text_tasks": any(one.metric == "rouge_l" for one in results),
        "lines": figure_lines(evaluation, results),
    }


def known_labels(classes: dict[str, list[str]]) -> dict[str, Any] | None:
    """Labels of the training set, as Markdown, how many they are, and whether one is for emergencies; None without any."""
    names = sorted({name for task in LABELLING for name in classes.get(task, ())})
    if not names:
        return None
    # In quotes each, so that a row which lists them is not held to be in the card.
    quoted = [f"`{' '.join(name.split()).replace('`', chr(39))}`" for name in names[:LABELS_SHOWN]]
    return {
        "listed": " · ".join(quoted),
        "count": len(names),
        "more": max(0, len(names) - LABELS_SHOWN),
        "urgent": any(URGENT in name for name in names),
    }


def parameters(params: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """Names and values, as JSON, of what decided the training."""
    method = params["tune"]["method"]
    section = {"p_tuning": "ptuning", "prefix": "ptuning", "prompt": "ptuning"}.get(method, method)
    # Of an adapter from elsewhere only its own configuration is known.
    names = [(section, name) for name in SHOWN[method]] + [("train", name) for name in TRAINED]
    chosen = [(f"{one}.{name}", params[one][name]) for one, name in names if name in params.get(one, {})]
    return [(name, json.dumps(value, ensure_ascii=False)) for name, value in chosen]
