"""Process environment of the chat commands: library settings, bind address and secrets."""

import ipaddress
import os
import warnings

from tuneline.runtime.machine import choose_accelerator

LOOPBACK = ("127.0.0.1", "::1", "localhost")
MIN_SECRET_LENGTH = 8
"""Characters of a password or key."""


def configure_libraries() -> None:
    """Library settings: offline, no telemetry, no warnings or progress bars in the terminal."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    choose_accelerator()
    warnings.filterwarnings("ignore")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def is_loopback(host: str) -> bool:
    """Whether an address is reachable from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def allowed_hosts(host: str) -> set[str] | None:
    """Host names by which a server on this address may be called; None is any, where other machines may call it.

    Against DNS rebinding: a page of another site that lets its own name point to this machine is not answered.
    """
    return {*LOOPBACK, host.lower()} if is_loopback(host) else None


def secret_from_environment(variable: str, host: str) -> str | None:
    """Password or key in an environment variable; None when it is unset.

    Raises ValueError when others could reach the address without one, or when it is short.
    """
    value = os.environ.get(variable) or None
    if value is None and not is_loopback(host):
        raise ValueError(
            f"--host is {host}, which others can reach, and {variable} is unset: set it to a password of at least "
            f"{MIN_SECRET_LENGTH} characters, or leave --host at 127.0.0.1"
        )
    if value is not None and len(value) < MIN_SECRET_LENGTH:
        raise ValueError(f"{variable} has {len(value)} characters, expected at least {MIN_SECRET_LENGTH}")
    return value
