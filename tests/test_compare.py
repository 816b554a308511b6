"""Two models' answers compared: mirrored, refused where they do not belong together, read from git and DVC."""

import json

import pytest

from tests.helpers.commands import git, git_init, python
from tests.helpers.paths import ROOT
from tuneline.cli import compare
from tuneline.formats.metrics import METRICS
from tuneline.scoring.score import score


def row(number: int, said: str, nll: float) -> dict:
    question, right = f"第{number}题：感冒怎么办？", "多休息、多喝温水。"
    answer = {"prediction": said, "nll": nll, "characters": len(right), "tokens": 8, "stopped_at_eos": True}
    scores = score(answer, [right])
    both = {"base": scores, "tuned": scores}
    same = {"id": f"s:{number}", "task": "qa", "question": question, "references": [right]}
    return same | {"base": said, "tuned": said, "scores": both}


VERSIONS = {name: metric.version for name, metric in METRICS.items() if metric.task is None}


def side(name: str, said: list[str]) -> compare.Revision:
    rows = [row(number, text, 20.0 - len(text) / 10 + number) for number, text in enumerate(said)]
    return compare.Revision(name, {one["id"]: one for one in rows}, VERSIONS)


WORSE = side("main", ["吃药", "不知道", "多休息", "喝水吧", "多休息"])
BETTER = side("exp-a", ["多休息、多喝温水。", "多喝温水", "多休息、喝温水", "多喝水", "多休息"])


def test_swapped_sides_are_the_mirror_image():
    one, other = compare.against(WORSE, BETTER), compare.against(BETTER, WORSE)
    assert one["metrics"]["delta"]["rouge_l"]["value"] > 0
    for name, delta in one["metrics"]["delta"].items():
        back = other["metrics"]["delta"][name]
        assert (delta["value"], delta["low"], delta["high"]) == pytest.approx(
            (-back["value"], -back["high"], -back["low"])
        )
        assert (delta["p"], delta["wins"], delta["losses"]) == (back["p"], back["losses"], back["wins"])
    assert one["metrics"]["base"] == other["metrics"]["tuned"]
    assert [item["id"] for item in one["changes"]] == [item["id"] for item in other["changes"]]
    assert one["changes"][0]["id"] == "s:0"
    assert one["changes"][-1]["rouge_l"][0] == one["changes"][-1]["rouge_l"][1]


def test_the_same_model_differs_in_nothing():
    found = compare.against(WORSE, WORSE)
    assert all(delta["value"] == 0 and delta["p"] == 1 for delta in found["metrics"]["delta"].values())
    assert set(found["minimum_detectable_effect"].values()) == {None}
    assert "—" in compare.to_text(found, 1, markdown=False)


def test_other_items_are_refused_unless_asked_for():
    fewer = side("exp-b", ["多休息"] * 4)
    with pytest.raises(ValueError, match=r"main and exp-b have other held-out items \(5 and 4, 4 in common\)"):
        compare.against(WORSE, fewer)
    found = compare.against(WORSE, fewer, common=True)
    assert (found["items"], found["left_out"]) == (4, 1)
    changed = side("exp-b", ["多休息"] * 5)
    changed.rows["s:0"]["references"] = ["不用管"]
    with pytest.raises(ValueError, match="4 in common"):
        compare.against(WORSE, changed)
    with pytest.raises(ValueError, match="0 in common"):
        compare.against(WORSE, compare.Revision("exp-b", {}, VERSIONS), common=True)


def test_other_definitions_are_refused():
    with pytest.raises(ValueError, match="exp-a was scored by other definitions of bleu_4: run `dvc repro evaluate`"):
        compare.against(WORSE, BETTER._replace(versions=VERSIONS | {"bleu_4": 9}))
    with pytest.raises(ValueError, match="exp-a was scored by other definitions of bleu_4, chrf, "):
        compare.against(WORSE, BETTER._replace(versions={}))


