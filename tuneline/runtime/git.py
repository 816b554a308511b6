"""Git commands in the project."""

import subprocess


def git(*arguments: str) -> str:
    """What the command printed. Raises ValueError with its complaint."""
    result = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)  # noqa: S607
    if result.returncode:
        raise ValueError(f"git {arguments[0]} failed: {result.stderr.strip()}; this needs the project in git")
    return result.stdout
