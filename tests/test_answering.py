"""Held-out items dealt to several processes and devices: the same answers, and a clear end."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from tests.helpers.children import fail, kill_itself, run_out_of_memory, square, stumble
from tests.helpers.paths import ROOT
from tests.helpers.workspace import CHATS, make_trained, write_records
from tuneline.cli.machine import answering_facts, gpu_facts
from tuneline.evaluate.answering import Questions, answer, dealt
from tuneline.evaluate.config import Evaluate
from tuneline.evaluate.general_prompts import PROMPTS
from tuneline.formats.records import read_heldout
from tuneline.models.chat_format import load_prompter
from tuneline.models.devices import placement
from tuneline.models.devices.placement import Place, choose, load_at, weight_bytes
from tuneline.models.likelihood import answer_nll, unwrap_peft
from tuneline.models.loading import load_adapter, load_model, load_narrow_adapter, load_tokenizer
from tuneline.runtime.children import in_children
from tuneline.runtime.errors import exit_with_sentence
from tuneline.runtime.gpu import driver_version

CPU = Place(torch.device("cpu"))
PARAMS = Evaluate(max_new_tokens=6, max_thinking_tokens=8, batch_size=3, dtype="float32", constrain=None)


@pytest.fixture
def trained(llama_base, tmp_path, monkeypatch):
    make_trained(tmp_path / "project", llama_base)
    monkeypatch.chdir(tmp_path / "project")
    write_records(Path(), CHATS)
    return read_heldout(Path("data/processed/heldout.jsonl"))


def questions(records, adapter=Path("models/adapter"), params=PARAMS) -> Questions:
    return Questions(Path("models/base"), adapter, records, {}, params, "evaluate")


@pytest.mark.story
def test_two_processes_answer_as_one_does(trained):
    alone = answer(questions(trained), [CPU])
    both = answer(questions(trained), [CPU, CPU])
    assert both.answers == alone.answers
    assert both.general == alone.general
    assert {one["batch"] for one in alone.answers} == {0, 1, 2}
    sizes = [(batch["items"], batch["tokens"]) for batch in alone.run_info["batches"]]
    assert [(batch["items"], batch["tokens"]) for batch in both.run_info["batches"]] == sizes
    assert (both.run_info["processes"], both.run_info["device"]) == (2, "cpu")


def test_every_item_and_prompt_is_dealt_once_in_its_batch(trained):
    asked, tokenizer = questions(trained), load_tokenizer(Path("models/base"))
    whole, names = dealt(tokenizer, asked, 0, 1)
    assert names == list(PROMPTS)
    for count in (2, 3, 4, 9):
        parts = [dealt(tokenizer, asked, index, count) for index in range(count)]
        assert {number: batch for batches, _ in parts for number, batch in batches.items()} == whole
        assert sorted(name for _, names in parts for name in names) == sorted(PROMPTS)
        # Items and prompts are together 10 batches.
        work = [len(batches) + -(-len(names) // 3) for batches, names in parts]
        assert max(work) - min(work) <= 1


def test_results_come_in_order_and_the_first_error_ends_all():
    assert in_children(square, [3, 1, 2], ["a", "b", "c"]) == [9, 1, 4]
    with pytest.raises(ValueError, match="^what was wrong, and how to mend it$"):
        in_children(fail, [0.0, 60.0], ["cuda:0", "cuda:1"])


def test_a_process_that_is_killed_or_stumbles_is_one_sentence(capfd):
    with pytest.raises(SystemExit) as stopped, exit_with_sentence("evaluate"):
        in_children(kill_itself, [60.0, 0.0], ["cuda:0", "cuda:1"])
    assert str(stopped.value) == (
        "evaluate: the process for cuda:1 was ended by SIGKILL, most likely for want of main memory; run the stage again"
    )
    with pytest.raises(ChildProcessError, match=r"the process for cuda:0 ended with status 1: what it said is above"):
        in_children(stumble, [0], ["cuda:0"])
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_full_gpu_of_another_process_is_one_sentence_with_a_remedy():
    with pytest.raises(SystemExit) as stopped, exit_with_sentence("evaluate"):
        in_children(run_out_of_memory, [0], ["cuda:0"])
    assert str(stopped.value).startswith(
        "evaluate: CUDA out of memory. Tried to allocate 2.00 GiB. Lower evaluate.batch_"
    )


PARENT = """
import signal, sys
from tests.helpers.children import after_a_while
from tuneline.runtime.children import in_children
if __name__ == "__main__":
    # A shell without job control has what it starts in the background ignore SIGINT, and so would all below.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    in_children(after_a_while, [sys.argv[1], sys.argv[2]], ["a", "b"])
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_one_that_started_it(tmp_path, ending):
    (tmp_path / "parent.py").write_text(PARENT)
    paths = [tmp_path / "first", tmp_path / "second"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, str(tmp_path / "parent.py"), *map(str, paths)], env=env, stderr=-1)
    while not all(path.exists() and path.read_text() for path in paths):
        assert parent.poll() is None
        time.sleep(0.05)
    children = [psutil.Process(int(path.read_text())) for path in paths]
    parent.send_signal(ending)
    assert parent.wait(20) != 0
    assert not psutil.wait_procs(children, timeout=20)[1]


