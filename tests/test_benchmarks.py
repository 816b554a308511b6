"""The GPU benchmark runs where there is no GPU, so that it runs where there is one."""

import re
import subprocess

from tests.conftest import ROOT, python


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
