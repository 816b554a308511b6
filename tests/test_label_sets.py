"""Sets of labels: right labels in any order, F1 over all of them, and answers that are right as a whole."""

import pytest

from tuneline.evaluate.compare import compare
from tuneline.evaluate.tasks import item_score
from tuneline.formats.metrics import METRICS, main_metric
from tuneline.scoring.label_sets import exact_sets, label_set, label_sets


@pytest.mark.parametrize("text", ["内科、外科", "外科, 内科", "内科 外科", "外科；内科。", "内科\n外科\n内科"])
def test_labels_in_any_order_are_the_same_set(text):
    assert label_set(text) == {"内科", "外科"}


def test_letters_may_stand_together():
    assert label_set("ABD") == label_set("B、A，D") == {"a", "b", "d"}
    assert label_set("Cardiology") == {"cardiology"}


def test_counts_of_one_answer():
    assert label_sets("A、C", ["AB"]) == {"a": (1, 1, 1), "b": (0, 0, 1), "c": (0, 1, 0)}
    assert label_sets("", [""]) == {}
    assert label_sets("A", ["B", "A、C"]) == {"a": (1, 1, 1), "c": (0, 0, 1)}
    assert [exact_sets(answer, ["AB"])["sets"][0] for answer in ("BA", "A", "ABC")] == [1, 0, 0]


def test_an_evaluation_has_their_metrics():
    scores = {name: 1.0 for name, metric in METRICS.items() if not metric.corpus}
    rows = [
        {
            "task": "labels",
            "references": ["A、B"],
            "base": base,
            "tuned": tuned,
            "scores": {"base": scores, "tuned": scores},
        }
        for base, tuned in (("A", "BA"), ("C", "A、B、C"))
    ]
    result = compare(rows)
    assert main_metric(result["delta"]) == "labels_f1"
    assert result["tuned"]["labels_exact_match"]["value"] == 50
    assert result["tuned"]["labels_f1"]["value"] == pytest.approx(100 * 2 * 4 / (5 + 4))
    assert result["base"]["labels_recall"]["value"] == 25
    assert item_score(rows[0], "tuned") == 100
