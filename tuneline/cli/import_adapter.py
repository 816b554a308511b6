"""`tuneline import-adapter`: an adapter from elsewhere as the one that the pipeline evaluates and exports."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from tuneline.models.loading import ADAPTER, BASE

TRAINING, CURVE = Path("metrics/train.json"), Path("metrics/loss.csv")
"""What `train` writes beside the adapter; `report` reads both, and `export` the first."""
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def import_adapter(
    source: Annotated[Path, typer.Argument(help="PEFT folder of the adapter, or one that `train` wrote.")],
    target: Annotated[Path, typer.Argument(help="Folder to write.")] = ADAPTER,
    base: Annotated[Path, typer.Option(help="The base that it is for.")] = BASE,
) -> None:
    """Take an adapter from elsewhere for the base: checked, named as the native network is, pickles as safetensors.

    \b
    tuneline import-adapter ./theirs            # into models/adapter, in place of what train made
    dvc commit --force train                    # dvc.lock takes it for the result of train
    dvc repro                                   # evaluate, report and export go on from it

    An adapter of ChatGLM3's own code is converted to the same function. Shapes decide whether an adapter fits.
    """
    from tuneline.models.adapters import importing
    from tuneline.runtime.atomic import atomic_output, write_json
    from tuneline.runtime.storage.written import record_written

    found = importing.import_adapter(source, base, target)
    said = found["lineage"]["imported"]
    if made_for := said.get("base_model_name_or_path"):
        print(f"import-adapter: it says that it was made for {made_for}; its shapes fit {base}", file=sys.stderr)
    if target == ADAPTER:
        counts = {"trainable_parameters": found["trainable"], "total_parameters": found["total"]}
        write_json(TRAINING, counts | {"imported": said["name"], "rows_seen": 0, "steps": 0, "supervised_tokens": 0})
        with atomic_output(CURVE) as path:
            path.write_text("step,loss,learning_rate,grad_norm,validation_loss\n", encoding="utf-8")
        record_written("train", {path: path for path in (ADAPTER, TRAINING, CURVE)})
    then = "; now run `dvc commit --force train`, then `dvc repro`" if target == ADAPTER else ""
    print(f"import-adapter: {target} is {source} for {base}{then}")
