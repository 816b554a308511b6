"""Inspection of a canonical base: it is loaded again, its perplexity is checked, and its files are hashed."""

from pathlib import Path
from typing import Any

from tuneline.base.perplexity import check, perplexities
from tuneline.formats.notices import notice_text
from tuneline.models.config import Base
from tuneline.models.devices.placement import load_at, place
from tuneline.models.loading import load_tokenizer, pick_dtype
from tuneline.runtime.errors import is_out_of_memory, sentence
from tuneline.runtime.hashing import folder_sha256, write_sums
from tuneline.runtime.terminal.lines import say


def inspect(folder: Path, params: Base) -> tuple[dict[str, Any], dict[str, str]]:
    """Write SHA256SUMS; returns (what is in metrics/base.json, {"device", "computed_in"} of the check).

    Raises ValueError when a perplexity is over its limit.
    """
    found = place(folder, "auto", "dtype")
    if found.sentence:
        say(f"base: {found.sentence}")
    (where,) = found.places
    model = load_at(where, folder, pick_dtype("auto", where.device, base=folder))
    check_finite(model)
    try:
        measured = perplexities(model, load_tokenizer(folder))
    except (RuntimeError, ArithmeticError, LookupError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(f"the base does not compute by its config.json: {sentence(error)[:500]}") from error
    check(measured, params)
    write_sums(folder)
    report = {
        **{f"perplexity_{language}": value for language, value in measured.items()},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "model_type": model.config.model_type,
        "dtype": params.dtype,
        "sha256": folder_sha256(folder),
    }
    return report, {"device": where.device.type, "computed_in": str(model.dtype)}


def check_finite(model: Any) -> None:
    """Raises ValueError for a weight that is infinite or not a number: perhaps none that the check's text would meet."""
    # What lies in main memory for a GPU that is too small is loaded layer by layer.
    here = {name: one for name, one in model.named_parameters() if not one.is_meta}
    if wrong := [name for name, one in here.items() if not bool(one.isfinite().all())]:
        raise ValueError(
            f"{len(wrong)} tensors of the base are not finite as {model.dtype}, first {wrong[0]}; is the download whole, and "
            "is base.dtype wide enough?"
        )


def notice(folder: Path) -> list[str]:
    """The lines of the base's own notice, which its licence may ask to show; none without one."""
    return notice_text(folder).splitlines()
