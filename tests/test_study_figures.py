"""Studies: what one seed can't tell, metrics of the project, estimates in one unit, and what is refused before a run."""

import numpy as np
import pytest

from tests.helpers.commands import git_init
from tests.helpers.made_up_study import ITEMS, results, run_of
from tuneline.cli.study.command import Study
from tuneline.evaluate import revisions
from tuneline.study import experiments, schedule, scores
from tuneline.study import results as study_results
from tuneline.study.analysis import PLAIN, analyse, to_json
from tuneline.study.crossed import crossed
from tuneline.study.page import State, headline, left_out_sentences, luck_sentence, page, tone
from tuneline.study.plan import check_keys, make_runs
from tuneline.study.results import Table, read_result
from tuneline.study.schedule import Times
from tuneline.study.scores import check_metric, item_scores

BETTER = (("lora.r", "8"),)
STATE = State("s", 2, [], 0)


def described(name: str, *, higher: bool = True, corpus: bool = False, version: str = "a") -> dict:
    about = {"title": name.title(), "version": version, "higher_is_better": higher, "unit": "", "corpus": corpus}
    return {name: about}


def with_own(made: list, name: str, gain: float, about: dict, *, without: int = 0) -> list:
    """Results with an own metric, which has no value of the first items."""
    source = np.random.default_rng(6)
    return [
        one._replace(
            own=about,
            scores=one.scores
            | {
                name: {
                    f"s:{n}": float(source.normal(gain if one.run.configuration else 0, 0.1))
                    for n in range(without, ITEMS)
                }
            },
        )
        for one in made
    ]


def test_one_seed_is_never_sure_and_counts_in_no_correction():
    other = (("lora.r", "4"),)
    found = analyse(Table(results({PLAIN: 0.0, BETTER: 5.0}, seeds=(17,))))
    assert not any(row.sure for row in found.comparisons) and found.comparisons[0].adjusted is None
    assert headline(found).en == "One seed: nothing can be said of luck"
    assert 'class="number whole good"' not in page(found, STATE)
    mixed = [
        one
        for one in results({PLAIN: 0.0, BETTER: 5.0, other: 5.0})
        if one.run.configuration != other or one.run.seed == 17
    ]
    found = analyse(Table(mixed))
    rows = {row.configuration: row for row in found.comparisons}
    assert rows[BETTER].sure and not rows[other].sure
    assert 'class="number whole good"' in page(found, STATE)
    assert rows[BETTER].adjusted == pytest.approx(rows[BETTER].difference.p)
    assert "1 more rest on one seed" in headline(found).en
    (bent,) = analyse(Table(results({PLAIN: 0.0}, (0.25, 0.5, 1.0), (17,), bend=-1.5))).curves
    assert not bent.bends and not bent.checked


def test_the_seeds_of_a_row_are_those_of_its_difference():
    made = [one for one in results({PLAIN: 0.0, BETTER: 5.0}) if one.run.configuration or one.run.seed == 17]
    html = page(analyse(Table(made)), STATE)
    assert html.count(">1</td></tr>") == 2 and ">3</td></tr>" not in html


def test_a_metric_of_the_project_is_judged_in_its_direction():
    made = with_own(results({PLAIN: 0.0, BETTER: 0.0}), "mistakes", 2.0, described("mistakes", higher=False))
    found = analyse(Table(made), "mistakes")
    assert [row.configuration for row in found.comparisons] == [PLAIN, BETTER]
    assert tone(found.known["mistakes"], found.comparisons[1]) == "bad"
    assert "0 of 1 differences are better beyond luck, 1 worse" in headline(found).en
    assert "Mistakes" in page(found, STATE)


def test_a_metric_of_some_items_stays_and_one_of_all_rows_is_said_to_be_left_out():
    about = described("partly") | described("of_all", corpus=True) | described("never")
    made = with_own(results({PLAIN: 0.0, BETTER: 0.0}), "partly", 1.0, about, without=10)
    made[0].scores["partly"].pop("s:10")
    found = analyse(Table(made))
    assert found.others["partly"][0].level.items == ITEMS - 11
    assert found.left_out == {"of_all": "rows", "never": "values"}
    told = [sentence.en for sentence in left_out_sentences(found)]
    assert "of_all is not in a study: it is of all rows, and has no values of items to compare." in told
    assert told[0] in page(found, STATE) and to_json(found)["left_out"] == found.left_out
    other = made[0]._replace(own=about | described("partly", version="b"))
    assert Table([other, *made[1:]]).left_out["partly"] == "runs"


