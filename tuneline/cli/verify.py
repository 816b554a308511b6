"""`tuneline verify`: verification of a merged model's folder."""

import json
from pathlib import Path
from typing import Annotated

import typer

from tuneline.export.verify import private, problems
from tuneline.models.loading import BASE
from tuneline.runtime.hashing import SUMS, file_sha256, files, sum_mismatches

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="Folder that `export` or `tuneline release` wrote.")] = Path(
        "models/merged"
    ),
) -> None:
    """Check a merged model's folder: checksums, tensors, stop tokens. Needs the folder alone, on any machine.

    Where models/base is the base that it was made of, that is checked against its checksums, too.

    Says for each file what does not match, and exits with 1 if anything does not.
    """
    found = problems(folder)
    found += private(folder) if folder.is_dir() else []
    found += base_mismatches(folder)
    for problem in found:
        typer.echo(f"verify: {problem}", err=True)
    if found:
        raise typer.Exit(1)
    print(f"verify: {folder}: {len(files(folder)) - 1} files are as {SUMS} says, and the model is whole")


def base_mismatches(folder: Path) -> list[str]:
    """What of models/base is not as it was when the model was made of it; nothing where another base lies there, or none."""
    try:
        made_of = json.loads((folder / "lineage.json").read_text(encoding="utf-8"))["base_sums"]
    except (OSError, ValueError, KeyError, TypeError):
        # Said by `problems`, if it should be there.
        return []
    sums = BASE / SUMS
    return (
        [f"{BASE}: {wrong}" for wrong in sum_mismatches(BASE)]
        if sums.is_file() and file_sha256(sums) == made_of
        else []
    )
