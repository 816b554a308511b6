"""`tuneline study`: seeds × shares of the data × parameters as DVC experiments, and a page of what is more than luck."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from tuneline.cli.study.estimate import estimate

if TYPE_CHECKING:
    from tuneline.study.plan import Run
    from tuneline.study.schedule import Times

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
PAGES = Path("metrics/study")
LOGS = Path(".dvc/tmp/study")
SEVERAL = ("--seeds", "--shares", "-S", "--set-param")
"""Options that take several values."""


class SeveralValues(TyperCommand):
    """A command some of whose options take several values each."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, spread(args))


@app.command(cls=SeveralValues)
def study(
    name: Annotated[str, typer.Option(help="Of the study, its experiments and its page.")] = "study",
    seeds: Annotated[list[str] | None, typer.Option(help="Of training: --seeds 17 18 19.")] = None,
    shares: Annotated[list[str] | None, typer.Option(help="Of the training rows: --shares 0.25 0.5 1.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("-S", "--set-param", help="section.key=8,16, or section.key=1e-4..1e-3.")
    ] = None,
    random: Annotated[int | None, typer.Option(help="Draw so many configurations, in place of the grid.")] = None,
    budget: Annotated[str | None, typer.Option(help="Time for all runs, such as 60m or 8h.")] = None,
    metric: Annotated[str | None, typer.Option(help="To judge by; else the one of the task.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the runs and their times, and run none.")] = False,
) -> None:
    """Run every seed with every share of the rows and every configuration, and say what is more than luck.

    Each run is an experiment of DVC (`dvc exp show`) in a temporary folder. The same command again runs only what is missing,
    whatever ended the one before. Writes studies/NAME.yaml and metrics/study/NAME.html and .json. The parameters as they are
    in params.yaml are always among the configurations: the others are compared with them.
    """
    from tuneline.data.config import Data
    from tuneline.evaluate.config import Evaluate
    from tuneline.runtime.locks import exclusive_lock
    from tuneline.runtime.machine import choose_accelerator
    from tuneline.runtime.params import load, read_params
    from tuneline.study.plan import check_name, make_runs, write_plan
    from tuneline.study.schedule import read_budget
    from tuneline.study.scores import check_metric, tasks_there
    from tuneline.train.config.train import Train

    choose_accelerator()
    params, name = read_params(), check_name(name)
    drawn = configurations(changes or [], random)
    numbers = read_numbers(seeds or [], "seeds", int) or [load(Train).seed]
    parts = read_numbers(shares or [], "shares", float) or [load(Data).train_share]
    limit = None if budget is None else read_budget(budget)
    check_metric(metric, load(Evaluate).metrics, tasks_there())
    runs = make_runs(drawn, parts, numbers)
    with nullcontext() if dry_run else exclusive_lock(LOGS / name / ".lock", f"the study {name} is run"):
        if not dry_run:
            asked = {"seeds": numbers, "shares": parts, "changes": changes or [], "random": random}
            print(f"study: {len(runs)} runs in {write_plan(name, asked, runs)}", flush=True)
        Study(name, runs, params, limit, metric).go(dry_run=dry_run)


class Study:
    """A study that is planned, run and written down."""

    def __init__(
        self, name: str, runs: "Sequence[Run]", params: dict[str, Any], budget: float | None, metric: str | None
    ) -> None:
        from tuneline.study.experiments import finished
        from tuneline.study.schedule import devices

        self.name, self.runs, self.params, self.budget, self.metric = name, runs, params, budget, metric
        self.folder = LOGS / name
        self.revisions = finished(name, runs)
        self.workers = devices(params["deepspeed"]["processes"])
        self.seconds: dict[str, float] = {}
        """That runs which have just ended took."""
        self.failed = 0

    def go(self, *, dry_run: bool) -> None:
        """Show the plan, run what is missing, and write the page. Ends with status 1 where a run failed."""
        from tuneline.study.experiments import remove_leftovers
        from tuneline.study.plan import describe
        from tuneline.study.schedule import Schedule, fitting

        waiting = [run for run in self.runs if run.key not in self.revisions]
        self.check_measured([run for run in self.runs if run.key in self.revisions][:1])
        times = estimate(trying=dry_run or self.budget is not None) if waiting else None
        found = {run.key: times.of(run, self.params) for run in waiting} if times else {}
        expected = {key: seconds for key, seconds in found.items() if seconds is not None}
        if self.budget is not None and len(expected) < len(waiting):
            raise ValueError(
                f"--budget needs times, and there are none for {len(waiting) - len(expected)} of {len(waiting)} runs: run "
                "`dvc repro` (or `dvc repro tokenize`) first"
            )
        chosen, left = (
            (waiting, []) if self.budget is None else fitting(waiting, expected, self.budget, len(self.workers))
        )
        print("\n".join(self.table(expected, {run.key for run in left}, times)), flush=True)
        if dry_run:
            return
        if removed := remove_leftovers(self.runs):
            print(f"study: {removed} folders of runs that were killed are removed", flush=True)
        begun = time.monotonic()
        schedule = Schedule(self.name, chosen, self.workers, self.folder)
        for run, revision, seconds in schedule.run(self.still_fits(expected, begun)):
            self.revisions[run.key], self.seconds[run.key] = revision, seconds
            print(f"study: {len(self.revisions)} of {len(self.runs)}: {describe(run)} took {seconds:.0f} s", flush=True)
            self.check_measured([run])
        self.failed, left = len(schedule.failed), [*schedule.waiting, *left]
        for run in left:
            print(f"study: left out by the budget: {describe(run)}", flush=True)
        self.write(left)
        if self.failed:
            raise ValueError(
                f"{self.failed} of {len(self.runs)} runs failed, as said above; the same command runs them again"
            )

    def check_measured(self, runs: "Sequence[Run]") -> None:
        """Raises ValueError for a --metric that a finished run does not have, before the others cost hours."""
        from tuneline.study.plan import describe
        from tuneline.study.results import read_result

        for run in runs if self.metric is not None else ():
            found = read_result(run, self.revisions[run.key], self.folder, self.seconds.get(run.key)).scores
            if self.metric not in found:
                raise ValueError(
                    f"--metric is {self.metric!r}, which {describe(run)} has not: expected one of {', '.join(found)}"
                )

    def still_fits(self, expected: Mapping[str, float], begun: float) -> "Callable[[Run], bool]":
        """Whether a run may begin now: runs may have taken longer than was expected."""

        def fits(run: "Run") -> bool:
            return self.budget is None or time.monotonic() - begun + expected[run.key] <= self.budget

        return fits

    def table(self, expected: Mapping[str, float], left: set[str], times: "Times | None") -> list[str]:
        """The runs, with what each will take."""
        from tuneline.cli.plan import clock
        from tuneline.study.experiments import COUNTS
        from tuneline.study.plan import describe

        lines = [f"{'':>4}  {'expected':>12}  run"]
        for number, run in enumerate(self.runs, start=1):
            took = "finished" if run.key in self.revisions else clock(expected[run.key]) if run.key in expected else "?"
            lines.append(f"{number:>4}  {took:>12}  {describe(run)}{' (beyond the budget)' if run.key in left else ''}")
        missing = sum(seconds for key, seconds in expected.items() if key not in left)
        unknown = sum(run.key not in expected and run.key not in self.revisions for run in self.runs)
        if times and unknown:
            lines.append(f"no estimate of {unknown}: epochs and steps compare by {COUNTS}, so run `dvc repro tokenize`")
        elif times:
            lines.append(
                f"together {clock(missing / len(self.workers))}, {len(self.workers)} at a time, {times.source}"
            )
        return lines

    def write(self, left: "Sequence[Run]") -> None:
        """The page and its figures, of all runs that are finished."""
        from tuneline.runtime.atomic import atomic_output, write_json
        from tuneline.study.analysis import analyse, to_json
        from tuneline.study.page import State, left_out_sentences, page
        from tuneline.study.results import Table, read_result

        done = [run for run in self.runs if run.key in self.revisions]
        if not done:
            print("study: no run is finished, so there is no page")
            return
        results = [read_result(run, self.revisions[run.key], self.folder, self.seconds.get(run.key)) for run in done]
        found = analyse(Table(results), self.metric)
        state = State(self.name, len(done), left, self.failed)
        PAGES.mkdir(parents=True, exist_ok=True)
        write_json(PAGES / f"{self.name}.json", to_json(found) | {"runs": len(done), "left_out": len(left)})
        with atomic_output(PAGES / f"{self.name}.html") as partial:
            partial.write_text(page(found, state), encoding="utf-8")
        for sentence in left_out_sentences(found):
            print(f"study: {sentence.en}")
        print(f"study: {len(done)} of {len(self.runs)} runs in {PAGES / self.name}.html")


def configurations(changes: Sequence[str], random: int | None) -> list[Any]:
    """What is compared with the parameters as they are."""
    from tuneline.study.space import grid, random_search, read_space

    space = read_space(changes)
    if random is None:
        return grid(space)
    if random < 1:
        raise ValueError(f"--random is {random}, expected a number of configurations above 0")
    return list(random_search(space, random))


def spread(arguments: Sequence[str]) -> list[str]:
    """`--seeds 17 18` as `--seeds 17 --seeds 18`, which the parser takes."""
    result: list[str] = []
    option, values = "", 0
    for text in arguments:
        if text.startswith("-"):
            option, values = text if text in SEVERAL else "", 0
        else:
            result += [option] if option and values else []
            values += 1
        result.append(text)
    return result


def read_numbers(texts: Sequence[str], name: str, kind: Callable[[str], Any]) -> list[Any]:
    """Different numbers of an option, also with commas. Raises ValueError for what is none, or no seed or share."""
    found = []
    for text in (one for given in texts for one in given.split(",")):
        try:
            value = kind(text)
        except ValueError:
            raise ValueError(f"--{name} has {text!r}, expected numbers") from None
        if kind is float and not 0 < value <= 1:
            raise ValueError(f"--shares has {text}, expected shares above 0 and up to 1")
        found.append(value)
    return list(dict.fromkeys(found))
