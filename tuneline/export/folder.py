"""The merged model's folder: merge into it, check it against base and adapter, and complete it for its users."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tuneline.export.config import Export
from tuneline.export.equivalence import Difference, compare, sample, states
from tuneline.export.inputs import Inputs
from tuneline.export.layerwise_fp32 import stored_dtype
from tuneline.export.merge import file_mismatches, load_tuned, merge_mismatches, merged
from tuneline.export.model_card import card, read_facts
from tuneline.export.verify import problems
from tuneline.formats.closed_folder import plain_files
from tuneline.formats.notices import copy_notices, notice_text
from tuneline.formats.records import read_heldout
from tuneline.formats.safetensors_reader import bytes_as
from tuneline.formats.safetensors_writer import LARGEST
from tuneline.formats.stored import read_object
from tuneline.models.chat_format import Prompter, load_prompter
from tuneline.models.chatglm.layout import ORIGINAL as CHATGLM
from tuneline.models.chatglm.layout import original_config, write_chatglm
from tuneline.models.config import Base
from tuneline.models.conversion.portable import make_portable
from tuneline.models.conversion.saving import save_model
from tuneline.models.cpu_tuning import retain_freed_blocks
from tuneline.models.devices.placement import place_layerwise
from tuneline.models.loading import TRAINED_WEIGHTS, UNMERGED_ADAPTER_DIR, can_merge, load_merged, load_tokenizer
from tuneline.models.original import check_original, write_original
from tuneline.runtime.atomic import to_json
from tuneline.runtime.hashing import SUMS, file_sha256, files, hashes, write_sums
from tuneline.runtime.storage.room import require_room
from tuneline.runtime.terminal.lines import say

CARRIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
)
"""What the base's folder holds beside config, weights and notices, taken over as it is."""


class Layout(NamedTuple):
    """A form beside the native one, written into a folder of the merged model."""

    check: Callable[[Path], object]
    """Raises ValueError for a base that did not come in it."""
    write: Callable[[Path, Path, Path, str], None]


LAYOUTS = {"chatglm3": Layout(original_config, write_chatglm), "original": Layout(check_original, write_original)}


def layout_of(base: Path, params: Export) -> str:
    """The layout to write: a ChatGLM's original one is its own."""
    return "chatglm3" if params.layout == "original" and (base / CHATGLM).is_dir() else params.layout


def export(folder: Path, inputs: Inputs, params: Export, base: Base, device: torch.device) -> dict[str, Any]:
    """Write the whole folder; returns what is in metrics/export.json. `device` compares it with the adapter.

    Raises ValueError when the merged model is not the adapter, or the base can't be written in the layout asked for.
    """
    layout = LAYOUTS[layout_of(inputs.base, params)] if params.layout != "native" else None
    if layout:
        layout.check(inputs.base)
    require_room(folder, bytes_as(inputs.base, params.dtype))
    merge_into(folder, inputs.base, inputs.adapter, params.dtype)
    prompter = load_prompter(load_tokenizer(folder))
    difference = check_equivalence(folder, inputs, params, device, prompter)
    report = {name: value if name == "tokens" else float(f"{value:.6g}") for name, value in difference.items()}
    if layout:
        layout.write(folder, inputs.base, folder / layout_of(inputs.base, params), params.dtype)
    complete(folder, inputs, params, base, report, prompter)
    return report


def equivalence_sentence(report: dict[str, Any]) -> str:
    return (
        f"equals the adapter: delta_nll {report['delta_nll']:.2g}, greedy agreement {report['greedy_agreement']:.2%}, "
        f"largest logit difference {report['max_logit_difference']:.2g}"
    )


def merge_into(folder: Path, base: Path, adapter: Path, dtype: str) -> None:
    """Write the merged weights, and everything of the base's folder that a user of the model needs.

    Virtual tokens can't be merged: then the base is at the folder's root, and the adapter beside it, in `adapter/`.
    Raises ValueError when the files are not what was merged.
    """
    tuned = load_tuned(base, adapter, stored_dtype(base))
    if not can_merge(tuned):
        where = f"{folder.name} holds the base, and the adapter in {UNMERGED_ADAPTER_DIR}/"
        say(f"export: virtual tokens can't be merged: {where}")
        _copy_adapter(adapter, folder / UNMERGED_ADAPTER_DIR)
    model = merged(tuned, getattr(torch, dtype))
    save_model(model, folder, LARGEST)
    for path in plain_files(base, *CARRIED):
        shutil.copyfile(path, folder / path.name)
    copy_notices(base, folder)
    make_portable(folder)
    if wrong := file_mismatches(model, folder):
        raise ValueError(
            f"the merged files do not hold what was merged: {len(wrong)} tensors differ, first {wrong[0]}; is the disk sound?"
        )


