"""What `tuneline repro` ends with when a stage has failed: which one, why, where its log is, and what to do."""

import os
import re
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence

from tuneline.cli import panel
from tuneline.runtime.errors import MEMORY_REMEDIES
from tuneline.runtime.stage import numbered, purpose
from tuneline.runtime.stopping import STATUS
from tuneline.runtime.terminal import log

RECIPE = "TUNELINE_RECIPE"
"""Names the recipe to the run that `tuneline recipe` starts."""
CHANGES = "TUNELINE_RECIPE_CHANGES"
"""Keys and values that were given with it, as a shell reads them."""
FORCE = re.compile(r"--force|-[a-zA-Z]*f[a-zA-Z]*")
KILLED = {-signal.SIGKILL, STATUS + signal.SIGKILL}


def again(arguments: Sequence[str] = ()) -> str:
    """The command that runs the pipeline as it was run now; `arguments` are those of `tuneline repro`."""
    if not (recipe := os.environ.get(RECIPE)):
        return f"tuneline repro {shlex.join(arguments)}" if arguments else "make repro"
    changes = os.environ.get(CHANGES, "")
    if "'" in changes:
        # make would hand them to a shell a second time.
        return f"tuneline recipe {recipe} {changes}"
    return f"make repro RECIPE={recipe}" + (f" SET={shlex.quote(changes)}" if changes else "")


def folder() -> str:
    """Where the run's files lie, as seen from where it was started: in that of the recipe."""
    recipe = os.environ.get(RECIPE)
    return f"runs/{recipe}/" if recipe else ""


def show(stage: str, status: int, arguments: Sequence[str] = (), before: Mapping[str, log.State] | None = None) -> None:
    """Print the panel to stderr; `status` is the stage's exit status, negative for a signal.

    `before` are the logs that were there before it ran: it may have ended too early to remove its own.
    """
    log.remove_unchanged(stage, before or {})
    panel.show("failed", rows(stage, status, arguments), "red", sys.stderr)


def rows(stage: str, status: int, arguments: Sequence[str] = ()) -> list[panel.Row]:
    found, path, command = log.reason(stage), log.path_of(stage), again(arguments)
    why, remedy = found.text.removeprefix(f"{stage}: "), f"fix that, then run `{command}`"
    if found.is_bug:
        remedy = f"this is a bug: report it with the log; `{command}` tries again"
    elif not why and status in KILLED:
        why = "it was killed, most likely because the machine ran out of memory"
        remedy = f"{MEMORY_REMEDIES.get(stage, 'Close other programs, or take a machine with more memory.')} Then `{command}`"
    goes_on = f"it goes on from {stage}, finished stages are kept"
    if any(FORCE.fullmatch(argument) for argument in arguments):
        goes_on = "finished stages run again, as --force asks"
    does = purpose(stage)
    return [
        ("failed", [panel.Line(f"{numbered(stage)}{f', {does}' if does else ''}", "bold red")]),
        ("why", [why or f"it ended with status {status}; its output is above"]),
        ("log", [f"{folder()}{path}  its output and the traceback"] if path.is_file() else []),
        (
            "next",
            [
                f"{remedy}: {goes_on}",
                "docs/troubleshooting.md  other causes",
            ],
        ),
    ]
