"""Deprecated entry points `python -m chat`, `chat.demo` and `chat.serve`, kept for one release."""

import sys

import typer

from tuneline.runtime.errors import exit_with_sentence


def run_deprecated(app: typer.Typer, module: str, command: str) -> None:
    """Run a command under its former module name, after a notice on stderr."""
    print(f"`python -m {module}` is now `tuneline {command}`", file=sys.stderr)
    with exit_with_sentence(command):
        app(prog_name=f"tuneline {command}")
