"""The pseudo-terminal that tests look at: what its screen keeps, what it refuses, and a command without an end."""

import time

import psutil
import pytest

from tests.helpers.terminal import on_screen, shown


@pytest.mark.parametrize(
    ("written", "left"),
    [
        ("abcdef\rxy", "xycdef"),
        ("abcdef\rxy\x1b[K", "xy"),
        ("abcdef\rxy\x1b[0Kz", "xyz"),
        ("abcdef\x1b[2K\rxy", "xy"),
        ("abcdef\x1b[2Kg", "      g"),
        ("abcdef\rxy\x1b[1K", "   def"),
        ("\x1b[?25l\x1b[1;32mgreen\x1b[0m\x1b[?25h", "green"),
        ("医疗问答\rab", "ab疗问答"),
        ("医疗\r    \r", ""),
    ],
)
def test_a_line_is_what_was_written_over_and_erased(written, left):
    assert on_screen(written) == left


@pytest.mark.parametrize(
    "written", ["a\x1b[1A", "a\x1b[3D", "a\x1b[2J", "a\x1b[5;1H", "a\x1b[3K", "a\x1b7", "a\bb", "a\x1b]8"]
)
def test_a_movement_that_it_does_not_know_fails(written):
    with pytest.raises(AssertionError, match="unknown control sequence"):
        on_screen(written)


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_command_without_an_end_is_killed_with_its_children(tmp_path):
    program = (
        "import subprocess, sys, time; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
        "print('begun', child.pid, flush=True); time.sleep(600)"
    )
    with pytest.raises(AssertionError, match=r"no end after 4 s of: -c (.|\n)*begun \d+") as failure:
        shown(tmp_path, 40, "-c", program, env={}, limit=4)
    child = int(str(failure.value).split()[-1])
    deadline = time.monotonic() + 60
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(child)