def test_where_a_model_goes_by_free_memory():
    """13 GB of weights, as a base of 6 billion parameters has."""
    need = 12.5e9

    def places(free, jobs=9, **options):
        found = choose(need, [gb * 1e9 for gb in free], jobs, **options)
        return [(str(one.device), one.limits) for one in found.places], found.sentence

    assert places([]) == ([("cpu", None)], "")
    assert places([23.0]) == ([("cuda:0", None)], "")
    assert places([79.0] * 4, jobs=3) == ([("cuda:0", None), ("cuda:1", None), ("cuda:2", None)], "")
    found, said = places([79.0, 3.0, 79.0])
    assert found == [("cuda:0", None), ("cuda:2", None)]
    assert said == "GPU 1 is left out: the model needs 14.0 GB, free are 79.0, 3.0, 79.0"
    found, said = places([1.0, 10.5, 10.5])
    assert found == [("cuda:1", {1: 9_000_000_000, 2: 9_000_000_000})]
    assert said.endswith("free are 1.0, 10.5, 10.5: its layers are dealt to GPUs 1, 2")
    for free in ([11.5], [4.5, 11.5]):
        found, said = places(free, main=16e9)
        assert found == [(f"cuda:{len(free) - 1}", {len(free) - 1: 10_000_000_000})]
        assert said.endswith(f"main memory, and is copied to GPU {len(free) - 1} for each token, which is slow")
    for free, main in (([11.5], 9e9), ([7.5, 7.5], 9e9), ([4.0], 64e9)):
        found, said = places(free, main=main)
        assert found == [("cpu", None)]
        assert said.startswith("the model needs 14.0 GB of a GPU, free are ")
        assert said.endswith(": the CPU computes, which is slow")


