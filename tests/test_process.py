"""One run at a time, and none that outlives what started it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.helpers.paths import ROOT
from tuneline.runtime.process import LockWatch, exclusive_lock

CHILD = (
    "import time; from tuneline.runtime.process import exit_with_parent; exit_with_parent({pid}); "
    "print('up', flush=True); time.sleep(60)"
)


def test_a_second_holder_is_refused_with_the_pid_of_the_first(tmp_path):
    program = (
        "import time; from pathlib import Path; from tuneline.runtime.process import exclusive_lock\n"
        f"with exclusive_lock(Path({str(tmp_path / 'lock')!r})):\n    print('held', flush=True); time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(ValueError, match=rf"another training run holds .* \(pid {holder.pid}\)"),
            exclusive_lock(tmp_path / "lock"),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()
    with exclusive_lock(tmp_path / "lock"):
        assert (tmp_path / "lock").read_text().strip() == str(os.getpid())


def test_the_holder_of_a_lock_is_watched(tmp_path):
    path = tmp_path / "lock"
    assert not LockWatch(path).is_gone()
    with exclusive_lock(path):
        watch = LockWatch(path)
        assert not watch.is_gone()
    assert watch.is_gone()
    assert not LockWatch(path).is_gone()
    with exclusive_lock(path):
        again = LockWatch(path)
        path.write_text(" 1\n")
        assert again.is_gone()


def test_a_process_ends_with_the_one_it_watches():
    watched = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD.format(pid=watched.pid)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "up\n"
    assert child.poll() is None
    watched.send_signal(signal.SIGKILL)
    watched.wait()
    assert child.wait(timeout=10) == -signal.SIGKILL


def test_a_process_that_is_gone_already_ends_us_at_once():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    time.sleep(0.1)
    child = subprocess.run([sys.executable, "-c", CHILD.format(pid=gone.pid)], cwd=ROOT, timeout=30, check=False)
    assert child.returncode == -signal.SIGKILL
