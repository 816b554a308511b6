"""`python -m tuneline`: the `tuneline` command."""

from tuneline.cli.app import app

if __name__ == "__main__":
    app(prog_name="tuneline")
