"""`tuneline served`: whether the model behind a server says what the tuned one said, and why where it does not."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuneline.runtime.errors import EXPECTED, sentence

if TYPE_CHECKING:
    from tuneline.endpoint.client import Endpoint
    from tuneline.served.check import Checked

FIGURES = Path("metrics/served.json")
STDOUT = "-"
FEW = 3
"""Faults of one finding whose remedies are shown in the terminal; the page has all."""
UNASKED = 2
"""Exit status of a server that could not be asked."""

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command("served")
def main(
    url: Annotated[str, typer.Option(help="Of an OpenAI-compatible server, such as http://localhost:8000/v1.")],
    model: Annotated[str | None, typer.Option(help="Its name there; may be left out where the server has one.")] = None,
    items: Annotated[int | None, typer.Option(min=1, help="The first N held-out items alone.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 8,
    min_equal: Annotated[int | None, typer.Option(min=0, help="Answers that have to be equal, for CI.")] = None,
    json_file: Annotated[
        Path, typer.Option("--json", help="All figures; the page goes beside it; - is stdout.")
    ] = FIGURES,
    api_key_env: Annotated[
        str | None, typer.Option(help="Name of the environment variable that holds the key.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for one answer.")] = 600.0,
    revisions: Annotated[int, typer.Option(min=0, help="Earlier results to look for the same answers in.")] = 20,
    trial: Annotated[bool, typer.Option(help="Plant doubtful faults in the models here, and compare.")] = True,
) -> None:
    """Ask a server the held-out items, compare with what the tuned model said, and name the cause where they differ.

    \b
    tuneline served --url http://localhost:8000/v1
    tuneline served --url http://localhost:11434 --model mymodel --min-equal 48

    Reads data/processed/heldout.jsonl and metrics/predictions.jsonl; writes metrics/served.json and metrics/served.html.
    Exit status: 0 it says the same, 1 it does not, 2 it could not be asked.
    """
    with exit_unasked():
        from tuneline.served.check import Effort, check
        from tuneline.served.expected import read_project

        with connected(url, model, api_key_env, timeout, concurrency) as server:
            known = server.server()
            about: dict[str, Any] = {
                "url": server.url,
                "model": server.model,
                "server": known.kind,
                "version": known.version,
            }
            project = read_project(items)
            checked = check(server, project, Effort(concurrency, revisions, trial))
            about["left_out"] = sorted(server.unknown)
    from tuneline.runtime.atomic import atomic_output, write_json
    from tuneline.served.page import page
    from tuneline.served.results import status, to_values

    values = to_values(project, checked, about)
    if str(json_file) == STDOUT:
        print(json.dumps(values, ensure_ascii=False, indent=2))
    else:
        write_json(json_file, values)
        with atomic_output(json_file.with_suffix(".html")) as partial:
            partial.write_text(page(project, checked, about), encoding="utf-8")
        show(checked, json_file)
    raise typer.Exit(status(checked.verdict, checked.evidence.answers.equal, checked.scores.worse, min_equal))


@contextmanager
def exit_unasked() -> Iterator[None]:
    """Exit with status 2 and one sentence where the server could not be asked, or the project is not ready."""
    try:
        yield
    except EXPECTED as error:
        if os.environ.get("TUNELINE_TRACEBACK"):
            raise
        typer.echo(f"served: {sentence(error)}", err=True)
        raise typer.Exit(UNASKED) from None


@contextmanager
def connected(
    url: str, model: str | None, api_key_env: str | None, timeout: float, concurrency: int
) -> Iterator["Endpoint"]:
    """A client of the server. Raises ValueError for a missing key, and for a model that has to be chosen."""
    from tuneline.endpoint.client import Endpoint
    from tuneline.evaluate.endpoint.sides import api_key

    with Endpoint(url, model or "", api_key(api_key_env, "--api-key-env"), timeout, connections=concurrency) as server:
        if model is None:
            names = server.models()
            if len(names) != 1:
                some = server.transport.shown(", ".join(names[:20]))
                raise ValueError(f"{server.url} has {len(names)} models ({some}): choose one with --model")
            server.model = names[0]
        yield server


def show(checked: "Checked", written: Path) -> None:
    """Verdict, remedies, what could be compared, and scores."""
    from rich.console import Console
    from rich.table import Table

    from tuneline.served.faults import FAULTS
    from tuneline.served.results import headline, knowledge, score_lines, sentences

    console = Console(highlight=False, markup=False)
    tones = {"equal": "bold green", "near": "bold green", "different": "bold yellow", "fault": "bold red"}
    console.print(headline(checked).en, style=tones[checked.verdict.outcome])
    for finding in checked.verdict.findings:
        first, *others = sentences(finding)
        console.print(first.en)
        for number, fault in enumerate(finding.faults):
            if others:
                console.print(f"  - {others[number].en}")
            if len(finding.faults) <= FEW:
                console.print(f"    {FAULTS[fault].remedy.en}", style="dim")
    for line in knowledge(checked):
        console.print(line.en)
    table = Table(box=None, pad_edge=False)
    for number, title in enumerate(("metric", "tuned", "served", "difference", "95 % interval", "p", "won/tied/lost")):
        table.add_column(title, justify="right" if number else "left")
    for cells in score_lines(checked):
        table.add_row(*cells)
    console.print(table)
    console.print(f"{written}, {written.with_suffix('.html')}")
