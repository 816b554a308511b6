"""`python -m tuneline`: the `tuneline` command."""

from tuneline.runtime.environment import require_environment

require_environment()

from tuneline.cli.app import app  # noqa: E402

if __name__ == "__main__":
    app(prog_name="tuneline")
