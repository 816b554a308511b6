"""`tuneline summary`: what the pipeline's last run gave, whether it is better, what is wrong, and what to do next."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from tuneline.cli import panel
from tuneline.cli.failure import folder as run_folder
from tuneline.evaluate.thresholds import CUT_OFF, FORGETTING, LOOPS, SURE
from tuneline.formats.metrics import METRICS, Metric, current_names, known_metrics, main_metric
from tuneline.formats.stored import read_object, read_rows
from tuneline.runtime.git import git
from tuneline.runtime.params import read_params
from tuneline.runtime.progress import clock
from tuneline.runtime.stage import SPEED
from tuneline.runtime.storage.stage_map import stage_names
from tuneline.runtime.unsaved import KEEP, is_unsaved

if TYPE_CHECKING:
    from tuneline.evaluate.tasks import TaskResult

DETAILS = (Path("metrics/eval_details.json"), Path("metrics/eval.json"))
"""Values with intervals: the first of them that is there."""
RESULTS = Path("metrics/eval.json")
EXPORT = Path("metrics/export.json")
PREDICTIONS, COUNTS = Path("metrics/predictions.jsonl"), Path("metrics/convert_details.json")
PAGE = "metrics/report.html"
OWN_DATA = "your own: put files into data/raw, and name them in data.sources of params.yaml (docs/data.md)"

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


class Run(NamedTuple):
    """A run of `dvc repro`."""

    ran: list[str]
    reused: list[str]
    seconds: float


class Warned(NamedTuple):
    problem: str
    remedy: str


@app.command("summary")
def main() -> None:
    """Show what the last run gave: better or not, how sure that is, what is wrong, and what to do next."""
    show()


def show(run: Run | None = None) -> None:
    """Print the summary, as a panel where stdout is a terminal; without `run` with the times of each stage's last run."""
    found = next((path for path in DETAILS if path.is_file()), None)
    if found is None:
        raise ValueError(f"{RESULTS} was not found in {Path.cwd()}: run `make repro` in the root of the project")
    metrics = json.loads(found.read_text(encoding="utf-8"))
    if "delta" not in metrics:
        raise ValueError(f"{found} has no intervals: run `make repro`, which writes them")
    for side in ("base", "tuned", "delta"):
        metrics[side] = current_names(metrics[side])
    warned, folder = warnings(metrics), run_folder()
    rows: list[panel.Row] = [
        ("result", result_lines(metrics, warned)),
        ("model", [merged_sentence()]),
        ("look", [f"{folder}{PAGE}  every answer", f"{folder}metrics/data.html  what went in"]),
        ("chat", ["`make demo` in the browser, `tuneline chat` here"]),
        ("next", [*([f"cd {folder}"] if folder else []), *next_commands(read_params())]),
        ("data", [OWN_DATA]),
        ("time", times(run)),
    ]
    panel.show("tuneline", rows, "red" if warned else "green")


def result_lines(metrics: dict[str, Any], warned: list[Warned]) -> list[panel.Line]:
    """The report's headline, the verdict in figures, three metrics, and what is wrong with its remedy."""
    results = task_results(metrics)
    first = headline(metrics, results)
    lines = [panel.Line(text, "bold") for text in (first, verdict(metrics)) if text]
    lines += [panel.Line(text) for text in figure_lines(metrics, results)]
    for problem, remedy in warned:
        lines.append(panel.Line(f"✘ {problem}", "bold red", plain=f"WARNING: {problem}. Remedy: {remedy}."))
        lines.append(panel.Line(f"  {remedy}", "red", plain=""))
    return lines


def task_results(metrics: dict[str, Any]) -> list["TaskResult"]:
    """Figures of each task's items; empty where the answers are not here, as in a clone."""
    if not (PREDICTIONS.is_file() and COUNTS.is_file()):
        return []
    # It imports scipy.
    from tuneline.evaluate.tasks import results_by_task

    return results_by_task(metrics, list(read_rows(PREDICTIONS, {"task": str}, "evaluate")))


def headline(metrics: dict[str, Any], results: list["TaskResult"]) -> str:
    """What comparing with the base says, as in the report; empty without results."""
    if not results:
        return ""
    from tuneline.evaluate.checks import checks
    from tuneline.evaluate.verdict import headline, outcome

    outcomes = {one.task: outcome(one.metric, one.delta) for one in results}
    return headline(outcomes, checks(metrics, results, read_object(COUNTS, {}, "convert")["sources"])).en


def figure_lines(metrics: dict[str, Any], results: list["TaskResult"]) -> list[str]:
    """Three figures: those that decide of each task, as in the report, then the user's own, then what else there is."""
    known = known_metrics(metrics)
    shown = {one.metric: figure(one.metric, one.figures, known, one.items if one.items < metrics["items"] else None)
             for one in results}  # fmt: skip
    answers = ("rouge_l",) if "qa" in metrics["tasks"] and not results else ()
    names = (main_metric(metrics["delta"]), *metrics.get("own", ()), *answers, "nll_per_char", "repetition", "eos_rate")
    for name in names:
        if name in metrics["delta"] and name not in shown:
            shown[name] = figure(name, metrics, known)
    return list(shown.values())[:3]


