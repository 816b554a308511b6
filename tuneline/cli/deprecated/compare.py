"""Earlier name of `tuneline compare`."""

from tuneline.cli.app import run_deprecated

if __name__ == "__main__":
    run_deprecated("tuneline.compare", "compare")
