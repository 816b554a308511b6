"""A worker process that is killed at its work; workers import it by name."""

import os


def end_at_once(*_: object) -> None:
    os._exit(9)
