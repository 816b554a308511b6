"""F1 of sets of items, by hand."""

import pytest

from tuneline.scoring.extraction import items, micro_f1


def test_items_of_entities_and_of_triples():
    assert items("受害人:严某某、肖某某;被盗物品:查获手机") == {"受害人:严某某", "受害人:肖某某", "被盗物品:查获手机"}
    assert items("工行_被持股_美国运通\n美国运通_持股_工行\n") == {"工行_被持股_美国运通", "美国运通_持股_工行"}
    assert items("受害人：Ａ ；受害人:a") == {"受害人:a"}
    assert items(" \n;；") == frozenset()


def test_micro_f1_by_hand():
    # 2 of 3 said are right, of 4: precision 66.7, recall 50, F1 = 2 * 2 / (3 + 4).
    found = micro_f1(["a_b_c\nx_y_z", "d_e_f"], ["a_b_c\ng_h_i", "d_e_f\nj_k_l"])
    assert (found["precision"], found["recall"]) == (pytest.approx(66.6667, abs=1e-3), 50.0)
    assert found["value"] == pytest.approx(100 * 4 / 7, abs=1e-3)
    assert found["low"] <= found["value"] <= found["high"]


@pytest.mark.parametrize(("said", "right", "value"), [("", "", 0.0), ("a", "", 0.0), ("", "a", 0.0), ("a", "a", 100.0)])
def test_the_edges(said, right, value):
    assert micro_f1([said], [right])["value"] == value


def test_nothing_said_where_nothing_is_right_changes_nothing():
    assert micro_f1(["a", ""], ["a", ""])["value"] == 100.0