def test_a_model_that_fits_nowhere_is_one_sentence(llama_base, monkeypatch):
    monkeypatch.setattr(placement, "usable_gpus", lambda: 1)
    monkeypatch.setattr(placement, "pick_device", lambda: CPU.device)
    monkeypatch.setattr(placement, "free_memory", lambda gpus: [2e9])
    monkeypatch.setattr(placement, "weight_bytes", lambda folder, dtype: 1e15)
    with pytest.raises(ValueError, match=r"which is slow, and it needs 1000000\.0 GB of main memory, of which"):
        placement.place(llama_base, "float32", "evaluate.dtype")


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_the_layers_that_do_not_fit_are_streamed_and_say_the_same(trained, monkeypatch, layers):
    base, adapter = Path("models/base"), Path("models/adapter")
    row = load_prompter(load_tokenizer(base)).training_row(trained[0]["messages"])
    expected = answer_nll(load_at(CPU, base, torch.float32, adapter), row)
    plain = load_at(CPU, base, torch.float32, adapter)
    size = sum(4 * one.numel() for one in unwrap_peft(plain).model.layers[0].parameters())
    outside = sum(4 * one.numel() for one in plain.parameters()) - 2 * size
    # One has room besides: that which is there for a while.
    network = load_at(Place(CPU.device, {0: outside + (layers + 1) * size}), base, torch.float32, adapter)
    streamed = [layer for layer in unwrap_peft(network).model.layers if layer._forward_pre_hooks]
    assert len(streamed) == 2 - layers
    own = {name: one.data_ptr() for name, one in network.named_parameters()}
    copied = []
    to = torch.Tensor.to

    def moved(self, *args, **kwargs):
        """As from main memory to a card."""
        if args != (CPU.device,) or self.data_ptr() not in own.values():
            return to(self, *args, **kwargs)
        copied.append(self.data_ptr())
        return self.clone()

    monkeypatch.setattr(torch.Tensor, "to", moved)
    assert torch.equal(answer_nll(network, row), expected)
    assert len(copied) == sum(len(list(layer.parameters())) for layer in streamed)
    # What was there for a while is gone.
    assert {name: one.data_ptr() for name, one in network.named_parameters()} == own


def test_the_weights_are_counted_in_the_dtype_they_are_computed_in(llama_base):
    parameters = sum(one.numel() for one in load_model(llama_base, torch.float32).parameters())
    for dtype in (torch.bfloat16, torch.float32):
        assert weight_bytes(llama_base, dtype) == pytest.approx(parameters * dtype.itemsize, rel=0.1)


def test_an_adapter_in_the_bases_dtype_says_nearly_the_same(trained):
    base, adapter = Path("models/base"), Path("models/adapter")
    wide = load_adapter(load_model(base, torch.bfloat16), adapter)
    assert {one.dtype for one in wide.parameters()} == {torch.bfloat16, torch.float32}
    narrow = load_narrow_adapter(load_model(base, torch.bfloat16), adapter, torch.bfloat16)
    assert {one.dtype for one in narrow.parameters()} == {torch.bfloat16}
    row = load_prompter(load_tokenizer(base)).training_row(trained[0]["messages"])
    torch.testing.assert_close(answer_nll(narrow, row), answer_nll(wide, row), rtol=0.02, atol=0.05)


DRIVER = """NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (dvs-builder)
GCC version:  gcc version 12.2.0 (Debian 12.2.0-14+deb12u1)
"""


def test_the_plan_knows_the_gpus_and_where_answers_come_from(trained, monkeypatch, tmp_path):
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    assert (answering_facts(), gpu_facts()) == ({"answers, on": "cpu", "export compares, on": "cpu"}, {})
    (tmp_path / "version").write_text(DRIVER)
    monkeypatch.setattr("tuneline.runtime.gpu.DRIVER", tmp_path / "version")
    assert driver_version() == "580.95.05"
    for module in ("tuneline.models.devices.placement", "tuneline.runtime.gpu"):
        monkeypatch.setattr(f"{module}.usable_gpus", lambda: 2)
    monkeypatch.setattr("tuneline.models.devices.placement.pick_dtype", lambda *_: torch.bfloat16)
    card = SimpleNamespace(name="NVIDIA GeForce RTX 4090", total_memory=25.25e9, major=8, minor=9)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda index: card)
    monkeypatch.setattr("tuneline.models.devices.placement.free_memory", lambda _: [24.8e9, 20e9])
    assert gpu_facts() == {
        "GPU 0": "NVIDIA GeForce RTX 4090, 25.2 GB, 24.8 free, sm_89",
        "GPU 1": "NVIDIA GeForce RTX 4090, 25.2 GB, 20.0 free, sm_89",
    }
    assert answering_facts() == {"answers, on": "cuda:0, cuda:1", "export compares, on": "cuda:0"}
    monkeypatch.setattr("tuneline.models.devices.placement.free_memory", lambda _: [1e9, 1e9])
    found = answering_facts()
    assert all(
        value.startswith("cpu (the model needs 1.5 GB of a GPU, free are 1.0, 1.0: ") for value in found.values()
    )
