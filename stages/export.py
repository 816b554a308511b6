"""Merge the adapter into the base, and prove that the merged model is the model that was trained.

    python -m stages.export

Reads models/{base,adapter}, data/processed/{train,heldout}.jsonl, metrics/{convert,eval,train}.json and section `export`;
writes models/merged and metrics/export.json. Fails when a tensor is not base plus adapter, or when the two models differ by
more than export.max_delta_nll.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline.base.config import Base
from tuneline.export.config import Export
from tuneline.formats.records import read_heldout
from tuneline.formats.safetensors_writer import LARGEST
from tuneline.models.chatglm.layout import original, write_chatglm
from tuneline.models.cpu_tuning import keep_blocks
from tuneline.models.loading import BESIDE
from tuneline.runtime.atomic import building, to_json, write_json
from tuneline.runtime.params import load
from tuneline.runtime.stage import note, run

if TYPE_CHECKING:
    from tuneline.export.equivalence import Difference

HELDOUT = Path("data/processed/heldout.jsonl")
TRAIN = Path("data/processed/train.jsonl")
BASE = Path("models/base")
ADAPTER = Path("models/adapter")
EVALUATED = Path("metrics/eval.json")
TRAINED = Path("metrics/train.json")
CONVERTED = Path("metrics/convert.json")
MERGED = Path("models/merged")
METRICS = Path("metrics/export.json")

CARRIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
    "NOTICE",
    "LICENSE",
)
"""What the base's folder holds beside config and weights, taken over as it is."""


def main() -> None:
    params = load(Export)
    if params.layout == "chatglm3":
        original(BASE)
    with building(MERGED) as folder:
        merge(params, folder)
        difference = verify(params, folder)
        report = {name: value if name == "tokens" else float(f"{value:.6g}") for name, value in difference.items()}
        if params.layout == "chatglm3":
            write_chatglm(folder, BASE, folder / "chatglm3", params.dtype)
        complete(params, folder, report)
    write_json(METRICS, report)
    print(f"export: {MERGED} equals the adapter: delta_nll {report['delta_nll']:.2g}, ", end="")
    print(
        f"greedy agreement {report['greedy_agreement']:.2%}, largest logit difference {report['max_logit_difference']:.2g}"
    )


def merge(params: Export, folder: Path) -> None:
    """The merged weights, and everything of the base's folder that a user of the model needs.

    Virtual tokens can't be merged: then the base is at the folder's root, and the adapter beside it, in `adapter/`.
    Raises ValueError when the files are not what was merged.
    """
    import shutil

    import torch

    from tuneline.export.layerwise_fp32 import stored_dtype
    from tuneline.export.merge import load_tuned, merged, not_written
    from tuneline.models.loading import can_merge

    tuned = load_tuned(BASE, ADAPTER, stored_dtype(BASE))
    if not can_merge(tuned):
        print(f"export: virtual tokens can't be merged: {folder.name} holds the base, and the adapter in {BESIDE}/")
        keep_beside(folder / BESIDE)
    model = merged(tuned, getattr(torch, params.dtype))
    model.save_pretrained(folder, max_shard_size=LARGEST)
    for path in (path for name in CARRIED for path in BASE.glob(f"{name}*")):
        shutil.copyfile(path, folder / path.name)
    if wrong := not_written(model, folder):
        raise ValueError(
            f"the merged files do not hold what was merged: {len(wrong)} tensors differ, first {wrong[0]}; is the disk sound?"
        )


def keep_beside(folder: Path) -> None:
    """The adapter for the base one folder up."""
    import shutil

    shutil.copytree(ADAPTER, folder)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(to_json(config | {"base_model_name_or_path": ".."}), encoding="utf-8")


def verify(params: Export, folder: Path) -> "Difference":
    """Reload the folder with nothing else at hand, and measure it against base and adapter, in float32.

    Raises ValueError when a tensor or the answers are not the adapter's.
    """
    import torch

    from tuneline.export.equivalence import compare, states
    from tuneline.export.layerwise_fp32 import stored_dtype
    from tuneline.export.merge import load_tuned, not_expected
    from tuneline.models.chat_format import Prompter
    from tuneline.models.loading import load_merged, load_tokenizer, pick_device

    if wrong := not_expected(folder, BASE, ADAPTER, getattr(torch, params.dtype)):
        raise ValueError(
            f"the merged model is not base plus adapter: {len(wrong)} tensors are off, first {wrong[0]}; "
            "run `dvc repro --force train`, and report it if it stays"
        )
    prompter = Prompter(load_tokenizer(folder))
    rows = [prompter.training_row(record["messages"], "last_answer") for record in read_heldout(HELDOUT)]
    device = pick_device()
    note(device=device.type)
    keep_blocks()
    # One after the other: two models of 6 billion parameters do not fit into 24 GB.
    adapter = states(load_tuned(BASE, ADAPTER, stored_dtype(BASE)).to(device), rows, "export: adapter")
    merged = states(load_merged(folder, getattr(torch, params.dtype), device), rows, "export: merged")
    difference = compare(adapter, merged)
    if not difference["delta_nll"] < params.max_delta_nll:
        raise ValueError(
            f"the merged model is not the adapter: delta_nll is {difference['delta_nll']:.6f}, expected below "
            f"export.max_delta_nll = {params.max_delta_nll:g}; try export.dtype: float32"
        )
    return difference


def complete(params: Export, folder: Path, report: dict[str, Any]) -> None:
    """Lineage, model card and checksums. Raises ValueError when a user of the folder would miss something."""
    from tuneline.export.model_card import card
    from tuneline.export.verify import problems
    from tuneline.runtime.hashing import write_sums

    (folder / "lineage.json").write_text(to_json(lineage(params)), encoding="utf-8")
    facts = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (EVALUATED, TRAINED, CONVERTED)}
    notice = "\n".join(path.read_text(encoding="utf-8") for path in sorted(BASE.glob("NOTICE*")))
    beside = BESIDE if (folder / BESIDE).is_dir() else None
    page = card(lineage(params), facts | {"export": report}, load(Base).model_dump(), notice, beside)
    (folder / "README.md").write_text(page, encoding="utf-8")
    write_sums(folder)
    if found := problems(folder):
        raise ValueError(f"the merged folder is not whole: {'; '.join(found)}")


def lineage(params: Export) -> dict[str, Any]:
    """What made this model, by content: no commit and no time, so that the same inputs give the same bytes."""
    from tuneline.runtime.hashing import combined, file_sha256, files

    trained = json.loads((ADAPTER / "lineage.json").read_text(encoding="utf-8"))
    return {
        **trained,
        "adapter": combined(path for path in files(ADAPTER) if path.name != "lineage.json"),
        "data": combined([TRAIN, HELDOUT]),
        "metrics": combined([EVALUATED, TRAINED]),
        "export": params.model_dump(),
        "base_sums": file_sha256(BASE / "SHA256SUMS"),
    }


if __name__ == "__main__":
    run(main, __doc__)
