"""What every way of chatting does before it loads a model."""

import ipaddress
import os
import warnings
from pathlib import Path

from tuneline.runtime.stage import GPU_DEVICES

LOOPBACK = ("127.0.0.1", "::1", "localhost")
SHORTEST = 8
"""Characters of a password."""


def quiet() -> None:
    """Keep libraries from telling others, or the terminal, what is done here."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    if not any(Path(device).exists() for device in GPU_DEVICES):
        # DeepSpeed, which transformers imports, else warns at every start that it found no GPU.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    warnings.filterwarnings("ignore")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def allowed_hosts(host: str) -> set[str] | None:
    """The names by which a server on this address may be called; None is any, where other machines may ask.

    A page of another site that lets its own name point to this machine is kept out by them (DNS rebinding).
    """
    return {*LOOPBACK, host.lower()} if is_loopback(host) else None


def secret(variable: str, host: str) -> str | None:
    """The password of an environment variable, None when it is unset.

    Raises ValueError when others could reach the address without one, or when it is short.
    """
    value = os.environ.get(variable) or None
    if value is None and not is_loopback(host):
        raise ValueError(
            f"--host is {host}, which others can reach, and {variable} is unset: set it to a password of at least "
            f"{SHORTEST} characters, or leave --host at 127.0.0.1"
        )
    if value is not None and len(value) < SHORTEST:
        raise ValueError(f"{variable} has {len(value)} characters, expected at least {SHORTEST}")
    return value
