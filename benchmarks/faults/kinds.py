"""Kinds of attacks, and which cases of each are run."""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.faults import (
    base_folders,
    changed_bytes,
    full_disk,
    kills,
    raw_files,
    requests,
    templates,
    tokenizers,
    wrong_values,
)
from benchmarks.faults.cases import Case

Options = argparse.Namespace
KINDS: dict[str, Callable[[Path, Options], Iterator[Case]]] = {
    "kills": lambda _, options: kills.kill_cases(16 if options.quick else options.kills),
    "signals": lambda _, options: kills.signal_cases(1 if options.quick else kills.SIGNALS),
    "disk": lambda _, options: full_disk.cases(2 if options.quick else full_disk.SIZES),
    "bases": lambda *_: base_folders.cases(),
    "templates": lambda *_: templates.cases(),
    "tokenizers": lambda *_: tokenizers.cases(),
    "raw": lambda *_: raw_files.cases(),
    "values": lambda *_: wrong_values.cases(),
    "bytes": lambda project, _: changed_bytes.cases(project),
    "requests": lambda *_: requests.cases(),
}
MEASURED = {"kills", "signals", "disk"}
"""Kinds that need to know how long a stage takes, and how much it writes."""
SAMPLED = {"signals": 3, "bases": 8, "templates": 10, "tokenizers": 6, "raw": 8, "values": 7, "bytes": 15}
"""With --quick every so-manieth case."""


def chosen(project: Path, kinds: list[str], options: Options) -> Iterator[Case]:
    for kind in kinds:
        cases = list(KINDS[kind](project, options))
        yield from cases[:: SAMPLED.get(kind, 1)] if options.quick else cases
