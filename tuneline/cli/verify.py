"""`tuneline verify`: verification of a merged model's folder."""

from pathlib import Path
from typing import Annotated

import typer

from tuneline.export.verify import private, problems
from tuneline.runtime.hashing import SUMS, files

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="Folder that `export` or `tuneline release` wrote.")] = Path(
        "models/merged"
    ),
) -> None:
    """Check a merged model's folder: checksums, tensors, stop tokens. Needs the folder alone, on any machine.

    Says for each file what does not match, and exits with 1 if anything does not.
    """
    found = problems(folder)
    found += private(folder) if folder.is_dir() else []
    for problem in found:
        typer.echo(f"verify: {problem}", err=True)
    if found:
        raise typer.Exit(1)
    print(f"verify: {folder}: {len(files(folder)) - 1} files are as {SUMS} says, and the model is whole")
