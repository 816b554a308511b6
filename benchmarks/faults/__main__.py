"""Attacks on a tiny finished project: kills, full disks, hostile files, wrong values, changed bytes, malformed requests.

    python -m benchmarks.faults                          everything (half an hour on two idle cores)
    python -m benchmarks.faults --quick                  some of each kind
    python -m benchmarks.faults --only bases             one kind; may be repeated
    python -m benchmarks.faults --only bases --case x    cases whose names begin with x; with --keep their folders stay,
                                                         with --fresh each stage starts in a Python of its own

The project is made anew in a folder that is removed at the end; nothing is downloaded. Stages run in forks of this process,
which has imported what they import. A traceback is anything but one sentence `<stage>: ...` on stderr and exit status 1: also
two sentences, a stage that was ended by a signal, another status. Names nothing: the sentence lacks the file it is about.
Silent: exit status 0 and not the right result, or something left behind. Of root, permissions are tried without its
privileges; a disk is full on a tmpfs where one can be mounted, else files are limited in size. Markdown on standard output;
exit status 1 when there is a fault.
"""

import itertools
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.faults.cases import Case, Measured, place_of
from benchmarks.faults.finished import STAGES, finish
from benchmarks.faults.forked import end_with_parent, import_all
from benchmarks.faults.full_disk import own_mounts, written_by
from benchmarks.faults.kinds import KINDS, MEASURED, chosen
from benchmarks.faults.outcomes import FAULTS, Outcome, Result
from benchmarks.harness import argument_parser, machine_line, show, table

COMMAND = "python -m benchmarks.faults"


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--only", action="append", choices=KINDS, help="a kind; may be repeated")
    parser.add_argument("--case", default="", help="how a case's name begins")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--project", type=Path, help="folder of one that was kept")
    options = parser.parse_args()
    started = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    own_mounts()
    scratch = Path(tempfile.mkdtemp(prefix="tuneline-faults-"))
    scratch.chmod(0o755)
    try:
        import_all()
        project = options.project / "project" if options.project else finish(scratch)
        kinds = options.only or list(KINDS)
        cases = [case for case in chosen(project, kinds, options) if case.name.startswith(options.case)]
        measured = measure(project, scratch) if MEASURED & set(kinds) else {}
        results = list(run_all(cases, project, measured, scratch, options))
    finally:
        if options.keep:
            print(f"kept: {scratch}", file=sys.stderr)
        else:
            shutil.rmtree(scratch, ignore_errors=True)
    faults = report(results, time.monotonic() - started)
    sys.exit(1 if faults else 0)


def measure(project: Path, scratch: Path) -> dict[str, Measured]:
    """Seconds and bytes of each stage, alone."""
    found = {}
    for stage in STAGES:
        with place_of(project, {}, False, scratch) as place:
            run = place.run(stage, place.copy())
        with place_of(project, {}, False, scratch) as place:
            found[stage] = Measured(run.seconds, written_by(stage, project, place.folder))
        print(f"{stage}: {run.seconds:.1f} s, writes {found[stage].written} bytes", file=sys.stderr, flush=True)
    return found


def run_all(
    cases: list[Case], project: Path, measured: dict[str, Measured], scratch: Path, options: object
) -> Iterator[tuple[str, Result]]:
    """(kind, result) of each case, as many at a time as there are jobs; faults are told at once."""
    context = multiprocessing.get_context("fork")
    _STATE.update(cases=cases, project=project, measured=measured, scratch=scratch, options=options)
    with ProcessPoolExecutor(getattr(options, "jobs", 1), mp_context=context, initializer=end_with_parent) as pool:
        for number, results in enumerate(pool.map(_run, range(len(cases)))):
            for result in results:
                yield cases[number].kind, result
                if result.outcome in FAULTS:
                    print(
                        f"{cases[number].kind} {result.name}: {result.outcome}: {result.said}",
                        file=sys.stderr,
                        flush=True,
                    )


_STATE: dict[str, object] = {}
"""What forks of this process find."""


def _run(number: int) -> list[Result]:
    case: Case = _STATE["cases"][number]  # type: ignore[index]
    options = _STATE["options"]
    with place_of(_STATE["project"], _STATE["measured"], options.fresh, _STATE["scratch"], options.keep) as place:  # type: ignore
        try:
            return case.attack(place)
        except Exception:
            # What no attack should do, but must not end the others either.
            return [Result(case.name, Outcome.TRACEBACK, f"the attack itself: {traceback.format_exc()[-1500:]}")]


def report(results: Iterable[tuple[str, Result]], seconds: float) -> list[tuple[str, Result]]:
    """Print the table and the faults; returns these."""
    by_kind = {kind: [result for _, result in group] for kind, group in itertools.groupby(results, lambda one: one[0])}
    outcomes = list(Outcome)

    def rows() -> Iterator[list[object]]:
        for kind, found in by_kind.items():
            counted = Counter(result.outcome for result in found)
            yield [kind, len(found), *(counted[outcome] for outcome in outcomes)]

    show(table(("kind", "tried", *outcomes), rows()))
    print()
    for kind, note in notes(by_kind):
        print(f"- {kind}: {note}")
    faults = [(kind, result) for kind, found in by_kind.items() for result in found if result.outcome in FAULTS]
    for kind, result in faults:
        print(f"- {kind} `{result.name}`: **{result.outcome}**: {result.said}")
        print(f"  `{COMMAND} --only {kind} --case '{result.name}' --keep`")
    print(f"\n{len(faults)} faults; {seconds / 60:.0f} minutes; {machine_line()}")
    return faults


def notes(by_kind: dict[str, list[Result]]) -> Iterator[tuple[str, str]]:
    """What the table does not tell: kills that met a stage, values that were accepted."""
    if kills := by_kind.get("kills"):
        yield "kills", f"{sum(result.said.startswith('met') for result in kills)} met a running stage"
    if values := by_kind.get("values"):
        accepted = [result.name for result in values if result.outcome is Outcome.RIGHT]
        yield "values", f"{len(accepted)} accepted: {', '.join(accepted)}"


if __name__ == "__main__":
    main()