def figure(name: str, figures: Mapping[str, Any], known: Mapping[str, Metric], items: int | None = None) -> str:
    """A metric of base and tuned model, and their difference with its interval; `items` where it is not of all."""
    base, tuned, delta = (figures[side][name] for side in ("base", "tuned", "delta"))
    metric = known[name]
    unit = {"%": " %", "nats": " nats"}.get(metric.unit, "")
    digits = 2 if abs(delta["value"]) < 10 and metric.unit not in ("%", "0–100", "ratio") else 1
    value = f"base {base['value']:.{digits}f} → tuned {tuned['value']:.{digits}f}{unit}"
    interval = f"{delta['low']:+.{digits}f} … {delta['high']:+.{digits}f}"
    title = metric.title if items is None else f"{metric.title} of {items} items"
    return f"{title}  {value}  {delta['value']:+.{digits}f} (95 % interval {interval})"


def verdict(metrics: dict[str, Any]) -> str:
    """Better or not by the deciding metric, and how sure that is."""
    name = main_metric(metrics["delta"])
    delta, items = metrics["delta"][name], metrics["items"]
    title = METRICS[name].title
    if delta["p"] >= SURE:
        return f"No difference in {title} that {items} held-out items could show (p = {delta['p']:.2g})."
    better = METRICS[name].rank(metrics["tuned"][name]["value"]) > METRICS[name].rank(metrics["base"][name]["value"])
    won = f"{delta['wins']} items better, {delta['losses']} worse"
    how = "Better" if better else "WORSE"
    return f"{how} than the base in {title} on {items} held-out items ({won}, p = {delta['p']:.2g})."


def warnings(metrics: dict[str, Any]) -> list[Warned]:
    """What is wrong with the tuned model's answers, whatever the scores say, each with a remedy."""
    tuned = metrics["tuned"]
    found = []
    ended = tuned["eos_rate"]["value"] if "eos_rate" in tuned else 100.0
    if ended < 100 - CUT_OFF.noted:
        found.append(
            Warned(
                f"{100 - ended:.0f} % of the answers are cut off: they did not end within evaluate.max_new_tokens",
                "train longer (train.max_steps) or on shorter answers; raise evaluate.max_new_tokens if they are that long",
            )
        )
    repeated = tuned["repetition"]["value"] if "repetition" in tuned else 0.0
    if repeated > LOOPS.noted:
        found.append(
            Warned(
                f"answers loop: {repeated:.0f} % of their 4-grams are repeats",
                "train longer (train.max_steps), on shorter answers, or take a larger base (base.source)",
            )
        )
    forgot = (metrics.get("general", {}).get("nll_per_token") or {}).get("delta", {}).get("value", 0.0)
    if forgot > FORGETTING.severe:
        found.append(
            Warned(
                f"it forgets: NLL of general prompts rose by {forgot:.1f} nats per token",
                "lower train.learning_rate or lora.r, train fewer steps, or add general rows to data.sources",
            )
        )
    return found


def merged_sentence() -> str:
    """What export proved of models/merged."""
    if not EXPORT.is_file():
        return "not merged yet: `dvc repro export`"
    report = json.loads(EXPORT.read_text(encoding="utf-8"))
    agreed = f"same next token at {report['greedy_agreement']:.1%} of {report['tokens']:,} positions"
    return f"models/merged  merged = adapter (checked: {agreed}, NLL differs by {report['delta_nll']:.1g})"


def next_commands(params: dict[str, Any]) -> list[str]:
    """Commands to type next: keep the results where nothing holds them yet, an experiment, and its comparison."""
    commands = [KEEP] if is_unsaved(RESULTS) else []
    if params.get("tune", {}).get("method") == "lora":
        value = max(1, params["lora"]["r"] // 2)
        name, change = f"r{value}", f"lora.r={value}"
    else:
        value = params["train"]["learning_rate"] / 2
        name, change = "slower", f"train.learning_rate={value:g}"
    taken = experiments()
    name = next(found for found in (name, *(f"{name}-{number}" for number in range(2, 1000))) if found not in taken)
    return [*commands, f"dvc exp run -n {name} -S {change}", f"tuneline compare HEAD {name}"]


def experiments() -> set[str]:
    """Names of DVC's experiments; none outside of git."""
    try:
        return set(git("for-each-ref", "--format=%(refname:lstrip=-1)", "refs/exps").split())
    except ValueError:
        return set()


def times(run: Run | None) -> list[str]:
    """Time, and which stages were reused or how long each took."""
    paths = {name: SPEED / f"{name}.json" for name in stage_names()}
    seconds = {name: json.loads(path.read_text())["wall_seconds"] for name, path in paths.items() if path.is_file()}
    if run is None:
        longest = sorted(seconds, key=lambda name: -seconds[name])[:3]
        parts = ", ".join(f"{name} {clock(seconds[name])}" for name in longest)
        return [
            f"{clock(sum(seconds.values()))} over all stages when they last ran ({parts}); `tuneline times` has all"
        ]
    if not run.ran:
        return [f"{clock(run.seconds)}; nothing had changed, all {len(run.reused)} stages stay as they were"]
    lines = [
        f"{clock(run.seconds)}; ran {len(run.ran)} of {len(run.ran) + len(run.reused)} stages: {', '.join(run.ran) or 'none'}"
    ]
    if run.reused:
        saved = sum(seconds.get(name, 0.0) for name in run.reused)
        lines.append(f"reused {', '.join(run.reused)} ({clock(saved)} saved)")
    return lines