def test_what_is_shown_is_a_table_in_either_form():
    found = compare.against(WORSE, BETTER)
    plain, marked = (compare.to_text(found, 2, markdown=markdown) for markdown in (False, True))
    assert "exp-a against main: 5 items" in plain
    assert plain.count("第0题") == plain.count("→ 100.0") == 1
    assert marked.startswith("## exp-a against main")
    assert "| ROUGE-L |" in marked
    header = next(line for line in marked.splitlines() if line.startswith("| metric"))
    assert header.count("|") == 9


def test_results_of_earlier_revisions_are_read_under_todays_names(workspace):
    folder = workspace()
    earlier = json.loads(json.dumps(WORSE.rows))
    for line in earlier.values():
        line["scores"] = {name: {("finished" if key == "eos_rate" else key): value for key, value in scores.items()}
                          for name, scores in line["scores"].items()}  # fmt: skip
    versions = {("finished" if key == "eos_rate" else key): value for key, value in VERSIONS.items()}
    store(folder, compare.Revision("earlier", earlier, versions))
    read = compare.read(compare.WORKSPACE)
    assert "eos_rate" in read.versions
    assert compare.against(read, BETTER)["metrics"] == compare.against(WORSE, BETTER)["metrics"]


def test_results_of_revisions_before_the_details_are_read(workspace):
    folder = workspace()
    store(folder, WORSE)
    (folder / compare.EVALUATION).unlink()
    with pytest.raises(ValueError, match="metrics/eval_details.json is missing: run `dvc repro evaluate`"):
        compare.read(compare.WORKSPACE)
    (folder / compare.EARLIER_EVALUATION).write_text(json.dumps({"tuned": {}, "versions": VERSIONS}))
    assert compare.read(compare.WORKSPACE).versions == VERSIONS


def store(folder, what: compare.Revision) -> None:
    (folder / "metrics").mkdir(exist_ok=True)
    lines = (json.dumps(one, ensure_ascii=False) for one in what.rows.values())
    (folder / compare.PREDICTIONS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / compare.EVALUATION).write_text(json.dumps({"versions": what.versions}), encoding="utf-8")
    (folder / compare.EARLIER_EVALUATION).write_text(json.dumps({"items": len(what.rows)}), encoding="utf-8")


def test_revisions_are_read_from_git_and_the_cache_without_a_checkout(tmp_path):
    git_init(tmp_path)
    python(tmp_path, "-m", "dvc", "init", "--quiet")
    for name, what in (("main", WORSE), ("better", BETTER)):
        store(tmp_path, what)
        added = python(tmp_path, "-m", "dvc", "add", "--quiet", compare.PREDICTIONS)
        assert added.returncode == 0, added.stderr
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "-m", name)
        git(tmp_path, "tag", "v-" + name)
    # A line separator of Unicode is no end of a line of JSON.
    store(tmp_path, side("here", ["多\u2028休息"] * 5))
    kept = (tmp_path / compare.PREDICTIONS).read_bytes()

    def ask(*revisions: str):
        return python(tmp_path, "-m", "tuneline", "compare", *revisions, env={"PYTHONPATH": str(ROOT)})

    result = ask("v-main", "v-better", "workspace", "--json")
    assert result.returncode == 0, result.stderr
    first, second = json.loads(result.stdout)
    assert (first["base"], first["tuned"], second["tuned"]) == ("v-main", "v-better", "workspace")
    expected = json.loads(json.dumps(compare.against(WORSE, BETTER)))
    assert first["metrics"] == expected["metrics"]
    assert (tmp_path / compare.PREDICTIONS).read_bytes() == kept
    alone = ask("v-main")
    assert "workspace against v-main: 5 items" in alone.stdout
    missing = ask("nowhere")
    assert missing.returncode == 1
    assert "nowhere: metrics/predictions.jsonl can't be read" in missing.stderr
    assert "Traceback" not in missing.stderr
