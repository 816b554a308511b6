"""Errors of a process whose others are gone: killed, or their host lost."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed

from tuneline.runtime.errors import sentence

GLOO = ("gloo", "Connection closed by peer", "Connection reset by peer")
"""Of gloo's messages, which are plain RuntimeErrors; NCCL's have a class of their own."""


@contextmanager
def connection_errors() -> Iterator[None]:
    """Raises ValueError in the place of a collective operation's error: what happened, and that the run can go on."""
    try:
        yield
    except RuntimeError as error:
        message = sentence(error)
        if not isinstance(error, torch.distributed.DistError) and not any(word in message for word in GLOO):
            raise
        raise ValueError(
            f"another process of this run is gone, or its host is ({message[:200]}); its own output says why, and "
            "`dvc repro` goes on from the newest checkpoint"
        ) from None
