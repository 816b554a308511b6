"""Hostile raw files in every format that the readers know: whole files, and one record among good ones."""

import csv
import json
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from benchmarks.faults.cases import Case, Place
from benchmarks.faults.finished import outputs, remove_outputs, set_params
from benchmarks.faults.forked import Limits
from benchmarks.faults.outcomes import Outcome, Result, judge
from benchmarks.harness import ROOT

LIMITS = Limits(120, memory=4_000_000_000, unprivileged=True)
GOOD = 30
"""Good rows beside a hostile one."""
TAKEN = 20
"""Of these so many must come through: a few may look alike."""
Write = Callable[[Path], str]
"""Writes into data/raw, and returns the path of the source."""


class Raw(NamedTuple):
    write: Write
    record: bool
    """Whether good rows stand beside the hostile record, which must not end the run."""


FILES: dict[str, Raw] = {}


def whole(write: Write) -> Write:
    """A file that may be refused as a whole."""
    FILES[write.__name__] = Raw(write, False)
    return write


def beside_good_rows(write: Write) -> Write:
    FILES[write.__name__] = Raw(write, True)
    return write


def good_rows() -> list[dict[str, str]]:
    """Our own questions and answers."""
    with (ROOT / "data/raw/health_qa.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))[: 3 * GOOD : 3]


def good_lines() -> list[str]:
    return [json.dumps(row, ensure_ascii=False) for row in good_rows()]


def cases() -> Iterator[Case]:
    for module in ("lines", "documents", "columns", "archives", "places"):
        import_module(f"benchmarks.faults.hostile.{module}")
    for name, raw in FILES.items():

        def attack(place: Place, name: str = name, raw: Raw = raw) -> list[Result]:
            return [tried(place, name, raw)]

        yield Case("raw", name, attack)


def tried(place: Place, name: str, raw: Raw) -> Result:
    """`convert` on the file alone: right when every item is accounted for and good rows came through."""
    project = place.copy()
    source = raw.write(project / "data/raw")
    set_params(
        project, data={"sources": [{"path": source}], "heldout": 5, "max_leak_rate": 1.0, "max_reject_rate": 0.6}
    )
    remove_outputs(project, "convert")
    run = place.run("convert", project, LIMITS)
    if failed := judge(name, run, "convert", (source,)):
        ended = raw.record and failed.outcome in (Outcome.SENTENCE, Outcome.UNNAMED)
        return failed._replace(outcome=Outcome.ENDED) if ended else failed
    counts = json.loads((project / "metrics/convert_details.json").read_text(encoding="utf-8"))["total"]
    accounted = sum(counts[key] for key in ("train", "heldout", "duplicates", "leaks", "rejected"))
    if accounted != counts["items"]:
        return Result(name, Outcome.SILENT, f"{counts['items']} items, {accounted} accounted for")
    if raw.record and counts["train"] + counts["heldout"] < TAKEN:
        return Result(name, Outcome.SILENT, f"of {GOOD} good rows {counts['train'] + counts['heldout']} came through")
    missing = [path for path in outputs("convert") if not (project / path).exists()]
    return Result(name, Outcome.SILENT, f"missing {missing}") if missing else Result(name, Outcome.RIGHT)
