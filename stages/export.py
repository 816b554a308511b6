"""Merge the adapter into the base, and prove that the merged model is the model that was trained.

    python -m stages.export

Reads models/{base,adapter}, data/processed/{train,heldout}.jsonl, metrics/{eval,train}.json and section `export`;
writes models/merged and metrics/export.json. Fails when the two models differ by more than export.max_delta_nll.
"""

import json
from pathlib import Path
from typing import Any

from tuneline.chatglm.layout import original, write_chatglm
from tuneline.cpu import keep_blocks
from tuneline.outputs import building, to_json, write_json
from tuneline.params import load
from tuneline.records import read_heldout
from tuneline.sections.export import Export
from tuneline.stage import note, run

HELDOUT = Path("data/processed/heldout.jsonl")
TRAIN = Path("data/processed/train.jsonl")
BASE = Path("models/base")
ADAPTER = Path("models/adapter")
EVALUATED = Path("metrics/eval.json")
TRAINED = Path("metrics/train.json")
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
        difference = verify(folder)
        report = {name: value if name == "tokens" else float(f"{value:.6g}") for name, value in difference.items()}
        if not difference["delta_nll"] < params.max_delta_nll:
            raise ValueError(
                f"the merged model is not the adapter: delta_nll is {difference['delta_nll']:.6f}, expected below "
                f"export.max_delta_nll = {params.max_delta_nll:g}; try export.dtype: float32"
            )
        if params.layout == "chatglm3":
            write_chatglm(folder, BASE, folder / "chatglm3", params.dtype)
        (folder / "lineage.json").write_text(to_json(lineage(params)), encoding="utf-8")
    write_json(METRICS, report)
    print(f"export: {MERGED} equals the adapter: delta_nll {report['delta_nll']:.2g}, ", end="")
    print(
        f"greedy agreement {report['greedy_agreement']:.2%}, largest logit difference {report['max_logit_difference']:.2g}"
    )


def merge(params: Export, folder: Path) -> None:
    """merge_and_unload in float32, one cast, and everything of the base's folder that a user of the model needs.

    Virtual tokens can't be merged: then the base is at the folder's root, and the adapter beside it, in `adapter/`.
    """
    import shutil

    import torch

    from tuneline.model import BESIDE, can_merge, load_adapter, load_model

    model = load_adapter(load_model(BASE, torch.float32), ADAPTER)
    if can_merge(model):
        # One cast of the sum: casting the difference and then the sum would round twice (peft#1388).
        model = model.merge_and_unload(safe_merge=True) if hasattr(model, "merge_and_unload") else model
    else:
        print(f"export: virtual tokens can't be merged: {folder.name} holds the base, and the adapter in {BESIDE}/")
        model = model.get_base_model()
        keep_beside(folder / BESIDE)
    model.to(getattr(torch, params.dtype)).save_pretrained(folder)
    for path in (path for name in CARRIED for path in BASE.glob(f"{name}*")):
        shutil.copyfile(path, folder / path.name)


def keep_beside(folder: Path) -> None:
    """The adapter for the base one folder up."""
    import shutil

    shutil.copytree(ADAPTER, folder)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(to_json(config | {"base_model_name_or_path": ".."}), encoding="utf-8")


def verify(folder: Path) -> dict[str, Any]:
    """Reload the folder with nothing else at hand, and measure it against base and adapter, in float32."""
    import torch

    from tuneline.comparison import compare
    from tuneline.model import load_adapter, load_merged, load_model, load_tokenizer, pick_device
    from tuneline.prompt import Prompter

    prompter = Prompter(load_tokenizer(folder))
    rows = [prompter.training_row(record["messages"], "last_answer") for record in read_heldout(HELDOUT)]
    device = pick_device()
    note(device=device.type)
    keep_blocks()
    adapter = load_adapter(load_model(BASE, torch.float32, device), ADAPTER)
    return dict(compare(adapter, load_merged(folder, torch.float32, device), rows))


def lineage(params: Export) -> dict[str, Any]:
    """What made this model, by content: no commit and no time, so that the same inputs give the same bytes."""
    from tuneline.checksums import combined, file_sha256, files

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
