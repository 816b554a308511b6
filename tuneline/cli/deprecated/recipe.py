"""Earlier name of `tuneline recipe`."""

from tuneline.cli.app import run_deprecated

if __name__ == "__main__":
    run_deprecated("tuneline.recipe", "recipe")
