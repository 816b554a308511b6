"""Studies: what a command asks for, what its intervals hold, what fits a budget, and the page."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from benchmarks.study.coverage import coverage
from tests.helpers.commands import git_init
from tests.helpers.evaluated import evaluated
from tests.helpers.made_up_study import ITEMS, results, run_of
from tuneline.cli.study.command import configurations, read_numbers, spread
from tuneline.scoring.counts import macro_f1
from tuneline.study import schedule
from tuneline.study.analysis import PLAIN, analyse, bend_weights, slope_weights, to_json
from tuneline.study.crossed import crossed, holm
from tuneline.study.experiments import remove_leftovers
from tuneline.study.page import State, left_out_sentences, page
from tuneline.study.plan import check_name, experiment_name, make_runs, title, write_plan
from tuneline.study.results import Table
from tuneline.study.schedule import Schedule, Times, devices, fitting, read_budget
from tuneline.study.scores import counts_of, item_scores, jackknife
from tuneline.study.space import Range, grid, random_search, read_space


def test_intervals_hold_the_truth_as_often_as_they_say():
    """A thousand draws; `python -m benchmarks.study` tells each kind apart."""
    kinds = [(3, 0.0, 1.0), (3, 0.5, 0.5), (5, 0.8, 2.0), (5, 0.5, None)]
    assert 93 <= np.mean([coverage(*kind[:1], 50, *kind[1:], 250)["covered"] for kind in kinds]) <= 97


def test_the_plain_bootstrap_of_three_seeds_holds_it_less_often():
    found = coverage(3, 50, 0.8, 1.0, 200, bootstrap=True)
    assert found["bootstrap"] < 88 < found["covered"]


def test_an_interval_over_one_seed_is_over_items():
    values = np.random.default_rng(1).normal(3, 1, (1, 50))
    found = crossed(values)
    half = 2.0096 * values.std(ddof=1) / np.sqrt(50)
    assert found.high - found.value == pytest.approx(half, rel=1e-3)
    assert (found.seed_spread, found.seeds, found.items) == (None, 1, 50)
    assert found.p < 1e-6


def test_the_interval_reaches_0_just_where_p_is_a_twentieth():
    values = np.random.default_rng(2).normal(0, 1, (3, 30))
    found = crossed(values)
    moved = crossed(values - found.low)
    assert moved.low == pytest.approx(0, abs=1e-9)
    assert moved.p == pytest.approx(0.05, abs=1e-6)


def test_what_does_not_vary_is_a_point():
    assert crossed(np.full((3, 5), 2.0))[:3] == (2, 2, 2)
    assert crossed(np.zeros((3, 5))).p == 1


def test_holm_multiplies_by_those_that_are_left():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_scores_of_items_have_the_metric_as_their_mean():
    rows = evaluated()
    scores = item_scores(rows)
    assert list(scores) == ["label_accuracy", "rouge_l", "nll_per_char"]
    for name in ("rouge_l", "nll_per_char"):
        assert scores[name] == {row["id"]: row["scores"]["tuned"][name] for row in rows}
    labels = [row for row in rows if row["task"] == "label"]
    assert set(scores["label_accuracy"]) == {row["id"] for row in labels}
    right = [row["tuned"] == row["references"][0] for row in labels]
    assert np.mean(list(scores["label_accuracy"].values())) == pytest.approx(100 * np.mean(right))
    counts = counts_of(labels, "label_macro_f1")
    assert jackknife(counts, macro_f1).mean() == pytest.approx(macro_f1(counts.sum(axis=0)))
    # Of labels the jackknife gives back right and wrong.
    assert {round(value, 6) for value in scores["label_accuracy"].values()} == {0.0, 100.0}


def test_a_command_line_of_several_values():
    given = ["--seeds", "17", "1", "--shares", "0.5", "1", "-S", "a.b=1,2", "--name", "x", "--dry-run"]
    assert spread(given) == [
        "--seeds", "17", "--seeds", "1", "--shares", "0.5", "--shares", "1", "-S", "a.b=1,2", "--name", "x", "--dry-run",
    ]  # fmt: skip
    assert read_numbers(["17,18", "17"], "seeds", int) == [17, 18]
    for wrong, name, kind in (("x", "seeds", int), ("0", "shares", float), ("1.5", "shares", float)):
        with pytest.raises(ValueError, match=f"--{name} has "):
            read_numbers([wrong], name, kind)


def test_a_grid_and_random_draws():
    space = read_space(["lora.r=8,16", "lora.target_modules=[q_proj,v_proj],[all]"])
    assert len(grid(space)) == 4
    assert grid(space)[0] == (("lora.r", "8"), ("lora.target_modules", "[q_proj,v_proj]"))
    assert configurations([], None) == [()]
    space = read_space(["lora.r=4..64", "train.learning_rate=1e-4..1e-3"])
    assert space["lora.r"] == Range(4, 64, whole=True)
    with pytest.raises(ValueError, match=r"-S lora.r is a range, .* give values, or --random 10"):
        grid(space)
    drawn = random_search(space, 10)
    assert len(set(drawn)) == 10
    assert random_search(space, 4) == drawn[:4]
    for (_, rank), (_, rate) in drawn:
        assert 4 <= int(rank) <= 64
        assert 1e-4 <= float(rate) <= 1e-3
    assert len(random_search(read_space(["lora.r=8,16"]), 10)) == 2


@pytest.mark.parametrize("wrong", ["lora.r", "r=8", "lora.r=16..8"])
def test_a_change_that_is_none_is_one_sentence(wrong):
    with pytest.raises(ValueError, match=r"-S .*expected"):
        read_space([wrong])
    with pytest.raises(ValueError, match="given twice"):
        read_space(["lora.r=8", "lora.r=16"])
    with pytest.raises(ValueError, match="--name is"):
        check_name("a b")


def test_what_fits_a_budget_is_taken_in_order():
    runs = [run_of(share=share) for share in (1.0, 0.5, 0.25)]
    times = Times(100, 10, "")
    seconds = {run.key: times.of(run, run_of().document) for run in runs}
    assert list(seconds.values()) == [110, 60, 35]
    taken, left = fitting(runs, seconds, read_budget("150s"), 1)
    assert [run.share for run in taken] == [1.0, 0.25]
    assert [run.share for run in left] == [0.5]
    assert fitting(runs, seconds, read_budget("2m"), 2)[1] == []
    for wrong in ("60", "m", "-1h", "infh", ""):
        with pytest.raises(ValueError, match="--budget is"):
            read_budget(wrong)


def test_what_is_more_than_luck_and_what_is_not():
    better, same = (("lora.r", "8"),), (("lora.r", "4"),)
    found = analyse(Table(results({PLAIN: 0.0, better: 5.0, same: 0.0})))
    rows = {row.configuration: row for row in found.comparisons}
    assert rows[better].sure and not rows[same].sure and rows[PLAIN].difference is None
    assert rows[better].difference.low < 5 < rows[better].difference.high
    assert rows[better].adjusted == pytest.approx(2 * rows[better].difference.p)
    assert found.comparisons[0].configuration == better
    assert found.winner.configuration == better
    assert found.winner.honest == pytest.approx(5, abs=1)


def test_the_best_of_many_that_are_the_same_gains_less_on_other_items():
    found = analyse(Table(results({PLAIN: 0.0} | {(("lora.r", str(n)),): 0.0 for n in range(1, 11)})))
    assert not any(row.sure for row in found.comparisons)
    assert found.winner is None or found.winner.honest < found.winner.seen


def test_twice_the_rows_on_a_line_and_where_it_bends():
    shares = (0.25, 0.5, 1.0)
    (straight,) = analyse(Table(results({PLAIN: 0.0}, shares, slope=3.0))).curves
    assert straight.checked and not straight.bends
    assert straight.doubling.low < 3 < straight.doubling.high
    assert [rows for rows, _ in straight.points] == [100, 200, 400]
    # Level off: each doubling brought 9 less 3 for those before; the last one 1.5 and not the 4.5 of the line.
    (bent,) = analyse(Table(results({PLAIN: 0.0}, shares, bend=-1.5))).curves
    assert bent.bends
    assert bent.doubling.value == pytest.approx(1.5, abs=0.5)
    (two,) = analyse(Table(results({PLAIN: 0.0}, (0.5, 1.0), slope=3.0))).curves
    assert not two.checked
    assert np.dot(slope_weights([100, 200, 400]), [1, 2, 3]) == pytest.approx(1)
    assert np.dot(bend_weights([100, 200, 400]), [5, 7, 9]) == pytest.approx(0, abs=1e-9)


def test_seeds_that_only_one_of_two_has_are_left_out_of_their_difference():
    better = (("lora.r", "8"),)
    made = [one for one in results({PLAIN: 0.0, better: 5.0}) if (one.run.configuration, one.run.seed) != (better, 19)]
    rows = {row.configuration: row for row in analyse(Table(made)).comparisons}
    assert (rows[PLAIN].level.seeds, rows[better].level.seeds, rows[better].difference.seeds) == (3, 2, 2)


def test_the_page_says_it_in_both_languages_and_the_figures_are_json():
    better = (("lora.r", "8"),)
    found = analyse(Table(results({PLAIN: 0.0, better: 5.0}, (0.5, 1.0), slope=3.0)))
    html = page(found, State("r-study", 12, [run_of()], 1))
    assert "better beyond luck" in html and "确实更好" in html
    assert "Twice the rows: +" in html and "数据翻倍：+" in html
    assert "1 were left out by the budget, 1 failed" in html
    assert html.count("<svg") == 2 and "None" not in html and "nan" not in html
    figures = json.loads(json.dumps(to_json(found)))
    assert figures["curves"][0]["twice_the_rows"]["value"] == pytest.approx(3, abs=0.5)
    assert {row["p_holm"] is None for row in figures["comparisons"]} == {True, False}
    with pytest.raises(ValueError, match="--metric is 'x', expected one of rouge_l"):
        analyse(Table(results({PLAIN: 0.0})), "x")


def test_items_that_not_every_run_has_are_left_out_and_counted():
    first, *others = results({PLAIN: 0.0})
    first.scores["rouge_l"].pop("s:0")
    first.scores["rouge_l"]["s:new"] = 1.0
    found = analyse(Table([first, *others]))
    assert (found.apart, found.comparisons[0].level.items) == ((2, ITEMS + 1), ITEMS - 1)
    (told,) = left_out_sentences(found)
    assert told.en.startswith(f"2 of {ITEMS + 1} held-out items are not in every run and are left out")
    assert "2 道并非每次运行都有" in told.zh and told.en in page(found, State("s", 3, [], 0))
    assert to_json(found)["items_not_in_every_run"] == 2
    assert left_out_sentences(analyse(Table(others))) == []


def test_other_heldout_items_are_no_comparison():
    first, *others = results({PLAIN: 0.0})
    first.scores["rouge_l"].clear()
    first.scores["rouge_l"]["s:new"] = 1.0
    with pytest.raises(
        ValueError, match="seed 18, 1 of the rows, as in params.yaml has other held-out items than seed 17"
    ):
        Table([first, *others])


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        # Two share one item.
        (
            [range(10), range(9, 28), range(10)],
            r"seed 18, 1 of the rows, as in params.yaml has other held-out items than seed 17, .* "
            r"\(1 of 10 and 19 are the same\): expected the same ones, at least 50% of the smaller set, so leave",
        ),
        # Each two share half, all together none.
        (
            [range(20), range(10, 30), [*range(10), *range(20, 30)]],
            r"the 3 runs have too few held-out items that all of them have \(0 of 20\): expected the same ones",
        ),
    ],
)
def test_runs_with_few_held_out_items_in_common_are_refused(kept, message):
    runs = results({PLAIN: 0.0})
    for run, numbers in zip(runs, kept, strict=True):
        for scores in run.scores.values():
            scores.clear()
            scores.update({f"s:{number}": 1.0 for number in numbers})
    with pytest.raises(ValueError, match=message):
        Table(runs)


def test_names_of_configurations_and_experiments():
    assert title((("lora.r", "8"), ("train.epochs", "2"))) == "r=8, epochs=2"
    assert experiment_name("s", run_of()._replace(key="0123456789abcdef")) == "s-0123456789"


def test_each_worker_has_gpus_of_its_own(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,7")
    monkeypatch.setattr(schedule, "gpu_slots", lambda: [None] * 3)
    monkeypatch.setattr(schedule, "on_cpu", lambda: False)
    assert [one["CUDA_VISIBLE_DEVICES"] for one in devices("auto")] == ["4", "6", "7"]
    assert devices(2) == [{"CUDA_VISIBLE_DEVICES": "4,6"}]
    with pytest.raises(ValueError, match=r"deepspeed.processes is 4 and 3 GPUs are there"):
        devices(4)
    monkeypatch.setattr(schedule, "on_cpu", lambda: True)
    assert devices(2) == [{}]


def test_runs_share_workers_and_one_that_fails_costs_only_itself(monkeypatch, tmp_path, capsys):
    runs = [run_of(seed=seed) for seed in range(6)]
    used, most, made, lost = [], [0], set(), [runs[2].key]

    def start(study, run, log, worker, environment):
        log.write_text("Running stage 'train':\ntrain: it does not fit\nERROR: failed to reproduce 'train'\n")
        assert worker not in used
        used.append(worker)
        most[0] = max(most[0], len(used))
        status = int(run.seed == 3)
        # The first try of one ends well and leaves nothing, as when DVC took another's place.
        if lost and run.key in lost:
            lost.remove(run.key)
        elif not status:
            made.add(run.key)
        looks = [None, None]

        def poll():
            if looks:
                return looks.pop()
            used.remove(worker)
            return status

        return SimpleNamespace(poll=poll, returncode=status)

    monkeypatch.setattr(schedule, "start", start)
    monkeypatch.setattr(schedule, "finished", lambda study, ones: {one.key: "r" for one in ones if one.key in made})
    monkeypatch.setattr(schedule, "POLL", 0.0)
    going = Schedule("s", runs, [{"CUDA_VISIBLE_DEVICES": name} for name in "01"], tmp_path)
    ended = [run.seed for run, _, _ in going.run(lambda run: run.seed != 5)]
    assert sorted(ended) == [0, 1, 2, 4]
    assert [run.seed for run in going.waiting] == [5]
    assert list(going.failed) == [runs[3].key]
    assert going.attempts[runs[2].key] == 1
    assert most[0] == 2
    assert "study: FAILED seed 3, 1 of the rows, as in params.yaml: train: it does not fit" in capsys.readouterr().out


def test_plans_tell_runs_apart_by_all_that_decides_them(workspace):
    folder = workspace()
    git_init(folder)
    (folder / "data/raw/a.csv").write_text("q,a\n")
    runs = make_runs(grid(read_space(["lora.r=8,16"])), [1.0, 0.5], [17, 18])
    # lora.r is 16 as it is.
    assert [(title(run.configuration), run.share, run.seed) for run in runs[:3]] == [
        ("as in params.yaml", 1.0, 17), ("r=8", 1.0, 17), ("as in params.yaml", 0.5, 17),
    ]  # fmt: skip
    assert len(runs) == len({run.key for run in runs}) == 8
    assert runs[-1].overrides == ("lora.r=8", "train.seed=18", "data.train_share=0.5")
    assert runs[0].overrides == ()
    more = make_runs(grid(read_space(["lora.r=8,16,32"])), [0.5, 1.0], [17, 18, 19])
    assert {run.key for run in runs} < {run.key for run in more}
    (folder / "data/raw/a.csv").write_text("q,a\nx,y\n")
    assert not {run.key for run in runs} & {run.key for run in make_runs([()], [1.0], [17])}
    written = write_plan("s", {"seeds": [17, 18]}, runs).read_text(encoding="utf-8")
    assert written.count("experiment: s-") == 8
    # What a kill left of these runs goes; what is of another program stays.
    for name, document in (("ours", runs[0].document), ("other", runs[0].document | {"lora": {}})):
        (folder / f".dvc/tmp/exps/standalone/{name}").mkdir(parents=True)
        (folder / f".dvc/tmp/exps/standalone/{name}/params.yaml").write_text(yaml.safe_dump(document))
    assert remove_leftovers(runs) == 1
    assert [path.name for path in (folder / ".dvc/tmp/exps/standalone").iterdir()] == ["other"]
    for wrong, said in (
        ("train.seed=3", "expected --seeds for it"),
        ("lora.x=1", "expected keys of"),
        ("lora.r=-1", "lora.r is -1, expected greater than 0"),
    ):
        with pytest.raises(ValueError, match=said):
            make_runs(grid(read_space([wrong])), [1.0], [17])
    assert Path("params.yaml").is_file()
