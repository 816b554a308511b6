"""Errors of a process whose others are gone, and the heartbeat between hosts."""

import subprocess
import sys
import threading
import time

import pytest
import torch.distributed

from tests.helpers.paths import ROOT
from tests.helpers.ports import free_port
from tuneline.train.trainer.connection import connection_errors
from tuneline.train.trainer.heartbeat import SILENT_SECONDS, Heard, HostRank, beat, place_of

GONE = "another process of this run is gone, or its host is"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error [10.0.0.2]:51937"),
        RuntimeError("Connection closed by peer [10.0.0.2]:3101"),
        torch.distributed.DistBackendError("NCCL communicator was aborted on rank 0"),
    ],
)
def test_a_lost_process_is_one_sentence(error):
    with pytest.raises(ValueError, match=GONE), connection_errors():
        raise error


def test_other_errors_stay_as_they_are():
    with pytest.raises(RuntimeError, match="mat1 and mat2"), connection_errors():
        raise RuntimeError("mat1 and mat2 must have the same dtype")


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({"CROSS_SIZE": "2", "CROSS_RANK": "1", "LOCAL_RANK": "0"}, HostRank(1, 2, True)),
        ({"GROUP_WORLD_SIZE": "3", "GROUP_RANK": "2", "LOCAL_RANK": "1"}, HostRank(2, 3, False)),
        ({"RANK": "0", "WORLD_SIZE": "8", "LOCAL_RANK": "0"}, HostRank(0, 1, True)),
    ],
)
def test_where_a_process_runs(variables, place):
    assert place_of(variables) == place


def test_a_host_is_lost_after_a_minute_without_a_beat():
    store = torch.distributed.TCPStore("127.0.0.1", free_port(), is_master=True, wait_for_workers=False)
    clock = [0.0]
    alpha, beta = (Heard(HostRank(host, 3, True), lambda: clock[0]) for host in (0, 1))
    for clock[0] in (10.0, SILENT_SECONDS):
        alpha.exchange(store)
        beta.exchange(store)
    clock[0] = SILENT_SECONDS + 11
    assert alpha.silent() == [2]
    alpha.exchange(store)
    assert beta.silent() == [2]
    clock[0] = 2 * SILENT_SECONDS + 12
    assert alpha.silent() == [1, 2]
    beta.exchange(store)
    alpha.exchange(store)
    assert (alpha.silent(), beta.silent()) == ([2], [2])


def test_a_store_that_is_gone_ends_the_beats(monkeypatch):
    class Gone:
        def add(self, key, amount):
            raise torch.distributed.DistNetworkError("failed to recv, got 0 bytes")

    monkeypatch.setattr("tuneline.train.trainer.heartbeat.BEAT_SECONDS", 0.01)
    beat(Gone(), Heard(HostRank(0, 2, True), time.monotonic), threading.Event())


def test_silence_ends_a_process_whatever_it_waits_for():
    program = f"""
import os, time
PORT = {free_port()}
import torch.distributed
from tuneline.train.trainer import heartbeat
heartbeat.SILENT_SECONDS, heartbeat.BEAT_SECONDS = 2.0, 0.1
os.environ |= dict(CROSS_SIZE="2", CROSS_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(PORT))
server = torch.distributed.TCPStore("127.0.0.1", PORT, is_master=True, wait_for_workers=False)
with heartbeat.hosts_watched():
    time.sleep(100)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, timeout=60, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr.endswith(
        "train: host 2 of 2 has said nothing for 2 seconds, it or the connection to it is lost; `dvc repro` goes on from the "
        "newest checkpoint\n"
    )
