"""Starting adapter (`train.init`): found, pinned by its hash, compared with the parameters, and loaded once."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tuneline.formats.closed_folder import check_closed
from tuneline.models.adapters.importing import adapter_hashes, read_lineage
from tuneline.models.loading import ADAPTER, TRAINED_WEIGHTS
from tuneline.runtime.params.user_path import user_path
from tuneline.train.config.train import Train
from tuneline.train.sections import Method

if TYPE_CHECKING:
    from tuneline.models.adapters.attach import Shapes

REVISION = "rev:"
WHOLE = ("freeze", "full")
"""Methods that change tensors of the base themselves."""


class Start(NamedTuple):
    name: str
    """As params.yaml has it."""
    folder: Path
    lineage: dict[str, Any]
    """{"from", "sha256", "files", "lineage"}: what it is by content, and what it says of its own making."""


def find_start(train: Train, base: Path) -> Start | None:
    """The adapter of train.init. Raises ValueError where there is none, or it is not the one of train.init_sha256."""
    if train.init is None:
        if train.init_sha256 is not None:
            raise ValueError("train.init_sha256 is set and train.init is null: set both, or neither")
        return None
    folder = _folder(train.init)
    found = adapter_hashes(folder)
    digest = digest_of(found)
    pinned = re.fullmatch(rf"{REVISION}[0-9a-f]{{40}}", train.init) and train.init_sha256 is None
    if not pinned and train.init_sha256 != digest:
        raise ValueError(
            f"train.init is {train.init!r}, whose sha256 is {digest}, and train.init_sha256 is {train.init_sha256}: set "
            f"train.init_sha256: {digest} if that is the adapter to go on from (by it DVC sees that it is another)"
        )
    lineage = {"from": train.init, "sha256": digest, "files": found, "lineage": read_lineage(folder)}
    return Start(train.init, folder, lineage)


def digest_of(files: Mapping[str, str]) -> str:
    """train.init_sha256 of an adapter with these files, {name: sha256}."""
    return hashlib.sha256("".join(f"{one}  {name}\n" for name, one in files.items()).encode()).hexdigest()


def _folder(init: str) -> Path:
    if init.startswith(REVISION):
        from tuneline.models.adapters.revisions import fetch_adapter

        return fetch_adapter(init.removeprefix(REVISION))
    folder = user_path(init)
    if folder.resolve() == ADAPTER.resolve():
        raise ValueError(f"train.init is {init!r}, which `train` itself writes: take rev:HEAD, or a copy elsewhere")
    if folder.is_dir():
        check_closed(folder)
    if not folder.is_dir() or not adapter_hashes(folder):
        raise ValueError(f"train.init is {init!r}, expected null, the folder of an adapter, or rev:<git revision>")
    return folder


def check_start(start: Start, method: Method, base: Path) -> None:
    """Raises ValueError, saying what both are, where the adapter is not what the parameters would train; loads no weights."""
    from tuneline.models.loading import empty_model
    from tuneline.train import methods

    if method.tune.method == "lora" and method.lora.variant == "pissa":
        raise ValueError(
            "lora.variant is pissa and train.init is set, expected lora: PiSSA begins from the base's weights"
        )
    compare_start(methods.prepare(empty_model(base), method), start.folder, method, start.name)


def load_start(model: Any, folder: Path, method: Method) -> None:
    """Put the adapter's values into a prepared model, in place. Raises ValueError where it is not what trains."""
    from tuneline.models.adapters.attach import fill
    from tuneline.models.adapters.source import read_adapter
    from tuneline.models.loading import load_adapter

    compare_start(model, folder, method, str(folder))
    if method.tune.method in WHOLE:
        load_adapter(model, folder)
    else:
        fill(model, read_adapter(folder, model.config.to_dict()))


def compare_start(model: Any, folder: Path, method: Method, name: str) -> None:
    """Raises ValueError where the folder's adapter is not of the kind, the shapes and the scale of the prepared model's."""
    whole, wanted = (folder / TRAINED_WEIGHTS).is_file(), method.tune.method
    if whole != (wanted in WHOLE):
        held = "whole tensors of the base (freeze or full)" if whole else "an adapter beside the base"
        raise ValueError(
            f"train.init is {name!r}, which holds {held}, and tune.method is {wanted}: set tune.method to its own, or merge it "
            "first (`dvc repro export`) and make that the base (base.source)"
        )
    if whole:
        _compare_tensors(model, folder, name)
    else:
        _compare_adapters(model, folder, name, wanted)


def _compare_tensors(model: Any, folder: Path, name: str) -> None:
    from tuneline.models.adapters.attach import misfits

    trained = {key: one for key, one in model.named_parameters() if one.requires_grad}
    ours: Shapes = {key: tuple(getattr(one, "ds_shape", one.shape)) for key, one in trained.items()}
    theirs = _shapes(folder / TRAINED_WEIGHTS)
    # What it changed must train on, or it would be lost; more may train than it changed.
    wrong = misfits(theirs, {key: shape for key, shape in ours.items() if key in theirs})
    if wrong:
        raise ValueError(
            f"train.init is {name!r}, which changed {len(theirs)} tensors, and the parameters train {len(ours)}: {wrong}; "
            "set section freeze to what it was, or tune.method to full"
        )


def _compare_adapters(model: Any, folder: Path, name: str, wanted: str) -> None:
    from tuneline.models.adapters.attach import (
        converted,
        description,
        expected_tensors,
        misfits,
        without_base_weights,
    )
    from tuneline.models.adapters.importing import METHODS
    from tuneline.models.adapters.source import read_adapter

    theirs, ours = read_adapter(folder, model.config.to_dict()), model.peft_config["default"]
    both = f"train.init is {name!r}, {description(theirs.config)}; the parameters make {description(ours)}"
    kind = METHODS[theirs.config.peft_type.value]
    if kind != wanted and (kind, wanted) != ("p_tuning", "prompt"):
        way = "prompt, which goes on from its tokens," if kind == "p_tuning" else kind
        raise ValueError(f"{both}: set tune.method to {way} or train.init to null")
    if wanted == "p_tuning" or getattr(ours, "prefix_projection", False):
        instead = "tune.method: prompt" if wanted == "p_tuning" else "ptuning.projection: false"
        raise ValueError(f"{both}: an adapter has the tokens and not the network that made them; set {instead}")
    expected = expected_tensors(model)
    tensors: Mapping[str, Any] = theirs.tensors
    if not ours.is_prompt_learning:
        tensors = converted(model, theirs, without_base_weights(theirs, expected, lambda _: None))
    wrong = misfits({key: tuple(one.shape) for key, one in tensors.items()}, expected) or _other_scale(model, theirs)
    if wrong:
        section = "ptuning" if ours.is_prompt_learning else "lora"
        raise ValueError(f"{both}: {wrong}; set section {section} of params.yaml to what it has, or train.init to null")


def _other_scale(model: Any, adapter: Any) -> str:
    """The first layer whose update would be multiplied by something else than in the adapter."""
    from tuneline.models.adapters.source import PREFIX, scale

    for key, module in model.named_modules():
        ours = getattr(module, "scaling", None)
        if isinstance(ours, dict) and "default" in ours:
            theirs = scale(adapter.config, key.removeprefix(PREFIX), module.r["default"])
            if abs(theirs - ours["default"]) > 1e-9 * abs(theirs):
                return f"updates are multiplied by {theirs:g} there and {ours['default']:g} here"
    return ""


def _shapes(path: Path) -> "Shapes":
    from tuneline.formats.safetensors_reader import file_entries

    return {name: entry.shape for name, entry in file_entries(path).items()}
