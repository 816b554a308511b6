"""Deprecated entry point `python -m chat`, now `tuneline chat`."""

from chat.deprecated import run_deprecated
from chat.terminal import app

if __name__ == "__main__":
    run_deprecated(app, "chat", "chat")
