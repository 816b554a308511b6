"""Many requests of mixed kinds, slow clients among them: bounded waits, flat memory, a healthy server at the end."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from benchmarks.serve import LIMITS, serving, timed_requests
from chat.limits import MAX_WAIT


def run_load(folder, requests: int, warm_up: int, clients: int = 50) -> tuple[float, float, Counter[str]]:
    """(growth of memory after the warm-up, longest wait in seconds, outcomes)."""
    waits: list[float] = []
    with serving(folder) as (process, address), httpx.Client(base_url=address, timeout=300, limits=LIMITS) as client:
        resident = psutil.Process(process.pid).memory_info
        timed = timed_requests(client, waits)
        with ThreadPoolExecutor(clients) as pool:
            outcomes = Counter(pool.map(timed, range(warm_up)))
            before = resident().rss
            outcomes.update(pool.map(timed, range(warm_up, requests)))
        assert client.get("/health").status_code == 200
        assert timed(0) == "at once 200"
        return resident().rss / before - 1, max(waits), outcomes


def check(outcomes: Counter[str]) -> None:
    """Nothing but answers, and refusals of what is wrong."""
    good = {"at once 200", "streamed 200", "gone 200", "sent slowly 200", "read slowly 200"}
    assert good <= outcomes.keys()
    assert all(outcome.startswith("wrong 4") for outcome in outcomes.keys() - good), outcomes


@pytest.mark.story
def test_a_hundred_and_fifty_requests(made):
    _, longest, outcomes = run_load(made, 150, 50)
    check(outcomes)
    assert longest < MAX_WAIT


@pytest.mark.matrix
def test_two_thousand_requests_leave_memory_flat(made):
    growth, longest, outcomes = run_load(made, 2000, 200)
    check(outcomes)
    assert growth < 0.05 and longest < MAX_WAIT
