"""How the outcome of an attack is told, and some attacks of each kind on a tiny project."""

import re
import subprocess
import sys

import pytest

from benchmarks.faults.cases import compared
from benchmarks.faults.full_disk import WARNING
from benchmarks.faults.outcomes import FAULTS, Outcome, Run, judge
from benchmarks.faults.wrong_values import harmless
from tests.helpers.paths import ROOT

TRACEBACK = "Traceback (most recent call last):\n  File \"a.py\", line 1, in <module>\nKeyError: 'messages'\n"
BAR = "Writing model shards:   0%|          | 0/1 [00:00<?, ?it/s]\rWriting model shards: 100%|███| 1/1 [00:00<00:00, 6it/s]"


def outcome(run: Run, *names: str, statuses=(1,)) -> Outcome | None:
    result = judge("x", run, "train", names, statuses=statuses)
    return result and result.outcome


def test_an_end_without_an_error_is_judged_by_what_was_written():
    assert outcome(Run(0, "train: adapter in models/adapter", "")) is None


@pytest.mark.parametrize(
    "stderr",
    [
        "train: models/base is torn: run `dvc repro base`\n",
        f"{BAR}\ntrain: models/base is torn\n",
        "[2026-11-26 11:15:07,482] [WARNING] [real_accelerator.py:213] no GPU\ntrain: models/base is torn\n",
        "train: reading rows: 2,064 of 3,000 rows, 5 s left\ntrain: models/base is torn\n",
        "train: the template said: a Traceback (most recent call last): b\n",
    ],
)
def test_one_sentence(stderr):
    assert outcome(Run(1, "stage 6 of 9: train", stderr)) is Outcome.SENTENCE


@pytest.mark.parametrize(
    ("status", "stderr"),
    [
        (1, TRACEBACK),
        (1, f"train: a\n{TRACEBACK}"),
        (1, ""),
        (1, "train: a\ntrain: b\n"),
        (1, "RuntimeError: of a library\ntrain: a\n"),
        (1, "base: of another stage\n"),
        (1, "train: 3 of 4\ntrain: a\n"),
        (2, "train: a\n"),
        (-9, ""),
        (-11, "train: a\n"),
    ],
)
def test_anything_else_counts_as_a_traceback(status, stderr):
    assert outcome(Run(status, "", stderr)) is Outcome.TRACEBACK


def test_memory_that_a_limit_of_ours_allowed_is_no_fault():
    said = "train: its tokenizer (tokenizer.json) takes more than 6144 MB of memory, or the machine has less\n"
    assert outcome(Run(1, "", said, peak=6_100_000_000)) is Outcome.SENTENCE
    assert outcome(Run(1, "", said, peak=7_000_000_000)) is Outcome.MEMORY
    assert outcome(Run(1, "", "train: a\n", peak=6_100_000_000)) is Outcome.MEMORY


def test_a_checkpoint_that_found_no_room_is_told_beside_the_end():
    told = "train: checkpoint at step 6 could not be written: a. Training goes on; the last good checkpoint stays\n"
    assert WARNING.sub("", f"{told}{told}train: b\n") == "train: b\n"


def test_a_traceback_counts_wherever_it_is_and_whatever_the_status():
    assert outcome(Run(0, TRACEBACK, "")) is Outcome.TRACEBACK
    assert outcome(Run(0, "", TRACEBACK)) is Outcome.TRACEBACK


def test_a_stopped_run_has_a_status_of_its_own():
    stopped = Run(130, "", "train: stopped; run again\n")
    assert outcome(stopped, statuses=(130,)) is Outcome.SENTENCE
    assert outcome(stopped) is Outcome.TRACEBACK


def test_a_sentence_names_its_file():
    assert outcome(Run(1, "", "train: models/base/config.json is no JSON\n"), "config.json") is Outcome.SENTENCE
    assert outcome(Run(1, "", "train: Expecting value: line 1 column 1\n"), "config.json") is Outcome.UNNAMED
    assert outcome(Run(1, "", "train: UnicodeDecodeError\n")) is Outcome.UNNAMED


def test_a_hang_and_too_much_memory():
    assert outcome(Run(None, "", "")) is Outcome.HANG
    assert outcome(Run(0, "", "", peak=3 * 10**9)) is Outcome.MEMORY
    assert outcome(Run(1, "", "train: MemoryError\n")) is Outcome.MEMORY


EXPECTED = {"models/adapter/a": b"1", "models/adapter/b": b"2", "metrics/train.json": b"3", "metrics/loss.csv": b"4"}


@pytest.mark.parametrize(
    ("found", "whole", "right"),
    [
        (EXPECTED, True, True),
        (EXPECTED | {"metrics/train.json": b"0"}, True, False),
        (EXPECTED | {"models/adapter/c": b"0"}, True, False),
        ({}, True, False),
        ({}, False, True),
        ({"metrics/train.json": b"3"}, False, True),
        ({"models/adapter/a": b"1"}, False, False),
        ({"metrics/loss.csv": b"half"}, False, True),
        ({"metrics/loss.csv": b"half"}, True, False),
    ],
)
def test_other_bytes_and_half_a_folder_are_silent_faults(found, whole, right):
    assert compared("x", found, EXPECTED, whole=whole).outcome is (Outcome.RIGHT if right else Outcome.SILENT)


def test_a_value_may_be_taken_only_where_it_means_what_it_says():
    assert harmless("train.deterministic", "true", False)
    assert not harmless("train.deterministic", "yes", False)
    assert not harmless("lora.r", "2**70", 16)
    assert harmless("data.seed", "-1", 17)
    assert harmless("lora.layers_to_transform", "list", None)
    assert not harmless("lora.layers_to_transform", "yes", None)


@pytest.mark.story
@pytest.mark.matrix
def test_some_attacks_of_each_kind_find_nothing():
    command = [sys.executable, "-m", "benchmarks.faults", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=3600)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    header, _, *rows = [re.findall(r"[^|]+", line) for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(rows) >= 10 and len(header) == 2 + len(Outcome)
    assert all(int(row[2 + list(Outcome).index(fault)]) == 0 for row in rows for fault in FAULTS)
