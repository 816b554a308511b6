"""`tuneline import-adapter`: a LoRA adapter of ChatGLM3's remote code for the native network."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def import_adapter(
    source: Annotated[Path, typer.Argument(help="PEFT folder of the adapter.")],
    target: Annotated[Path, typer.Argument(help="Folder to write.")],
    base: Annotated[Path, typer.Option(help="The native base that it is for.")] = Path("models/base"),
) -> None:
    """Convert a LoRA adapter that was trained on ChatGLM3's remote code: the same function, exactly."""
    from tuneline.models.chatglm import adapter

    adapter.import_adapter(source, base, target)
    print(f"import-adapter: {target} is {source} for {base}")
