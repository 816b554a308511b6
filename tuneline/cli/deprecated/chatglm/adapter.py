"""Earlier name of `tuneline import-adapter`."""

from tuneline.cli.app import run_deprecated

if __name__ == "__main__":
    run_deprecated("tuneline.chatglm.adapter", "import-adapter")