def test_values_that_are_none_are_left_out_of_an_own_metric_alone(monkeypatch, tmp_path):
    rows = [
        {"id": str(n), "task": "qa", "scores": {"tuned": {"rouge_l": 1.0, "nll_per_char": None, "mine": value}}}
        for n, value in enumerate([None, 2.0])
    ]
    assert item_scores(rows) == {"rouge_l": {"0": 1.0, "1": 1.0}, "mine": {"1": 2.0}}
    texts = {
        revisions.PREDICTIONS: "\n".join(map(str, rows)).replace("'", '"').replace("None", "null"),
        experiments.DETAILS: '{"own": {"mine": {"version": "a"}}}',
    }
    monkeypatch.setattr(experiments, "content", lambda path, name: texts[path])
    monkeypatch.setattr(experiments, "git", lambda *_: '{"rows_per_epoch": 9}')
    run = run_of()
    (tmp_path / f"{run.key[:10]}.json").write_text(
        '{"revision": "r", "scores": {}, "rows": 1, "seconds": 4.0}', encoding="utf-8"
    )
    found = read_result(run, "r", tmp_path)
    assert (found.own, found.rows, found.seconds) == ({"mine": {"version": "a"}}, 9, 4.0)


def test_the_luck_of_the_seed_is_without_the_noise_of_the_items():
    source = np.random.default_rng(8)
    found = [crossed(source.normal(0, 5, (3, 50))) for _ in range(200)]
    # No luck: the unbiased variance is 0 on average, below it as often as above, and the noise of a mean of 50 is 0.5.
    assert np.mean([one.seed_variance for one in found]) == pytest.approx(0, abs=0.06)
    assert min(one.seed_variance for one in found) < 0 <= min(one.seed_spread for one in found)
    analysis = analyse(Table(results({PLAIN: 0.0})))
    row = analysis.comparisons[0]
    unlucky = row._replace(level=row.level._replace(seed_variance=-4.0))
    lucky = row._replace(level=row.level._replace(seed_variance=6.0))
    assert "varies by 1.0 (" in luck_sentence(analysis._replace(comparisons=[unlucky, lucky])).en


def test_times_of_steps_and_epochs_compare_by_rows():
    def document(steps: int | None, share: float) -> dict:
        return {"train": {"epochs": 2, "max_steps": steps, "batch_size": 8}, "data": {"train_share": share}}

    stepped = run_of()._replace(document=document(10, 1.0))
    # Half of the data has 400 rows: two epochs are 800 of them, and 10 steps are 80.
    assert Times(100, 5, "", 400).of(stepped, document(None, 0.5)) == pytest.approx(5 + 100 * 80 / 800)
    assert Times(100, 5, "").of(stepped, document(None, 0.5)) is None
    assert Times(100, 5, "").of(stepped, document(20, 0.5)) == 55
    assert schedule.work(document(None, 0.5), None) is None


@pytest.mark.parametrize("name", ["seed", "heldout", "heldout_source", "heldout_turns", "sources"])
def test_what_would_change_the_heldout_items_is_refused_before_a_run(name):
    with pytest.raises(ValueError, match=rf"-S data\.{name} is given and chooses the held-out items"):
        check_keys([f"data.{name}"])
    check_keys(["data.leak_policy", "train.epochs"])


def test_a_metric_that_no_study_has_is_refused_before_a_run(tmp_path, monkeypatch):
    check_metric("rouge_l", [])
    check_metric("label_accuracy", [])
    check_metric("label_accuracy", [], {"qa", "label"})
    with pytest.raises(
        ValueError, match=r"is label_accuracy, and no item of .*heldout.jsonl is of its task \(label\): expected"
    ):
        check_metric("label_accuracy", [], {"qa"})
    monkeypatch.setattr(scores, "load_metrics", lambda specs: [Own("mine", False), Own("whole", True)])
    check_metric("mine", ["m.py:mine"])
    with pytest.raises(ValueError, match="--metric is 'rouge_x', expected one of .*nll_per_char, mine, whole"):
        check_metric("rouge_x", [])
    with pytest.raises(ValueError, match="--metric is whole, which is of all rows"):
        check_metric("whole", [])


def test_a_metric_that_the_first_run_has_not_ends_the_study_there(monkeypatch, tmp_path):
    (made,) = results({PLAIN: 0.0}, seeds=(17,))
    monkeypatch.setattr(study_results, "read_result", lambda run, revision, folder, seconds: made)
    study = object.__new__(Study)
    study.revisions, study.seconds, study.folder = {made.run.key: "r"}, {}, tmp_path
    for study.metric in (None, "rouge_l"):
        study.check_measured([made.run])
    study.metric = "label_accuracy"
    with pytest.raises(
        ValueError, match=r"--metric is 'label_accuracy', which seed 17, .* has not: expected one of rouge_l"
    ):
        study.check_measured([made.run])


class Own:
    def __init__(self, name: str, corpus: bool) -> None:
        self.name, self.corpus = name, corpus


def test_a_share_reaches_the_run_with_all_its_digits(workspace):
    git_init(workspace())
    (run,) = make_runs([()], [0.123456789], [17])
    assert run.overrides == ("data.train_share=0.123456789",)
