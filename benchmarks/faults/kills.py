"""SIGKILL, SIGINT and SIGTERM at random moments of every stage, which is then started again."""

import random
import signal
from collections.abc import Iterator

from benchmarks.faults.cases import Case, Place, compared
from benchmarks.faults.finished import STAGES, contents, left_behind, outputs, remove_outputs
from benchmarks.faults.forked import Limits, Signal
from benchmarks.faults.outcomes import Outcome, Result, Run, judge

SEED = 22
KILLS = 100
SIGNALS = 3
"""Moments of each signal in each stage, besides one in a Python of its own."""
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
LIMITS = Limits(180)
FRESH_START = 4.0
"""Seconds of imports, in which the moments of a Python of its own lie, too."""


def kill_cases(kills: int) -> Iterator[Case]:
    """Every other one with what an earlier run wrote still in place, as where a stage is run by hand."""
    draw = random.Random(SEED)  # noqa: S311
    for number in range(kills):
        stage, at, kept = STAGES[number % len(STAGES)], draw.random(), number // len(STAGES) % 2 == 1

        def attack(
            place: Place, stage: str = stage, at: float = at, kept: bool = kept, number: int = number
        ) -> list[Result]:
            return [killed(place, f"{number}-{stage}", stage, at, kept)]

        yield Case("kills", f"{number}-{stage}", attack)


def killed(place: Place, name: str, stage: str, at: float, kept: bool) -> Result:
    project = place.copy()
    if not kept:
        remove_outputs(project, stage)
    run = place.run(stage, project, LIMITS, Signal(signal.SIGKILL, at * place.measured[stage].seconds))
    half = compared(name, contents(project, outputs(stage)), place.reference(stage), whole=False)
    if half.outcome is Outcome.SILENT:
        return half._replace(said=f"after the kill: {half.said}")
    met = "met a running stage" if run.status == -signal.SIGKILL else "the stage had ended"
    return started_again(place, name, stage)._replace(said=met)


def started_again(place: Place, name: str, stage: str) -> Result:
    """The next run writes what an undisturbed one writes, and leaves nothing else."""
    project = place.folder / "project"
    run = place.run(stage, project, LIMITS)
    if failed := judge(name, run, stage):
        return failed._replace(outcome=max(failed.outcome, Outcome.TRACEBACK), said=f"started again: {failed.said}")
    partial = [path for path in left_behind(project) if "partial" in path]
    if partial:
        return Result(name, Outcome.SILENT, f"the next run left {partial}")
    return compared(name, contents(project, outputs(stage)), place.reference(stage))


def signal_cases(moments: int) -> Iterator[Case]:
    draw = random.Random(SEED + 1)  # noqa: S311
    for number in STATUS:
        for stage in STAGES:
            for moment in range(moments + 1):
                name, at, fresh = f"{number.name}-{stage}-{moment}", draw.random(), moment == moments

                def attack(
                    place: Place, name: str = name, stage: str = stage, at: float = at, fresh: bool = fresh,
                    number: signal.Signals = number,
                ) -> list[Result]:  # fmt: skip
                    return [stopped(place, name, stage, at, fresh, number)]

                yield Case("signals", name, attack)


def stopped(place: Place, name: str, stage: str, at: float, fresh: bool, number: signal.Signals) -> Result:
    project = place.copy()
    remove_outputs(project, stage)
    seconds = place.measured[stage].seconds + (FRESH_START if fresh else 0)
    of_its_own = place._replace(fresh=fresh or place.fresh)
    run = of_its_own.run(stage, project, LIMITS, Signal(number, at * seconds))
    # Python itself was starting: the signal's own end, of which a shell makes the same status.
    early = run.status == -number and not run.stdout and not run.stderr
    said = None if early else judge(name, run, stage, statuses=(STATUS[number],))
    if said and said.outcome is not Outcome.SENTENCE:
        return said._replace(said=f"{_moment(run, at * seconds, fresh)}: {said.said}")
    half = compared(name, contents(project, outputs(stage)), place.reference(stage), whole=False)
    if half.outcome is Outcome.SILENT:
        return half._replace(said=f"after the signal: {half.said}")
    if said and (kept := left_behind(project)):
        return Result(name, Outcome.SILENT, f"{_moment(run, at * seconds, fresh)}: left behind {kept[:5]}")
    again = started_again(place, name, stage)
    return again if said is None or again.outcome is not Outcome.RIGHT else said


def _moment(run: Run, after: float, fresh: bool) -> str:
    return f"after {after:.2f} s of {run.seconds:.2f}{' in a Python of its own' if fresh else ''}"
