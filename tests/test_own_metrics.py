"""Metrics of the user's own: what a function may be and give, what is said of one that is wrong, and how they are compared."""

import json
import os
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.helpers import evaluated
from tests.helpers.paths import ROOT
from tuneline.cli.compare import Revision, against, to_text
from tuneline.evaluate.answering import Answered, Questions
from tuneline.evaluate.compare import compare
from tuneline.evaluate.config import Evaluate
from tuneline.evaluate.figures import figures
from tuneline.evaluate.own import comparison, kept
from tuneline.evaluate.own.comparison import NOTHING, of_all_rows, of_items
from tuneline.evaluate.own.metrics import OwnMetrics, ready_metrics
from tuneline.evaluate.own.revisions import own_of_both
from tuneline.evaluate.page.figures import shown
from tuneline.evaluate.page.glossary import entries_of
from tuneline.evaluate.report import report
from tuneline.evaluate.statistics import mean_interval, paired, share_interval
from tuneline.evaluate.tables import write_intervals
from tuneline.formats.metrics import Metric, known_metrics
from tuneline.runtime.code import changed_files
from tuneline.runtime.evaluation_folder import FOLDER, STAGES, check_files, files_of_stages
from tuneline.runtime.hashing import file_sha256
from tuneline.scoring.own import MetricError, load_metrics, number, row_of

RECORD = {"id": "triage:1", "task": "label", "source": "triage"}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evaluation").mkdir()
    return tmp_path / "evaluation"


def metric(folder: Path, text: str, name: str = "score", file: str = "mine.py"):
    (folder / file).write_text(text, encoding="utf-8")
    (found,) = load_metrics([f"{file}:{name}"])
    return found


def value(one, prediction: str = "儿科", references: tuple[str, ...] = ("儿科",)):
    return one.value(prediction, "挂哪个科？", references, RECORD)


def test_the_examples_are_metrics_and_give_what_they_say():
    named, worst = load_metrics([f"example_metrics.py:{name}" for name in ("names_department", "worst_department")],
                                ROOT / "evaluation")  # fmt: skip
    assert [value(named, said) for said in ("去儿科看看", "骨科", "")] == [100, 0, 0]
    assert named.value("去儿科", "", ["儿科"], {"id": "q:1", "task": "qa"}) is None
    assert (named.corpus, worst.corpus, named.unit, named.title) == (False, True, "%", "Department named")
    right, wrong = (row_of(said, "", ["儿科"], RECORD) for said in ("儿科", "骨科"))
    other = row_of("眼科", "", ["眼科"], RECORD)
    assert worst.corpus_value([right, wrong, other]) == 50
    assert worst.corpus_value([row_of("好", "", ["好"], {"id": "q:1", "task": "qa"})]) is None
    assert named.version == worst.version == file_sha256(ROOT / "evaluation/example_metrics.py")[:12]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def score(prediction, references): return len(references)", 2),
        ("def score(prediction, reference): return prediction == reference", 1),
        ("def score(*, question, prediction, record): return len(question + record['task'])", 10),
        ("def score(prediction, weight=3, **more): return weight", 3),
        ("score = lambda prediction, *rest: 7", 7),
        ("class Judge:\n    def __call__(self, prediction): return 4\nscore = Judge()", 4),
        ("from functools import partial\ndef scaled(prediction, by): return by\nscore = partial(scaled, by=5)", 5),
    ],
)
def test_a_function_is_given_what_its_parameters_name(folder, text, found):
    assert value(metric(folder, text), references=("儿科", "内科"), prediction="儿科") == found


@pytest.mark.parametrize(
    ("given", "unit", "found"),
    [
        (None, "", None),
        (3, "", 3.0),
        (0.25, "%", 0.25),
        (True, "", 1.0),
        (True, "%", 100.0),
        (True, "0–100", 100.0),
        (False, "%", 0.0),
        (np.float32(0.5), "", 0.5),
        (np.int64(4), "", 4.0),
        (np.bool_(True), "%", 100.0),
        (np.array(2.5), "", 2.5),
    ],
)
def test_what_is_a_number(given, unit, found):
    assert number(given, unit) == found


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("float('nan')", "nan"),
        ("float('-inf')", "-inf"),
        ("10 ** 400", "inf"),
        ("'0.5'", "'0.5' (str)"),
        ("[1]", "[1] (list)"),
        ("1j", "1j (complex)"),
        ("__import__('numpy').array([1.0, 2.0])", "array([1., 2.]) (ndarray)"),
    ],
)
def test_what_is_no_number_is_refused_with_file_line_and_item(folder, given, said):
    one = metric(folder, f"\n\ndef score(prediction):\n    return {given}\n")
    with pytest.raises(MetricError) as error:
        value(one)
    assert str(error.value) == (
        f"evaluation/mine.py, line 3: score gave {said} for item triage:1, expected a number, or None where nothing counts"
    )


