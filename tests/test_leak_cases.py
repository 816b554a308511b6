"""Public situations in which rows share text that is not their own, and real samples with known leaks."""

import os
from pathlib import Path

import pytest

from benchmarks.leaks import run_convert, summary_line

SAMPLES = os.environ.get("TUNELINE_SAMPLES")
CASES = Path(SAMPLES or "") / "cases/data"
pytestmark = pytest.mark.skipif(
    not CASES.is_dir() or not SAMPLES, reason="TUNELINE_SAMPLES names no folder with cases/data"
)


@pytest.mark.parametrize(
    ("case", "heldout", "kept"),
    [
        ("l01_prefix_in_query", 10, 110),
        ("l01b_same_with_instruction", 10, 110),
        ("l01c_prefix_in_sharegpt", 10, 110),
        ("l02_suffix_in_query", 10, 110),
        ("l03_kg_templated_questions", 50, 350),
        ("l04_law_articles", 2, 18),
        ("l05_numbers", 2, 10),
        ("l09_one_source_lost_silently", 2, 60),
        ("r24_text2sql_schema_prefix", 2, 10),
        ("r26_dup_by_source_key_only", 2, 6),
    ],
)
def test_no_innocent_row_is_removed(case, heldout, kept):
    sources = [{"path": path.name} for path in sorted((CASES / case).iterdir())]
    counts, _ = run_convert(CASES / case, {"sources": sources, "heldout": heldout})
    assert (counts["total"]["train"], counts["total"]["leaks"]) == (kept, 0)


@pytest.mark.parametrize(
    ("path", "fewest", "most"),
    [
        ("lexeval/5_4.json", 60, 70),
        ("lexeval/6_1.json", 0, 2),
        ("medquad", 12, 16),
        ("zhongjing_cmtmedqa/CMtMedQA_test.json", 0, 2),
        ("cpsycoun/Data", 0, 3),
    ],
)
def test_a_real_sample_loses_what_leaks_and_no_more(path, fewest, most):
    folder = Path(SAMPLES, "data", path).parent
    counts, _ = run_convert(folder, {"sources": [{"path": Path(path).name}], "heldout": 50})
    assert fewest <= counts["total"]["leaks"] <= most


def test_precision_and_recall():
    assert summary_line({("a", True, True): 3, ("a", True, False): 1, ("b", False, True): 1}) == (
        "5 pairs: precision 0.750, recall 0.750"
    )
