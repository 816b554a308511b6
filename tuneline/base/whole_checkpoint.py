"""Account of a checkpoint's tensors, before one is read."""

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tuneline.formats.safetensors_reader import Entry, entries
from tuneline.formats.weight_files import safetensors_files
from tuneline.models.conversion.file_names import groups, skeleton
from tuneline.models.conversion.whole import check_report, is_unread, misfit


def account_whole(source: Path, config: Any) -> None:
    """Compare all tensors of a checkpoint's files with those of its config, before a weight is read.

    Raises ValueError for one that is missing, of another shape, or none of the model's.
    """
    from transformers import AutoModelForCausalLM

    kinds = AutoModelForCausalLM._model_mapping
    if type(config) not in kinds:
        raise ValueError(
            f"config.json has model_type {config.model_type!r}, which transformers has no language model for"
        )
    files = entries(source)
    if not safetensors_files(source):
        raise ValueError(
            "it holds no *.safetensors: PyTorch's files are pickles, and read of ChatGLM alone; save it as safetensors where "
            "it was made"
        )
    if len(files) < config.num_hidden_layers:
        raise ValueError(
            f"its files hold {len(files)} tensors, and config.json has num_hidden_layers {config.num_hidden_layers}: expected "
            "several for each layer"
        )
    # Those that transformers makes whole while it reads them have other shapes in files.
    if getattr(config, "quantization_config", None) is None:
        try:
            rehearse(kinds[type(config)], config, files)
        except ValueError as error:
            raise ValueError(misfit_of_experts(source, files) or str(error)) from None


def rehearse(kind: Any, config: Any, files: Mapping[str, Entry]) -> None:
    """Load tensors' shapes alone as the class `kind`: no weight is read. Raises ValueError as check_report does."""
    state = {name: torch.empty(entry.shape, dtype=torch.bfloat16, device="meta") for name, entry in files.items()}
    try:
        model, report = kind.from_pretrained(
            None, config=copy.deepcopy(config), state_dict=state, dtype=torch.bfloat16, device_map={"": "meta"},
            output_loading_info=True, ignore_mismatched_sizes=True, trust_remote_code=False,
        )  # fmt: skip
    except RuntimeError as error:
        refuse_integers(files)
        raise ValueError(str(error)) from None
    refuse_integers({name: entry for name, entry in files.items() if not is_left_out(name, model)})
    check_report(model, report)


def is_left_out(name: str, model: Any) -> bool:
    """Whether a tensor of files is not loaded, by a rule that is known: masks of booleans, that old versions saved."""
    ignored = model._keys_to_ignore_on_load_unexpected or ()
    return name not in model.state_dict() and (is_unread(name, model) or any(re.search(one, name) for one in ignored))


def refuse_integers(files: Mapping[str, Entry]) -> None:
    """Raises ValueError for tensors of integers, which a quantised checkpoint has, and a cast would take for weights."""
    if odd := sorted(name for name, entry in files.items() if not re.match("float|bfloat|F", entry.dtype)):
        raise ValueError(
            f"its files hold {len(odd)} tensors that are no floating-point numbers, first {odd[0]} ({files[odd[0]].dtype}): "
            "expected the unquantised checkpoint"
        )


def misfit_of_experts(source: Path, files: Mapping[str, Entry]) -> str:
    """A sentence by the names of the files, where several of their tensors are one in memory; else nothing.

    transformers only says that something could not be converted, and that the reason was logged.
    """
    model = skeleton(source)
    parts = groups(model)
    if all(len(group.files) == 1 for group in parts):
        return ""
    wanted = {name: shape for group in parts for name, shape in group.files.items()}
    wrong = {
        name: (entry.shape, wanted[name])
        for name, entry in files.items()
        if name in wanted and entry.shape != wanted[name]
    }
    return misfit(type(model).__name__, wanted.keys() - files.keys(), (), wrong)