def test_an_error_names_the_innermost_line_of_the_folder_and_the_item(folder):
    (folder / "words.py").write_text(
        "import json\n\n\ndef read(text):\n    return json.loads(text)\n", encoding="utf-8"
    )
    one = metric(folder, "from words import read\n\n\ndef score(prediction):\n    return read(prediction)\n")
    with pytest.raises(
        MetricError, match=r"^evaluation/words\.py, line 5: score failed on item triage:1: JSONDecodeError: "
    ):
        value(one, "{")
    ending = metric(folder, "import sys\ndef score(prediction):\n    sys.exit('done')\n")
    with pytest.raises(
        MetricError, match=r"evaluation/mine\.py, line 3: score failed on item triage:1: SystemExit: done"
    ):
        value(ending)


@pytest.mark.parametrize(
    ("text", "spec", "said"),
    [
        ("def score(prediction: return 1", "mine.py:score", r"evaluation/mine\.py, line 1: "),
        ("x = 1\nimport no_such_library\n", "mine.py:score", r"mine\.py, line 2: ModuleNotFoundError: No module"),
        ("x = 1\n1 / 0\n", "mine.py:score", r"evaluation/mine\.py, line 2: ZeroDivisionError: division by zero"),
        ("def other(prediction): return 1", "mine.py:score", r"mine\.py has no function score, expected one of other"),
        ("score = 3", "mine.py:score", r"evaluation/mine\.py has a int, and no function, called score"),
        ("def score(prediction): return 1", "yours.py:score", r"evaluation/yours\.py is not there: put the file into"),
        ("def score(prediction): return 1", "../mine.py:score", r"evaluation/\.\./mine\.py lies elsewhere"),
        ("def score(prediction): return 1", "mine.score", r"'mine\.score' names no metric, expected a file and its function"),
        ("def rouge_l(prediction): return 1", "mine.py:rouge_l", r"mine\.py:rouge_l: rouge_l is a figure of Tuneline's own"),
        ("def items(prediction): return 1", "mine.py:items", r"items is a figure of Tuneline's own: give the function another"),
        ("\ndef score(answer): return 1", "mine.py:score", r"line 2: score takes \(answer\), expected prediction and"),
        ("def score(rows, prediction): return 1", "mine.py:score", r"or rows alone for one of all"),
        ("def score(references): return 1", "mine.py:score", r"score takes \(references\), expected prediction"),
        ("def score(prediction, /): return 1", "mine.py:score", r"score takes \(prediction\), expected"),
        ("score = lambda prediction: 1\nscore.unit = 5", "mine.py:score", r"score\.unit is 5, expected text on one line"),
        ("score = lambda prediction: 1\nscore.higher_is_better = 'no'", "mine.py:score", r"is 'no', expected True or False"),
        ("# \xe9 \udce9", "mine.py:score", r"evaluation/mine\.py is not UTF-8"),
    ],
)  # fmt: skip
def test_what_is_no_metric_is_told_in_a_sentence(folder, text, spec, said):
    (folder / "mine.py").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=said) as error:
        load_metrics([spec])
    assert "\n" not in str(error.value)


def test_all_that_is_wrong_is_told_together_and_two_of_one_name_are(folder):
    (folder / "a.py").write_text("def score(prediction): return 1\n")
    (folder / "b.py").write_text("def score(prediction): return 1\n")
    with pytest.raises(
        ValueError, match=r"^c\.py:x: .*|evaluation/c\.py is not there.*; a\.py:score and b\.py:score have one name"
    ):
        load_metrics(["a.py:score", "c.py:x", "b.py:score"])


