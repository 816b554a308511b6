"""F1 of sets of items, by hand."""

import pytest

from tuneline.scoring.counts import (
    classes_of,
    macro_f1,
    merge_others,
    micro_f1,
    per_class,
    precision,
    recall,
    tensor,
)
from tuneline.scoring.extraction import entities, entity_type, items, relation, triples


def test_items_of_entities_and_of_triples():
    assert items("受害人:严某某、肖某某;被盗物品:查获手机") == {"受害人:严某某", "受害人:肖某某", "被盗物品:查获手机"}
    assert items("工行_被持股_美国运通\n美国运通_持股_工行\n") == {"工行_被持股_美国运通", "美国运通_持股_工行"}
    assert items("受害人：Ａ ；受害人:a") == {"受害人:a"}
    assert items(" \n;；") == frozenset()


def figures(said, right):
    counts = [triples(one, [other]) for one, other in zip(said, right, strict=True)]
    sums = tensor(counts, classes_of(counts)).sum(0)
    return {figure.__name__: float(figure(sums)) for figure in (precision, recall, micro_f1, macro_f1)}


def test_micro_and_macro_f1_by_hand():
    # 2 of 3 said are right, of 4: precision 66.7, recall 50, F1 = 2 * 2 / (3 + 4).
    found = figures(["a_在_c\nx_y_z", "d_在_f"], ["a_在_c\ng_h_i", "d_在_f\nj_h_l"])
    assert (found["precision"], found["recall"]) == (pytest.approx(66.6667, abs=1e-3), 50.0)
    assert found["micro_f1"] == pytest.approx(100 * 4 / 7)
    # Of the relations of the references, 在 is found always and h never; y is in none of them.
    assert found["macro_f1"] == 50.0


def test_relations_of_what_is_said_and_right():
    assert [relation(item) for item in ("甲_在_乙", "受害人:丙", "nothing", "a_b")] == ["在", "", "", ""]
    assert [entity_type(item) for item in ("甲_在_乙", "受害人:丙", "账号:a_b_c")] == ["", "受害人", "账号"]
    assert entities("账号:a_b_c、d", ["账号:a_b_c"]) == {"账号": (1, 2, 1)}
    assert triples("甲_在_乙\n乱写", ["甲_在_乙\n丙_属于_丁"]) == {"": (0, 1, 0), "在": (1, 1, 1), "属于": (0, 0, 1)}
    table = per_class([triples("甲_在_乙\n乱写", ["甲_在_乙\n丙_属于_丁"])])
    assert table["在"] == {"f1": 100.0, "precision": 100.0, "recall": 100.0, "support": 1}
    assert table["属于"]["f1"] == 0.0
    assert "" not in table


@pytest.mark.parametrize(("said", "right", "value"), [("", "", 0.0), ("a", "", 0.0), ("", "a", 0.0), ("a", "a", 100.0)])
def test_the_edges(said, right, value):
    assert figures([said], [right])["micro_f1"] == value


def test_nothing_said_where_nothing_is_right_changes_nothing():
    assert figures(["a", ""], ["a", ""])["micro_f1"] == 100.0


def test_the_best_of_several_references_counts():
    assert triples("甲_在_乙", ["丙_在_丁", "甲_在_乙"]) == {"在": (1, 1, 1)}


def test_what_no_reference_holds_is_one_class():
    assert merge_others({"在": (1, 2, 3), "乱": (0, 1, 0), "写": (0, 2, 0)}, {"在"}) == {"在": (1, 2, 3), "": (0, 3, 0)}
