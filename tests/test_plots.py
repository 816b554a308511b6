"""DVC's page of plots: drawn without internet, each table once, empty tables not at all, in the reader's language."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.helpers.commands import dvc, git, git_init, python
from tests.helpers.paths import ROOT
from tuneline.cli.plots_page import SCRIPTS, VEGA_LITE
from tuneline.evaluate import tables

PLOTS = {name: plot for one in yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"] for name, plot in one.items()}


def line(number: int, tuned: str, right: str) -> dict:
    scores = {"rouge_l": 50.0 + number, "nll_per_char": 1.0}
    both = {"base": {"rouge_l": 10.0 * number, "nll_per_char": 2.0}, "tuned": scores}
    return {"id": f"s:{number}", "task": "label", "references": [right], "base": "", "tuned": tuned, "scores": both}


LINES = [line(number, *pair) for number, pair in enumerate([("骨科", "骨科"), ("眼科", "骨科"), ("眼科", "眼科")])]
CURVE = "step,loss,learning_rate,grad_norm,validation_loss\n1,3.5,0.0,1.0,\n2,2.5,0.001,1.0,2.75\n"
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
    write_tables(folder, lines)


def write_tables(folder: Path, lines: list[dict]) -> None:
    (folder / "metrics").mkdir()
    (folder / "metrics/loss.csv").write_text(CURVE)
    tables.write_scores(folder / "metrics/scores.csv", LINES)
    tables.write_intervals(folder / "metrics/intervals.csv", results())
    tables.write_per_class(folder / "metrics/per_class.csv", lines)
    tables.write_confusion(folder / "metrics/confusion.csv", lines)


def write_scripts(folder: Path) -> None:
    result = python(folder, "-m", "tuneline.cli.plots_page", env={"PYTHONPATH": str(ROOT)})
    assert result.returncode == 0, f"{result.stderr}: run `make setup`"


def drawn(browser, path: Path, locale: str = "en-US") -> tuple[dict[str, int], bool, str]:
    """(marks in each plot that is shown, axes not counted; whether the page says that nothing can be drawn; its text)."""
    context = browser.new_context(offline=True, locale=locale)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "console", lambda said: wrong.append(said.text) if said.type == "error" and not missing_script(said) else None
    )
    page.on("request", lambda request: None if request.url.startswith("file:") else wrong.append(request.url))
    page.goto(path.as_uri())
    missing = page.locator("#missing").is_visible()
    plots = page.locator("main > div:not([hidden])").all()
    if not missing:
        for plot in plots:
            plot.locator("svg.marks").wait_for()
    found = {plot.get_attribute("id"): plot.locator("svg.marks .role-mark > *").count() for plot in plots}
    text = page.locator("body").text_content()
    context.close()
    assert wrong == []
    return found, missing, text


def missing_script(said) -> bool:
    """Whether the browser complains of the file that `make setup` writes, which the page itself says."""
    return said.location["url"].endswith(SCRIPTS.name) and "ERR_FILE_NOT_FOUND" in said.text


def test_every_plot_is_drawn_without_internet(tmp_path, browser):
    project_of(tmp_path, LINES)
    write_scripts(tmp_path)
    dvc(tmp_path, "plots", "show")
    found, missing, _ = drawn(browser, tmp_path / "dvc_plots/index.html")
    assert set(found) == {"loss", "differences", "gain", "per_class", "confusion"}
    # Three items and the diagonal; of each of four differences a point, an interval and the line at 0; of two classes
    # a point, the base's tick, the line between them and the number of cases.
    assert (found["gain"], found["differences"], found["per_class"]) == (4, 12, 8)
    assert all(found.values()), found
    assert not missing


def test_a_table_without_rows_is_no_box_and_missing_scripts_are_a_sentence(tmp_path, browser):
    project_of(tmp_path, [])
    dvc(tmp_path, "plots", "show")
    page = tmp_path / "dvc_plots/index.html"
    assert drawn(browser, page)[:2] == ({"differences": 0, "loss": 0, "gain": 0}, True)
    write_scripts(tmp_path)
    found, missing, _ = drawn(browser, page)
    assert all(found.values()) and not missing


@pytest.mark.matrix
def test_two_revisions_are_side_by_side_and_a_chinese_reader_reads_chinese(tmp_path, browser):
    project_of(tmp_path, LINES)
    write_scripts(tmp_path)
    for name in ("first", "second"):
        git(tmp_path, "add", "-A", "-f")
        git(tmp_path, "commit", "-q", "--allow-empty", "-m", name)
        git(tmp_path, "tag", name)
    dvc(tmp_path, "plots", "diff", "first", "second")
    page = tmp_path / "dvc_plots/index.html"
    found, _, text = drawn(browser, page)
    assert (found["gain"], found["differences"]) == (7, 24)
    titles = [plot["title"] for plot in PLOTS.values()]
    assert all(title in text for title in (*titles, "first", "second"))
    in_chinese, _, text = drawn(browser, page, "zh-CN")
    assert in_chinese == found
    assert all(chinese()[title] in text and title not in text.partition("</script>")[0] for title in titles)


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_has_its_labels_its_columns_and_a_template_that_vega_takes(tmp_path, name):
    from dvc_render.vega import VegaRenderer
    from vl_convert import vegalite_to_vega

    write_tables(tmp_path, LINES)
    plot = PLOTS[name]
    (path,) = {path for axis in (plot["x"], plot["y"]) if isinstance(axis, dict) for path in axis}
    with (tmp_path / path).open(encoding="utf-8", newline="") as file:
        rows = [row | {"rev": rev} for row in csv.DictReader(file) for rev in ("HEAD", "r8")]
    text = (ROOT / f".dvc/plots/{plot['template']}.json").read_text(encoding="utf-8")
    computed = set(re.findall(r'"as": "(\w+)"', text)) | {"side", "label"}
    named = set(re.findall(r'"field": "(\w+)"|datum\.(\w+)', text))
    assert {one or other for one, other in named} <= set(rows[0]) | computed
    # Its metrics name one axis, and the units the other.
    labels = {"x_label", "y_label"} if name != "differences" else set()
    assert labels == {key for key in ("x_label", "y_label") if plot.get(key)}
    assert labels == {key for key in ("x_label", "y_label") if f"<DVC_METRIC_{key.upper()}>" in text}
    columns = {
        axis: one if isinstance(one, str) else next(iter(one.values())) for axis, one in plot.items() if axis in "xy"
    }
    about = plot | columns | {"template_dir": str(ROOT / ".dvc/plots")}
    content, said = VegaRenderer(rows, name, **about).get_partial_filled_template()
    spec = filled(content, said["anchor_definitions"])
    assert "<DVC_METRIC" not in json.dumps(spec)
    vegalite_to_vega(spec, vl_version=VEGA_LITE)


def filled(value, anchors: dict):
    """As VS Code's extension fills a template: a value that is an anchor, whole."""
    if isinstance(value, dict):
        return {key: filled(one, anchors) for key, one in value.items()}
    if isinstance(value, list):
        return [filled(one, anchors) for one in value]
    found = anchors.get(value, value) if isinstance(value, str) else value
    return int(found) if isinstance(found, str) and found.isdigit() else found


def chinese() -> dict[str, str]:
    """What the page says instead, to a reader of Chinese."""
    page = (ROOT / ".dvc/plots/page.html").read_text(encoding="utf-8")
    return dict(re.findall(r'^  "(.+?)":\s+"(.+)",$', page, re.MULTILINE))


def test_all_that_plots_say_is_there_in_chinese():
    said = {plot[key] for plot in PLOTS.values() for key in ("title", "x_label", "y_label") if key in plot}
    for name in {plot["template"] for plot in PLOTS.values()}:
        text = (ROOT / f".dvc/plots/{name}.json").read_text(encoding="utf-8")
        said |= set(re.findall(r'"(?:subtitle|title|name)": "([^<"]+)"', text))
        said |= {one for one in re.findall(r'"calculate": "(.+?)", "as"', text) if " minus " in one}
    axes = {f"tuned model minus base, {unit}" for unit in {*tables.UNITS.values()}}
    assert {*chinese()} == said | axes


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
