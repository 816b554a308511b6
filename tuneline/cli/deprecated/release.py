"""Earlier name of `tuneline release`."""

from tuneline.cli.app import run_deprecated

if __name__ == "__main__":
    run_deprecated("tuneline.release", "release")
