"""What `tuneline repro` ends with when a stage has failed: which one, why, where its log is, and what to do."""

import os
import signal
import sys

from tuneline.cli import panel
from tuneline.runtime.errors import MEMORY_REMEDIES
from tuneline.runtime.stage import numbered, purpose
from tuneline.runtime.stopping import STATUS
from tuneline.runtime.terminal import log

RECIPE = "TUNELINE_RECIPE"
"""Names the recipe to the run that `tuneline recipe` starts."""
KILLED = {-signal.SIGKILL, STATUS + signal.SIGKILL}


def again() -> str:
    """The command that runs the pipeline as it was run now."""
    recipe = os.environ.get(RECIPE)
    return f"make repro RECIPE={recipe}" if recipe else "make repro"


def show(stage: str, status: int) -> None:
    """Print the panel to stderr; `status` is the stage's exit status, negative for a signal."""
    panel.show("failed", rows(stage, status), "red", sys.stderr)


def rows(stage: str, status: int) -> list[panel.Row]:
    found, path = log.reason(stage), log.path_of(stage)
    why, remedy = found.text.removeprefix(f"{stage}: "), f"fix that, then run `{again()}`"
    if found.is_bug:
        remedy = f"this is a bug: report it with the log; `{again()}` tries again"
    elif not why and status in KILLED:
        why = "it was killed, most likely because the machine ran out of memory"
        remedy = f"{MEMORY_REMEDIES.get(stage, 'Close other programs, or take a machine with more memory.')} Then `{again()}`"
    does = purpose(stage)
    return [
        ("failed", [panel.Line(f"{numbered(stage)}{f', {does}' if does else ''}", "bold red")]),
        ("why", [why or f"it ended with status {status}; its output is above"]),
        ("log", [f"{path}  its output and the traceback"] if path.is_file() else []),
        (
            "next",
            [
                f"{remedy}: it goes on from {stage}, finished stages are kept",
                "docs/troubleshooting.md  other causes",
            ],
        ),
    ]