def _copy_adapter(adapter: Path, target: Path) -> None:
    """The adapter for the base one folder up."""
    shutil.copytree(adapter, target)
    path = target / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(to_json(config | {"base_model_name_or_path": ".."}), encoding="utf-8")


def check_equivalence(
    folder: Path, inputs: Inputs, params: Export, device: torch.device, prompter: Prompter
) -> Difference:
    """Reload the folder with nothing else at hand, and measure it against base and adapter, in float32.

    `prompter` is the folder's own, too.
    Raises ValueError when a tensor or the answers are not the adapter's.
    """
    dtype = getattr(torch, params.dtype)
    if wrong := merge_mismatches(folder, inputs.base, inputs.adapter, dtype):
        raise ValueError(
            f"the merged model is not base plus adapter: {len(wrong)} tensors are off, first {wrong[0]}; "
            "run `dvc repro --force train`, and report it if it stays"
        )
    rows = sample(
        [
            prompter.training_row(record["messages"], "last_answer", tools=record.get("tools"))
            for record in read_heldout(inputs.heldout)
        ]
    )
    retain_freed_blocks()
    # One after the other: two models of 6 billion parameters do not fit into 24 GB.
    tuned = load_tuned(inputs.base, inputs.adapter, stored_dtype(inputs.base), device)
    adapter = states(tuned, rows, "export: adapter")
    del tuned
    difference = compare(adapter, states(load_merged(folder, dtype, device), rows, "export: merged"))
    if not difference["delta_nll"] < params.max_delta_nll:
        raise ValueError(
            f"the merged model is not the adapter: delta_nll is {difference['delta_nll']:.6f}, expected below "
            f"export.max_delta_nll = {params.max_delta_nll:g}; try export.dtype: float32"
        )
    return difference


def comparison_device(inputs: Inputs, params: Export) -> torch.device:
    """A GPU with the memory for it, or the CPU; says so where GPUs are too small."""
    whole = (inputs.adapter / TRAINED_WEIGHTS).is_file()
    held = (torch.float32 if whole else stored_dtype(inputs.base), getattr(torch, params.dtype))
    found = place_layerwise(inputs.base, max(held, key=lambda dtype: dtype.itemsize))
    if found.sentence:
        say(f"export: comparing the merged model with the adapter, {found.sentence}")
    return found.places[0].device


def complete(
    folder: Path, inputs: Inputs, params: Export, base: Base, report: dict[str, Any], prompter: Prompter
) -> None:
    """Lineage, model card and checksums; `report` is what is in metrics/export.json.

    Raises ValueError when a user of the folder would miss something.
    """
    made_of = lineage(inputs, params)
    (folder / "lineage.json").write_text(to_json(made_of), encoding="utf-8")
    facts = read_facts(inputs) | {"export": report}
    notice = notice_text(inputs.base)
    unmerged = UNMERGED_ADAPTER_DIR if (folder / UNMERGED_ADAPTER_DIR).is_dir() else None
    (folder / "README.md").write_text(card(made_of, facts, base.model_dump(), notice, unmerged), encoding="utf-8")
    write_sums(folder)
    if found := problems(folder, prompter.stop_ids):
        raise ValueError(f"the merged folder is not whole: {'; '.join(found)}")


def lineage(inputs: Inputs, params: Export) -> dict[str, Any]:
    """What made this model, by content: no commit and no time, so that the same inputs give the same bytes."""
    trained = read_object(inputs.adapter / "lineage.json", {"params.tune.method": str}, "train")
    return {
        **trained,
        "adapter": hashes(path for path in files(inputs.adapter) if path.name != "lineage.json"),
        "data": hashes([inputs.train, inputs.heldout]),
        "metrics": hashes([inputs.evaluation, inputs.training]),
        "export": params.model_dump(),
        "base_sums": file_sha256(inputs.base / SUMS),
    }
