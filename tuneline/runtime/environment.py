"""Check that this Python is the one that `make setup` made, before an import fails with a traceback."""

import sys
from importlib.util import find_spec

NEEDED = ("pydantic", "ruamel", "psutil", "typer", "torch", "transformers", "deepspeed", "peft", "dvc")
"""Libraries that some part cannot do without; finding one imports nothing."""


def require_environment(needed: tuple[str, ...] = NEEDED) -> None:
    """Exit with status 1 and one sentence when a library is missing, or Python is too old."""
    missing = [f"{name} is not installed" for name in needed if find_spec(name) is None]
    if sys.version_info < (3, 11):  # noqa: UP036
        missing = ["Python is older than 3.11"]
    if missing:
        sys.exit(
            f"tuneline: {missing[0]} ({sys.executable}): run `source .venv/bin/activate` in this shell (`make setup` makes it)"
        )
