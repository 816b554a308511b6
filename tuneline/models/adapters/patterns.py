"""Regular expressions over names of layers, tried with a limit: one that backtracks would keep PEFT busy for ever.

An adapter's configuration is a stranger's, and Python's engine can't be stopped from inside. So each is first matched against
all names in a process of its own, by the same engine and within a limit of CPU time, which a busy machine does not shorten.
"""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

SECONDS = 5
"""Of computing, for all names; PEFT's own matching of a sane one takes a thousandth."""
WAITING = 300
"""Of wall-clock time, on a machine that is busy."""
SLOW = "slow"
PLAIN = re.compile(r"[\w.-]*")
"""A name, which matches at once."""
PROGRAM = """
import json, re, resource, signal, sys
hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[1]) if hard < 0 else min(int(sys.argv[1]), hard), hard))
signal.signal(signal.SIGXCPU, signal.SIG_DFL)
given = json.load(sys.stdin)
for pattern in given["patterns"]:
    for form in ("%s", r"(.*\\.)?(%s)$", r"(?:^|.*\\.)%s\\.\\d+\\..*"):
        try:
            compiled = re.compile(form % pattern)
        except (re.error, RecursionError, OverflowError):
            continue
        except MemoryError:
            sys.exit(int(sys.argv[2]))
        for name in given["names"]:
            compiled.fullmatch(name)
"""

OUT_OF_MEMORY = 3
"""Exit status of the program."""


def check_patterns(patterns: Iterable[str], names: Iterable[str], where: str) -> None:
    """Raises ValueError for regular expressions that take too long to match these names; `where` says whose they are.

    Also where they could not be tried, which says nothing about them: memory was short, or no process could be started.
    One that is no regular expression at all is PEFT's to refuse.
    """
    odd = sorted({pattern for pattern in patterns if not PLAIN.fullmatch(pattern)})
    if not odd:
        return
    question = json.dumps({"patterns": odd, "names": sorted(names)})
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, str(SECONDS), str(OUT_OF_MEMORY)]
    named = f"({', '.join(odd)[:200]})"
    try:
        ended = subprocess.run(
            command,
            input=question.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=WAITING,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        problem = f"its process has not ended in {WAITING} seconds, so the machine is too busy"
    except OSError as error:
        problem = f"no process could be started ({error.strerror})"
    else:
        problem = _problem(ended)
    if problem == SLOW:
        raise ValueError(
            f"{where} has a regular expression that takes more than {SECONDS} seconds to match the names of the base's layers "
            f"{named}, expected one without repeats inside repeats, such as .*self_attn\\.[qv]_proj, or "
            "a list of names"
        )
    if problem:
        raise ValueError(
            f"{where} has a regular expression {named} that could not be tried on the names of the base's layers, since "
            f"{problem}: close other programs and run again, or give a list of names"
        )


def _problem(status: int) -> str:
    """What the end of the program says: SLOW, why it could not try them, or nothing. A negative status is a signal."""
    if status == -signal.SIGXCPU:
        return SLOW
    if status in (OUT_OF_MEMORY, -signal.SIGKILL):
        return (
            "its process had not enough memory"
            if status > 0
            else "its process was killed, most often for want of memory"
        )
    return f"its process ended with status {status}" if status else ""


def patterns_of(config: Any) -> list[str]:
    """All that PEFT matches as a regular expression of a configuration."""
    found = [getattr(config, key, None) for key in ("target_modules", "exclude_modules", "layers_pattern")]
    # A list of targets is one of names, and a list of layers_pattern is one of expressions.
    found[2:] = found[2] if isinstance(found[2], list) else found[2:]
    found += [key for name in ("rank_pattern", "alpha_pattern") for key in getattr(config, name, None) or ()]
    return [one for one in found if isinstance(one, str)]
