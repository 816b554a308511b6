"""The child's side of a process with limits: reads questions, answers them, and ends when nobody asks any more.

It imports what a question needs and nothing else: no torch, no transformers.
"""

import json
import os
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, BinaryIO

SIZE = struct.Struct("<Q")
LONGEST = 300
"""Characters of an error that are handed on."""


def main(cpu_seconds: float, memory_mb: int) -> None:
    """Answer questions, each with its `size` in bytes, within the limits: what takes longer ends the process by SIGPROF."""
    # What is printed by the way is no answer.
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    # Bytes of a file: enough to find a folder for temporary ones, which no library needs.
    for kind, most in (
        (resource.RLIMIT_AS, memory_mb * 2**20),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 4096),
    ):
        resource.setrlimit(kind, (most, most))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    while (question := _received(questions)) is not None:
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        began = time.process_time()
        answer = json.dumps(_answer(question) | {"seconds": time.process_time() - began}).encode("ascii")
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(SIZE.pack(len(answer)) + answer)
        answers.flush()


def _received(file: BinaryIO) -> dict[str, Any] | None:
    head = file.read(SIZE.size)
    if len(head) < SIZE.size:
        return None
    (size,) = SIZE.unpack(head)
    question = json.loads(file.read(size))
    assert isinstance(question, dict)
    return question | {"size": size}


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    """The answer; {"refused": why} for an error, {"over": true} without memory for it."""
    try:
        return _kind(question.pop("kind"))(question)
    except MemoryError:
        return {"over": True}
    except Exception as error:
        return {"refused": said(error)}


def _kind(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    if name == "template":
        from tuneline.models.untrusted import template_environment

        return template_environment.answer
    from tuneline.models.untrusted import tokenizer_trial

    return tokenizer_trial.answer


def said(error: Exception) -> str:
    """An error in one line, with its kind unless it is Jinja's own."""
    text = " ".join(str(error).split())
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    if not type(error).__module__.startswith("jinja2"):
        return f"{type(error).__name__}: {text}" if text else type(error).__name__
    line = getattr(error, "lineno", None)
    return f"{text or type(error).__name__}{f' (line {line})' if line else ''}"
