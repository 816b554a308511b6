"""Loading of a checkpoint's model with every tensor in its files: transformers would make up what is missing."""

from pathlib import Path
from typing import Any

from tuneline.models.conversion.file_names import groups, skeleton, tensor_names


def lack_of(model: Any, missing: list[str]) -> str:
    """A sentence's end for tensors that a checkpoint's files should hold."""
    return (
        f"its files lack {len(missing)} tensors of a {type(model).__name__}, first {missing[0]}; is the download whole?"
    )


def load_whole(source: Path, options: dict[str, Any]) -> Any:
    """The causal language model of a checkpoint, with its config among `options`.

    Raises ValueError for missing tensors, which transformers would make up.
    """
    from transformers import AutoModelForCausalLM

    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            source, **options, output_loading_info=True, trust_remote_code=False
        )
    except (ValueError, RuntimeError) as error:
        raise ValueError(why_not_whole(source, error)) from None
    if missing := sorted(report["missing_keys"]):
        raise ValueError(lack_of(model, missing))
    return model


def why_not_whole(source: Path, error: Exception) -> str:
    """What an error in converting tensors comes from: the error itself says that its reason was logged."""
    if "above" not in str(error) or not (names := set(tensor_names(source))):
        return str(error)
    model = skeleton(source)
    missing = sorted({name for group in groups(model) for name in group.files} - names)
    return lack_of(model, missing) if missing else str(error)