def test_a_changed_file_is_run_as_it_is_now_also_within_a_second(folder):
    (folder / "words.py").write_text("RIGHT = 1\n")
    one = metric(folder, "from words import RIGHT\ndef score(prediction): return RIGHT\n")
    stat = (folder / "words.py").stat()
    assert value(one) == 1
    (folder / "words.py").write_text("RIGHT = 2\n")
    os.utime(folder / "words.py", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (again,) = load_metrics(["mine.py:score"])
    assert value(again) == 2
    assert again.version != one.version
    assert not list(folder.rglob("*.pyc"))


def test_what_a_function_does_to_its_record_is_nothing_to_the_next(folder):
    one = metric(folder, "def score(prediction, record):\n    record['task'] = 'x'\n    return 1\n")
    assert (value(one), RECORD["task"]) == (1, "label")


PARAMS = "evaluate:\n  metrics: [mine.py:score]\n  general: general.jsonl\ntrain:\n  eval_metrics: [rouge_l, curve.py:score]\n"


def test_what_a_function_does_to_its_rows_is_nothing_to_the_next_call(folder):
    (folder / "mine.py").write_text(
        "def total(rows):\n"
        "    for row in rows:\n"
        "        row['prediction'] += 'x'\n"
        "        row['references'].append('y')\n"
        "    return sum(len(row['prediction']) + len(row['references']) for row in rows)\n"
    )
    (metric,) = load_metrics(["mine.py:total"])
    rows = [row_of("ab", "q", ["r"], {"id": "s:1", "task": "qa"})]
    assert [metric.corpus_value(rows) for _ in range(3)] == [5, 5, 5]
    assert rows == [row_of("ab", "q", ["r"], {"id": "s:1", "task": "qa"})]


def test_stages_depend_on_the_files_that_their_keys_name_and_on_what_these_use(folder):
    Path("params.yaml").write_text(PARAMS)
    texts = {
        "mine.py": "import words\nTERMS = open('evaluation/terms.txt')\ndef score(prediction): return 1\n",
        "words.py": "from pathlib import Path\nX = Path(__file__).with_name('list.txt')\n",
        "terms.txt": "a\n", "list.txt": "b\n", "general.jsonl": "{}\n", "curve.py": "score = len\n", "spare.py": "x = 1\n",
    }  # fmt: skip
    for name, text in texts.items():
        (folder / name).write_text(text)
    found = files_of_stages()
    names = {stage: sorted(Path(name).name for name in files) for stage, files in found.items()}
    assert names == {
        "evaluate": ["general.jsonl", "list.txt", "mine.py", "terms.txt", "words.py"],
        "predict_base": ["general.jsonl"],
        "train": ["curve.py"],
    }
    assert changed_files(found["evaluate"]) == []
    # A docstring is shown, and so it counts here.
    (folder / "words.py").write_text('"""Words."""\n' + texts["words.py"])
    assert changed_files(found["evaluate"]) == ["evaluation/words.py"]


def test_the_folders_readme_names_every_key_and_its_stages():
    lines = (ROOT / FOLDER / "README.md").read_text(encoding="utf-8").splitlines()
    for (section, key), stages in STAGES.items():
        (line,) = [line for line in lines if line.startswith(f"| `{section}.{key}` |")]
        assert line.endswith(f"| {', '.join(f'`{stage}`' for stage in stages)} |")


def test_the_first_stage_finds_what_is_not_there(folder):
    Path("params.yaml").write_text(PARAMS)
    (folder / "mine.py").write_text("def other(prediction): return 1\n")
    (folder / "curve.py").write_text("def score(:\n")
    with pytest.raises(ValueError, match="params.yaml") as error:
        check_files()
    for said in (
        "evaluate.metrics names mine.py:score: evaluation/mine.py has no score, expected one of other",
        "evaluate.general names general.jsonl: evaluation/general.jsonl is not there",
        "train.eval_metrics names curve.py:score: evaluation/curve.py, line 1",
    ):
        assert said in str(error.value)
    Path("params.yaml").write_text("evaluate: 3\n")
    check_files()
    assert files_of_stages() == {"evaluate": {}, "predict_base": {}, "train": {}}


def test_the_section_takes_functions_alone():
    plain = {"max_new_tokens": 1, "max_thinking_tokens": 1, "batch_size": 1, "dtype": "auto", "constrain": None}
    assert Evaluate(**plain).metrics == []
    with pytest.raises(ValueError, match="'rouge_l' is none"):
        Evaluate(**plain, metrics=["rouge_l"])


def test_metrics_are_tried_before_anything_is_answered(folder):
    text = "import random\ndef first(prediction): return ord(prediction[0])\ndef dice(prediction): return random.random()\n"
    (folder / "mine.py").write_text(text)
    records = evaluated.records()[:5]
    with pytest.raises(ValueError, match="nothing was answered yet") as error:
        ready_metrics(["mine.py:first", "mine.py:dice"], records)
    assert (
        "line 2: first failed on item s:00: IndexError: string index out of range (tried with an empty answer)"
        in str(error.value)
    )
    assert "(and 2 more)" in str(error.value)
    assert "expected the same number each time" in str(error.value)


MINE = '''
def length(prediction, record):
    """Characters of an answer to a complaint."""
    return len(prediction) if record["task"] == "label" else None


length.unit, length.higher_is_better = "characters", False


def spread(rows):
    """Different answers."""
    return len({row["prediction"] for row in rows if row["record"]["source"] == "s"})
'''


@pytest.fixture(scope="module")
def answered():
    """Rows of an evaluation without own metrics."""
    return evaluated.evaluated()


@pytest.fixture
def scored(folder, answered, monkeypatch):
    """Own metrics of an evaluation, its rows, and its details."""
    monkeypatch.setattr(comparison, "RESAMPLES", 49)
    (folder / "mine.py").write_text(MINE)
    rows = deepcopy(answered)
    own = ready_metrics(["mine.py:length", "mine.py:spread"], evaluated.records())
    own.add_scores(rows)
    general = {"general": {"nll_per_token": None}}
    return own, rows, compare(rows, own=own.figures) | own.describe(rows) | general


def test_they_are_compared_and_described_as_ours_are(scored, answered):
    own, rows, details = scored
    lengths = [[len(row[side]) for row in rows if row["task"] == "label"] for side in ("base", "tuned")]
    assert rows[0]["scores"]["tuned"]["length"] == len(rows[0]["tuned"])
    assert rows[30]["scores"]["tuned"]["length"] is None
    assert "spread" not in rows[0]["scores"]["tuned"]
    assert details["base"]["length"] == mean_interval(lengths[0]) | {"items": 24}
    # Shorter is better, and all answers of the base are long.
    assert (details["delta"]["length"]["wins"], details["delta"]["length"]["p"] < 0.01) == (24, True)
    assert details["tuned"]["spread"]["value"] == len({row["tuned"] for row in rows})
    assert details["versions"]["length"] == details["versions"]["spread"] == own.metrics[0].version
    assert details["own"]["length"]["items"] == 24
    assert details["own"]["spread"]["spec"] == "mine.py:spread"
    # The rest is as without them.
    plain = compare(answered)
    assert {name: details["delta"][name] for name in plain["delta"]} == plain["delta"]
    assert json.loads(json.dumps(details)) == details


def test_they_are_figures_of_an_experiment_in_front_of_what_is_always_there(scored):
    details = scored[2]
    found = figures(details)
    names = ["label_accuracy", "rouge_l", "length", "spread", "general_nll_change"]
    assert list(found) == [*names, "nll_per_char", "eos_rate", "repetition", "items"]
    assert found["length"] == details["tuned"]["length"]["value"]
    many = details | {"own": {f"m{n}": {} for n in range(12)}}
    many["tuned"] = many["tuned"] | {f"m{n}": {"value": n} for n in range(12)}
    assert list(figures(many)) == [
        "label_accuracy",
        "rouge_l",
        *(f"m{n}" for n in range(6)),
        "general_nll_change",
        "items",
    ]


def test_the_report_the_plots_and_the_glossary_show_them(scored, tmp_path):
    _, rows, details = scored
    write_intervals(tmp_path / "intervals.csv", details)
    lines = (tmp_path / "intervals.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in lines[-2:]] == [["Length ↓", "characters"], ["Spread ↑", "without a unit"]]
    facts = evaluated.facts()
    page = report(details | {"general": evaluated.metrics_of(rows, facts)["general"]}, rows, facts)
    version = details["own"]["length"]["version"]
    assert f"Characters of an answer to a complaint. (evaluation/mine.py:length {version}; 24 items)" in page
    assert page.index(">Length<") < page.index(">Spread<")
    assert 'class="number good">−' in page[page.index(">Length<") :][:2000]
    assert entries_of(details)["spread"].title.en == "Spread"
    known = known_metrics(details)
    assert (shown("length", 12.5, known), known["length"].rank(2.0)) == ("12.50", -2.0)


def unreadable() -> dict:
    raise ValueError("not here")


def test_revisions_are_compared_by_metrics_of_one_version(scored, folder):
    own, rows, details = scored
    by_id = {row["id"]: row for row in rows}
    one = Revision("main", by_id, details["versions"], details["own"])
    names, records = ("main", "exp"), {record["id"]: record for record in own.records}
    found, left = own_of_both(names, (details["own"], details["own"]), lambda: records)
    assert (list(found.metrics), list(found.functions), left) == (["length", "spread"], ["spread"], [])
    other = {"length": details["own"]["length"] | {"version": "0" * 12}}
    found, left = own_of_both(names, (details["own"], details["own"]), unreadable)
    assert (list(found.metrics), left) == (
        ["length"],
        ["spread: of all rows, and without the held-out items: not here"],
    )
    found, left = own_of_both(names, (details["own"], other), dict)
    assert (found, len(left)) == (NOTHING, 2)
    assert "length has version" in left[0]
    assert left[1] == "spread is a metric of main alone: exp was evaluated without it"
    # The command: a metric of all rows needs the held-out items, and the function as it was.
    Path("data/processed").mkdir(parents=True)
    Path("data/processed/heldout.jsonl").write_text("".join(json.dumps(record) + "\n" for record in own.records))
    compared = against(one, one._replace(name="workspace"))
    assert compared["metrics"]["tuned"]["spread"] == details["tuned"]["spread"]
    assert compared["metrics"]["delta"]["length"]["ties"] == 24
    text = to_text(compared, 1, markdown=False)
    assert "Spread" in text
    assert "Not compared" not in text
    # Items that are newer than the answers.
    newer = "".join(json.dumps(record) + "\n" for record in own.records[1:])
    Path("data/processed/heldout.jsonl").write_text(newer)
    compared = against(one, one._replace(name="workspace"))
    assert list(compared["own"]) == ["length"]
    assert (
        "heldout.jsonl of workspace holds other items than metrics/predictions.jsonl: run `dvc repro evaluate`"
        in (compared["not_compared"][0])
    )
    (folder / "mine.py").write_text(MINE + "\nX = 1\n")
    compared = against(one, one._replace(name="workspace"))
    assert "length" in compared["metrics"]["delta"]
    assert "Not compared: spread is of all rows, and can't be computed here: evaluation/mine.py has version" in to_text(
        compared, 1, markdown=False
    )
    assert json.dumps(compared)


class Run:
    """What a stage says of itself."""

    name = "evaluate"

    def __init__(self, code: dict[str, str], inputs: dict[str, str]) -> None:
        self.code, self.inputs = code, SimpleNamespace(hashes=lambda: inputs)


def test_a_metric_that_fails_costs_no_answers(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TUNELINE_SCRATCH", str(tmp_path / "scratch"))
    asked = []

    def answer(questions):
        asked.append(questions)
        return Answered([{"id": "s:00", "prediction": "好"}], [{"id": "poem"}], {"device": "cpu"})  # type: ignore[list-item]

    monkeypatch.setattr(kept, "answer", answer)
    params = Evaluate(
        max_new_tokens=1, max_thinking_tokens=1, batch_size=1, dtype="auto", constrain=None, metrics=["mine.py:x"]
    )
    questions = Questions(Path("base"), Path("adapter"), [], {}, params, "evaluate")
    mine = metric(folder, "def score(prediction): return 1")

    def again(questions=questions, metrics=(mine,), code="1", inputs="2"):
        run = Run({"stages/evaluate.py": code, "evaluation/mine.py": mine.version}, {"models/adapter": inputs})
        return kept.answer_once(questions, run, metrics)

    first = again()
    assert capsys.readouterr().out == ""
    # The stage failed; its metric is mended, and one more is named.
    mine = metric(folder, "def score(prediction): return 2")
    second = again(questions._replace(params=params.model_copy(update={"metrics": ["mine.py:score", "mine.py:y"]})))
    assert len(asked) == 1
    assert second[:3] == first[:3]
    assert capsys.readouterr().out == "evaluate: 1 answers are there from an earlier run, and are only scored\n"
    # Whatever decides an answer asks anew.
    longer = questions._replace(params=params.model_copy(update={"max_new_tokens": 2}))
    for times, changes in enumerate(({"questions": longer}, {"code": "3"}, {"inputs": "4"}, {"metrics": ()}), start=2):
        again(**changes)
        assert len(asked) == times
    # The outputs being written, they are still there, for a week.
    second.forget()
    again()
    assert len(asked) == 5
    files = list((tmp_path / "scratch/answers").iterdir())
    for path in files:
        os.utime(path, (0, 0))
    again()
    assert len(asked) == 6
    assert len(files) > 1 and len(list((tmp_path / "scratch/answers").iterdir())) == 1


def test_every_answer_that_a_metric_failed_on_is_counted(folder, answered):
    (folder / "mine.py").write_text(
        "def first(prediction):\n    assert len(prediction) < 20, len(prediction)\n    return 1\n"
    )
    records = evaluated.records()
    own = OwnMetrics(load_metrics(["mine.py:first"]), records)
    with pytest.raises(
        MetricError, match=r"mine\.py, line 2: first failed on item s:00: AssertionError: \d+ \(the base model's"
    ):
        own.add_scores(deepcopy(answered))
    with pytest.raises(MetricError, match=r"\(and \d\d more\)$"):
        own.add_scores(deepcopy(answered))


def test_pairs_without_a_value_are_left_out_on_both_sides():
    metric = Metric("Length", "abc", False, "")
    first, second, delta = of_items([[1.0, 2.0, None, 4.0], [2.0, None, 3.0, 1.0]], metric)
    assert (first["value"], second["value"], delta["value"]) == (2.5, 1.5, -1.0)
    assert (first["items"], delta["items"], delta["wins"], delta["losses"]) == (2, 2, 1, 1)
    assert of_items([[None], [1.0]], metric) is None
    whole = of_items([[1.0, 2.0], [2.0, 3.0]], metric)[0]
    assert whole == mean_interval([1.0, 2.0])


@pytest.mark.parametrize("right", [1.0, 100.0])
def test_one_of_right_and_wrong_has_the_interval_of_a_share(right):
    metric, wrong, other = Metric("Named", "abc", True, ""), [0.0] * 26, [right] * 25 + [0.0]
    first, second, delta = of_items([wrong, other], metric)
    assert first == share_interval(wrong, right) and first["high"] == pytest.approx(0.129 * right, rel=0.01)
    assert second == share_interval(other, right) and second["low"] == pytest.approx(0.811 * right, rel=0.01)
    # The difference is that of any metric.
    assert delta == paired(wrong, other, metric.rank)
    some = of_items([[None, *wrong], [right, *other]], metric)
    assert some[0] == first | {"items": 26}


@pytest.mark.parametrize("values", [[[0.0] * 9, [0.0] * 9], [[1.0] * 9, [1.0] * 9], [[0.0, 1.0, 2.0], [0.0, 1.0, 1.0]],
                                    [[0.0, 50.0], [100.0, 0.0]], [[0.0, 1.0], [0.0, 100.0]], [[1.0, 100.0]] * 2])  # fmt: skip
def test_one_whose_values_do_not_tell_that_it_is_a_share_is_a_mean(values):
    assert list(of_items(values, Metric("Named", "abc", True, ""))[:2]) == [mean_interval(side) for side in values]


def test_a_figure_of_all_rows_that_is_a_mean_has_the_interval_and_p_of_one():
    """Against the per-item way, whose statistics are tested by themselves."""
    random = np.random.default_rng(0)
    before, after = random.integers(0, 3, 40) / 2, random.integers(0, 3, 40).clip(0, 1)
    rows = [[{"x": float(x)} for x in side] for side in (before, after)]
    metric = Metric("Mean", "abc", True, "")
    calls = 0

    def mean(rows):
        nonlocal calls
        calls += 1
        return sum(row["x"] for row in rows) / len(rows)

    found = of_all_rows(*rows, metric, mean)
    expected = of_items([[float(x) for x in side] for side in (before, after)], metric)
    for one, other in zip(found, expected, strict=True):
        assert one["value"] == pytest.approx(other["value"], abs=1e-6)
        assert one["low"] == pytest.approx(other["low"], abs=0.03)
        assert one["high"] == pytest.approx(other["high"], abs=0.03)
    assert found[2]["p"] == pytest.approx(expected[2]["p"], abs=0.03)
    assert [found[2][key] for key in ("wins", "ties", "losses")] == [
        expected[2][key] for key in ("wins", "ties", "losses")
    ]
    assert calls == 2 + 4 * 1999 + 40
    assert of_all_rows(*rows, metric, mean) == found


def test_a_figure_of_all_rows_must_be_there_for_most_draws():
    rows = [[{"x": x} for x in range(12)] for _ in range(2)]
    with pytest.raises(
        MetricError, match=r"Rare has a number for \d+ of 1999 draws of the items, expected one for most"
    ):
        of_all_rows(
            *rows, Metric("Rare", "a", True, ""), lambda rows: 1.0 if len({row["x"] for row in rows}) == 12 else None
        )
    assert of_all_rows(*rows, Metric("Rare", "a", True, ""), lambda rows: None) is None
