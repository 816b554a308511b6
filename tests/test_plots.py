"""DVC's page of plots: drawn without internet, each table once, empty tables not at all."""

import shutil
from pathlib import Path

from tests.helpers.commands import dvc, git_init, python
from tests.helpers.paths import ROOT
from tuneline.cli.plots_page import SCRIPTS
from tuneline.evaluate import tables


def line(number: int, tuned: str, right: str) -> dict:
    scores = {"rouge_l": 50.0 + number, "nll_per_char": 1.0}
    both = {"base": {"rouge_l": 10.0 * number, "nll_per_char": 2.0}, "tuned": scores}
    return {"id": f"s:{number}", "task": "label", "references": [right], "base": "", "tuned": tuned, "scores": both}


LINES = [line(number, *pair) for number, pair in enumerate([("骨科", "骨科"), ("眼科", "骨科"), ("眼科", "眼科")])]
SIDE = {"value": 1.0, "low": 0.5, "high": 1.5}
DELTA = {"value": -0.5, "low": -0.8, "high": -0.2, "p": 0.01}


def results() -> dict:
    change = {"nll_per_token": {"base": SIDE, "tuned": SIDE, "delta": DELTA | {"value": 0.25}}}
    named = ("rouge_l", "nll_per_char", "length_ratio")
    return {"base": dict.fromkeys(named, SIDE), "tuned": dict.fromkeys(named, SIDE), "general": change} | {
        "delta": dict.fromkeys(named, DELTA)
    }


def project_of(folder: Path, lines: list[dict]) -> None:
    """What `dvc plots show` reads, without a model."""
    git_init(folder)
    dvc(folder, "init", "--quiet")
    for name in ("dvc.yaml", ".dvc/config"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / ".dvc/plots", folder / ".dvc/plots", ignore=shutil.ignore_patterns(SCRIPTS.name))
    (folder / "metrics").mkdir()
    (folder / "metrics/loss.csv").write_text("step,loss\n1,3.5\n2,2.5\n")
    tables.write_scores(folder / "metrics/scores.csv", LINES)
    tables.write_intervals(folder / "metrics/intervals.csv", results())
    tables.write_per_class(folder / "metrics/per_class.csv", lines)
    tables.write_confusion(folder / "metrics/confusion.csv", lines)


def write_scripts(folder: Path) -> None:
    result = python(folder, "-m", "tuneline.cli.plots_page", env={"PYTHONPATH": str(ROOT)})
    assert result.returncode == 0, f"{result.stderr}: run `make setup`"


def drawn(browser, path: Path) -> tuple[dict[str, int], bool]:
    """(marks in each plot that is shown, axes not counted; whether the page says that nothing can be drawn)."""
    context = browser.new_context(offline=True)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith("file:") else wrong.append(request.url))
    page.goto(path.as_uri())
    missing = page.locator("#missing").is_visible()
    plots = page.locator("main > div:not([hidden])").all()
    if not missing:
        for plot in plots:
            plot.locator("svg.marks").wait_for()
    found = {plot.get_attribute("id"): plot.locator("svg.marks .role-mark > *").count() for plot in plots}
    context.close()
    assert wrong == []
    return found, missing


def test_every_plot_is_drawn_without_internet(tmp_path, browser):
    project_of(tmp_path, LINES)
    write_scripts(tmp_path)
    dvc(tmp_path, "plots", "show")
    found, missing = drawn(browser, tmp_path / "dvc_plots/index.html")
    assert set(found) == {"loss", "differences", "gain", "per_class", "confusion"}
    # Three items and the diagonal; of each of four differences a point, an interval and the line at 0; of two classes
    # a point, the base's tick and the line between them.
    assert (found["gain"], found["differences"], found["per_class"]) == (4, 12, 6)
    assert all(found.values()), found
    assert not missing


def test_a_table_without_rows_is_no_box_and_missing_scripts_are_a_sentence(tmp_path, browser):
    project_of(tmp_path, [])
    dvc(tmp_path, "plots", "show")
    page = tmp_path / "dvc_plots/index.html"
    assert drawn(browser, page) == ({"loss": 0, "differences": 0, "gain": 0}, True)
    write_scripts(tmp_path)
    found, missing = drawn(browser, page)
    assert all(found.values()) and not missing


def test_differences_share_an_axis_by_unit_and_say_which_way_is_better(tmp_path):
    tables.write_intervals(tmp_path / "intervals.csv", results())
    rows = (tmp_path / "intervals.csv").read_text(encoding="utf-8").splitlines()
    assert rows == [
        "metric,unit,base,tuned,difference,low,high,p",
        "ROUGE-L ↑,points of 100,1.0,1.0,-0.5,-0.8,-0.2,0.01",
        "NLL per character ↓,nats,1.0,1.0,-0.5,-0.8,-0.2,0.01",
        '"Length, of the reference\'s",ratio of lengths,1.0,1.0,-0.5,-0.8,-0.2,0.01',
        "NLL on general prompts ↓,nats,1.0,1.0,0.25,-0.8,-0.2,0.01",
    ]
