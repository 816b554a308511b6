"""The GPU benchmark runs where there is no GPU, so that it runs where there is one; figures come out as worked by hand."""

import re
import subprocess

from benchmarks.figures import after_first, measure, table, verdicts, workload
from tests.helpers.commands import python
from tests.helpers.paths import ROOT


def test_every_setting_of_the_gpu_benchmark_runs_and_finds_one_loss():
    result = python(ROOT, "-m", "benchmarks.gpu", "--smoke")
    assert result.returncode == 0, result.stderr[-3000:]
    rows = [line.split("|")[1:-1] for line in result.stdout.splitlines() if re.match(r"\| (6B|0.3B) ", line)]
    assert len(rows) >= 12
    by_work = {}
    for row in rows:
        work = tuple(cell.strip() for cell in (*row[:3], row[8]))
        by_work.setdefault(work, []).append(float(row[-1]))
    assert any(len(losses) > 4 for losses in by_work.values())
    for work, losses in by_work.items():
        assert max(losses) - min(losses) < 0.02, f"{work}: {losses}"


def test_the_script_is_sound_shell():
    assert subprocess.run(["sh", "-n", str(ROOT / "benchmarks/gpu.sh")], check=False).returncode == 0


JOB = {
    "rows": [{"input_ids": [1] * 10, "labels": [-100] * 4 + [1] * 6}] * 6,
    "max_tokens": 15,
    "per_token": 3,
    "per_learnt_token": 5,
}


def run(seconds: float, steps: int = 3, peak: float = 2.0) -> dict:
    return {"times": [10 + seconds * step for step in range(steps)], "losses": [3.0, 2.5, 2.0][:steps], "peak_gb": peak}


def test_the_work_of_a_step_by_hand():
    work = workload(JOB, 2)
    assert (work.tokens, work.learnt) == ([20] * 3, [12] * 3)
    assert work.operations == [3 * 20 + 5 * 12] * 3


def test_rates_leave_out_the_first_step():
    assert after_first([10, 14, 18], [7, 20, 20]) == 5
    # A packed run has fewer steps: with rows of 15 tokens its first one holds 30 of the 60, and the second the rest.
    assert workload(JOB, 2).fuller == 1.5
    assert after_first([10, 14], [20, 20, 20], 1.5) == 7.5


def test_ratios_to_the_goals():
    work = workload(JOB, 2)
    runs = {
        "Tuneline": [run(2), run(4), run(2)],
        "LLaMA-Factory": [run(4)],
        "TRL": [run(4)],
        "TRL, packing": [run(8, 2)],
    }
    figures = {name: measure(given, work, peak=100) for name, given in runs.items()}
    ours = figures["Tuneline"]
    assert (ours.rate, ours.lowest, ours.highest, ours.share) == (10, 5, 10, 0.6)
    assert "| Tuneline | 10 (5–10) | 2.0 | 0.60 | 2.0 | 10 | 14 | 2.500 |" in table(figures)
    said = verdicts(figures)
    assert "| tokens/s, of LLaMA-Factory's | 2.00 | 1.50 | met |" in said
    assert "| tokens/s, of TRL's | 2.00 | 3.00 | not met |" in said
    assert "| 4 GB, of the peak memory | 2.00 | 1.00 | met |" in said
    assert "| mean loss over the same rows, less TRL's | +0.00% | ± 1 % | met |" in said
