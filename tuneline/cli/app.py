"""The `tuneline` command: its subcommands by name, each imported only when it is run."""

import sys
import tempfile
from contextlib import nullcontext
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from tuneline.runtime.errors import exit_with_sentence
from tuneline.runtime.locks import temporary_folder
from tuneline.runtime.stopping import end_on_signals

COMMANDS = {
    "repro": ("tuneline.cli.repro", "Run the pipeline: `dvc repro` with less text, and the summary at the end."),
    "summary": ("tuneline.cli.summary", "Show what the last run gave, what is wrong with it, and what to do next."),
    "plan": ("tuneline.cli.plan", "Predict parameters, memory and time of the current params, and whether they fit."),
    "study": (
        "tuneline.cli.study.command",
        "Run seeds × shares of the data × parameters, and say what is more than luck.",
    ),
    "compare": ("tuneline.cli.compare", "Compare held-out answers of revisions or experiments, item by item."),
    "chat": ("chat.terminal", "Chat with the base, the adapter or the merged model in the terminal."),
    "serve": ("chat.serve", "Serve an OpenAI-compatible API."),
    "served": ("tuneline.cli.served", "Ask a server the held-out items: is it the tuned model, and if not, why?"),
    "demo": ("chat.demo", "Serve a web page with two models side by side."),
    "rows": (
        "tuneline.cli.rows.command",
        "Find training rows that may hurt: swapped answers, doubtful labels, conflicts.",
    ),
    "review": ("chat.review.command", "Let people, or a judge model, choose between two answers without names."),
    "verify": ("tuneline.cli.verify", "Check a merged model's folder against its checksums."),
    "release": ("tuneline.cli.release", "Make a folder to hand out: merged model, lineage, optional GGUF."),
    "recipe": ("tuneline.cli.recipe", "Run a recipe beside the project."),
    "times": ("tuneline.cli.times", "Show what each stage took when it last ran."),
    "import-adapter": ("tuneline.cli.import_adapter", "Take an adapter from elsewhere, to evaluate and export."),
}
"""Subcommand to (module with its `app`, line in the list of commands)."""


OWN_SIGNALS = {"repro", "recipe", "chat", "serve", "demo", "review", "tuneline"}
"""Subcommands that a signal does not end at once: DVC, and what answers, have handlers of their own."""


class LazyGroup(TyperGroup):
    """Subcommands out of COMMANDS: nothing heavy is imported for `--help`."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        command = get_command(import_module(COMMANDS[cmd_name][0]).app)
        command.name = cmd_name
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in COMMANDS and (near := get_close_matches(args[0], COMMANDS, n=1)):
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: Any) -> Any:
        arguments = [*getattr(ctx, "_protected_args", []), *ctx.args]
        name = arguments[0] if arguments else "tuneline"
        own_folder = _ends_on_signals(name) and _has_temporary_files()
        with exit_with_sentence(name), temporary_folder() if own_folder else nullcontext():
            return super().invoke(ctx)


def _ends_on_signals(name: str) -> bool:
    """Whether a signal ends the command at once; from now on it does."""
    if name in OWN_SIGNALS or not is_program():
        return False
    end_on_signals(name)
    return True


def _has_temporary_files() -> bool:
    """Whether there is a folder for them; what only reads needs none, and runs where nothing can be written."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        return False
    return True


def is_program() -> bool:
    """Whether this process is the command's, and not of a program that calls it."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return Path(sys.argv[0]).name == "tuneline" or (spec is not None and spec.parent == "tuneline")


app = typer.Typer(cls=LazyGroup, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import PackageNotFoundError
        from importlib.metadata import version as installed

        try:
            print(f"tuneline {installed('tuneline')}")
        except PackageNotFoundError:
            print("tuneline, not installed: run `make setup`")
        raise typer.Exit


@app.callback()
def main(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    """Fine-tune on question-answer data as a versioned DVC pipeline; `dvc repro` runs the stages."""


def run_deprecated(module: str, command: str) -> None:
    """Run a subcommand under its earlier name, saying the present one."""
    print(f"`python -m {module}` is now `tuneline {command}`", file=sys.stderr)
    app(args=[command, *sys.argv[1:]], prog_name="tuneline")
