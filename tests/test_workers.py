"""The ordered map over worker processes: few batches in flight, and no process that outlives another."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.helpers.paths import ROOT
from tuneline.data.workers import AHEAD, Workers


def pid_after(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def test_a_slow_consumer_holds_the_source_back():
    taken = []
    with Workers(2) as pool:
        results = pool.map(abs, (taken.append(number) or -number for number in range(200)))
        assert next(results) == 0
        time.sleep(0.5)
        assert len(taken) <= 2 * AHEAD + 2
        assert list(results) == list(range(1, 200))


def test_a_second_map_is_done_by_the_same_processes():
    with Workers(2) as pool:
        first, second = ({*pool.map(pid_after, [0.1] * 8)} for _ in range(2))
    assert len(first) == 2
    assert first == second
    assert os.getpid() not in first


def test_one_batch_alone_starts_no_process(monkeypatch):
    monkeypatch.setattr("tuneline.data.workers.ProcessPoolExecutor", None)
    assert list(Workers(2).map(abs, [-1])) == [1]
    assert list(Workers(1).map(abs, [-1, -2, -3])) == [1, 2, 3]


def test_an_error_of_the_source_is_raised_as_it_is():
    def torn():
        yield from range(20)
        raise ValueError("the file is torn")

    with Workers(2) as pool, pytest.raises(ValueError, match="the file is torn"):
        list(pool.map(abs, torn()))


def start(program: str, folder: Path) -> subprocess.Popen:
    """A program in a process of its own, from a file, as spawned workers need it."""
    (folder / "program.py").write_text(program)
    return subprocess.Popen(
        [sys.executable, str(folder / "program.py")],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": "."},
    )  # fmt: skip


def test_a_killed_worker_is_one_sentence_also_while_a_large_batch_is_on_its_way(tmp_path):
    """python/cpython#94777: the pool of Python 3.11.2 waits for ever then."""
    program = (
        "from tests.helpers.killed_worker import end_at_once\n"
        "from tuneline.data.workers import Workers\n"
        "if __name__ == '__main__':\n"
        "    with Workers(2) as pool:\n"
        "        list(pool.map(end_at_once, [bytes(20_000_000)] * 8))\n"
    )
    _, errors = start(program, tmp_path).communicate(timeout=60)
    assert "ValueError: a worker process was killed" in errors


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    program = (
        "import time\n"
        "from tuneline.data.workers import Workers\n"
        "if __name__ == '__main__':\n"
        "    list(Workers(2).map(time.sleep, [600] * 8))\n"
    )
    parent = start(program, tmp_path)
    deadline = time.monotonic() + 60
    workers: list[psutil.Process] = []
    while len(workers) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
        children = psutil.Process(parent.pid).children()
        # Watching its parent is a second thread; a process that multiprocessing starts beside the workers has one.
        workers = [child for child in children if child.num_threads() > 1]
    parent.kill()
    parent.communicate()
    gone, alive = psutil.wait_procs(workers, timeout=20)
    assert (len(gone), alive) == (2, [])
