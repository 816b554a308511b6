"""A worker process that is killed at its work; workers import it by name."""

import os


def end_at_once(job) -> None:
    os._exit(9)
