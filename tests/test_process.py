"""One run at a time, and none that outlives what started it."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.helpers.paths import ROOT
from tuneline.runtime.locks import LockWatch, exclusive_lock

CHILD = (
    "import time; from tuneline.runtime.process import exit_with_parent; exit_with_parent({pid}); "
    "print('up', flush=True); time.sleep(60)"
)


def test_a_second_holder_is_refused_with_the_pid_of_the_first(tmp_path):
    program = (
        "import time; from pathlib import Path; from tuneline.runtime.locks import exclusive_lock\n"
        f"with exclusive_lock(Path({str(tmp_path / 'lock')!r}), 'x'):\n    print('held', flush=True); time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(ValueError, match=r"^the stage is run by another process now: ") as refused,
            exclusive_lock(tmp_path / "lock", "the stage is run"),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()
    assert re.search(
        rf": process {holder.pid} in {ROOT}, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d; wait", str(refused.value)
    )
    assert str(refused.value).endswith(f"wait until it ends, or stop it (`kill {holder.pid}`), and run again")
    # The lock of a process that was killed stops nobody, and says that it was.
    with exclusive_lock(tmp_path / "lock", "x") as before:
        assert before.startswith(f"process {holder.pid} in ")
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} in ")
    assert not (tmp_path / "lock").exists()
    with exclusive_lock(tmp_path / "lock", "x") as before:
        assert before == ""


def test_the_holder_of_a_lock_is_watched(tmp_path):
    path = tmp_path / "lock"
    assert not LockWatch(path).is_gone()
    with exclusive_lock(path, "x"):
        watch = LockWatch(path)
        assert not watch.is_gone()
    assert watch.is_gone()
    assert not LockWatch(path).is_gone()
    with exclusive_lock(path, "x"):
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
