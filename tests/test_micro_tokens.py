"""Micro-batches by a budget of tokens: the same learning for every budget, what `auto` chooses, and the longest tried first."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from tests.helpers.commands import one_rank, python
from tests.helpers.families import FAMILIES, HEADS, SHAPE
from tests.helpers.many_trainings import train_all
from tests.helpers.methods import method
from tests.helpers.stages import PATHS
from tests.helpers.workspace import make_workspace
from tuneline.models.packing import pack
from tuneline.runtime.errors import MEMORY_REMEDIES
from tuneline.runtime.params import section_name
from tuneline.train.batching import longest_micro_batch, micro_batches
from tuneline.train.checkpoints import write_manifest
from tuneline.train.collate import padded
from tuneline.train.config.train import Train
from tuneline.train.run import prepare_model
from tuneline.train.sections import load_config
from tuneline.train.sizing import settle as settling
from tuneline.train.sizing.auto import MicroBatchShape, Sizes, choose_sizes
from tuneline.train.sizing.deal import deal_by_count, deal_by_tokens
from tuneline.train.trainer.longest_first import LongestFirstCallback

LENGTHS = np.array([9, 30, 12, 21, 7, 16])


def gradients_of_a_step(deal, *, packed: bool) -> tuple[float, list[torch.Tensor]]:
    """The loss of one step and the gradients of what trains, summed over its micro-batches."""
    _, config_class, special = FAMILIES["Llama 3"]
    config = getattr(transformers, config_class)(
        vocab_size=90, pad_token_id=0, eos_token_id=1, **SHAPE, **HEADS, **special
    )
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(config).requires_grad_(False)
    if packed:
        model.set_attn_implementation("tuneline_rows")
    tuned = prepare_model(model, method(lora={"dropout": 0.0}), False).train()
    generator = torch.Generator().manual_seed(4)
    ids = [torch.randint(2, 90, (length,), generator=generator) for length in LENGTHS.tolist()]
    (step,) = micro_batches(LENGTHS, LENGTHS - 1, deal, batch_size=len(LENGTHS), steps=1, seed=17)
    total = 0.0
    for batch in step:
        rows = [(ids[row], ids[row], tokens) for row, tokens in batch]
        inputs = pack(rows) if packed else padded(rows, 0)
        loss = tuned(**{name: one for name, one in inputs.items() if name != "step_tokens"})["loss"]
        (loss / inputs["step_tokens"]).backward()
        total += loss.item() / int(inputs["step_tokens"])
    return total, [one.grad for one in tuned.parameters() if one.requires_grad]


@pytest.mark.parametrize("packed", [True, False])
def test_loss_and_gradients_of_a_step_are_the_same_for_every_budget(packed):
    loss, gradients = gradients_of_a_step(deal_by_count(6, packed=packed), packed=packed)
    assert any(gradient.any() for gradient in gradients)
    for budget, processes in ((1, 1), (40, 1), (40, 2), (40, 3), (10_000, 1)):
        deal = deal_by_tokens(LENGTHS, budget, processes, packed=packed)
        other, others = gradients_of_a_step(deal, packed=packed)
        assert other == pytest.approx(loss, rel=1e-6)
        for gradient, again in zip(gradients, others, strict=True):
            torch.testing.assert_close(again, gradient, rtol=1e-4, atol=1e-7)


SETTINGS = {
    "rows": {},
    "a row a pass": {"train": {"micro_tokens": 1}},
    "a few": {"train": {"micro_tokens": 60}},
    "all at once": {"train": {"micro_tokens": 10_000}},
    "a few, padded": {"train": {"micro_tokens": 60, "neftune_alpha": 1e-9}},
    "a few, validated": {"train": {"micro_tokens": 60, "eval_fraction": 0.25, "save_steps": 4}},
} | {f"a few, ZeRO {stage}": {"train": {"micro_tokens": 60}, "deepspeed": {"zero_stage": stage}} for stage in (0, 2, 3)}
QUICK = ["rows", "a row a pass", "a few"]


@pytest.mark.story
@pytest.mark.parametrize(
    "names",
    [QUICK, pytest.param(["rows", *(name for name in SETTINGS if name not in QUICK)], marks=pytest.mark.matrix)],
    ids=["quick", "others"],
)
def test_training_is_the_same_for_every_budget(llama_base, tmp_path, names):
    """Also through Trainer and DeepSpeed, whose accumulation steps are not fixed by it: steps differ in micro-batches."""
    for name in names:
        make_workspace(tmp_path / name, llama_base, SETTINGS[name] | {"lora": {"dropout": 0.0}})
    train_all([(str(tmp_path / name), None) for name in names])
    curves = {name: curve(tmp_path / name) for name in names}
    if validated := curves.pop("a few, validated", None):
        assert len(validated) == 8
    assert curves["rows"][-1] < curves["rows"][0]
    for name, losses in curves.items():
        assert losses == pytest.approx(curves["rows"], rel=2e-3), name


def curve(folder: Path) -> list[float]:
    with (folder / "metrics/loss.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]


TRIED = """
import json, os, sys
from pathlib import Path
from transformers import TrainerCallback
from transformers.utils import logging
import tuneline.train.run as training
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from tests.helpers.stages import PATHS, load_config
from tuneline.runtime.params import load
logging.set_verbosity_error()
for folder, on in json.loads(sys.argv[1]):
    os.chdir(folder)
    Path("scratch").mkdir(exist_ok=True)
    callback, tried = training.LongestFirstCallback, []
    class Seen(callback):
        def on_train_begin(self, args, state, control, **kwargs):
            super().on_train_begin(args, state, control, **kwargs)
            assert all(one.grad is None for one in self.model.parameters())
            tried.append(self.batch["input_ids"].numel())
    training.LongestFirstCallback = Seen
    # The device of a GPU, where the trial belongs, is pretended for the question alone.
    training.tries_longest = (lambda device: on)
    # ZeRO-3's of the run before would shard whatever is made next.
    unset_hf_deepspeed_config()
    training.train(load_config(load), PATHS, None)
    training.LongestFirstCallback = callback
    assert bool(tried) == on
"""


@pytest.mark.story
@pytest.mark.parametrize("zero_stages", [(1,), pytest.param((0, 2, 3), marks=pytest.mark.matrix)])
def test_a_trial_of_the_longest_micro_batch_changes_no_byte(llama_base, tmp_path, zero_stages):
    jobs = []
    for stage in zero_stages:
        for on in (False, True):
            folder = tmp_path / f"{stage}-{on}"
            make_workspace(folder, llama_base, {"deepspeed": {"zero_stage": stage}, "train": {"micro_tokens": 40}})
            jobs.append((str(folder), on))
    env = os.environ | one_rank() | {"DS_ACCELERATOR": "cpu"}
    command = [sys.executable, "-c", TRIED, json.dumps(jobs)]
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
    for stage in zero_stages:
        adapters = [
            (tmp_path / f"{stage}-{on}/models/adapter/adapter_model.safetensors").read_bytes() for on in (False, True)
        ]
        assert adapters[0] == adapters[1], f"ZeRO {stage}"


def train_section(params: dict, **changes) -> Train:
    return Train.model_validate(params["train"] | changes)


def test_a_longest_micro_batch_that_does_not_fit_is_one_sentence(params):
    class Full(torch.nn.Module):
        def forward(self, **given):
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.00 GiB. Including non-PyTorch memory, x"
            )

    batch = pack([(torch.arange(9), torch.arange(9), 1), (torch.arange(5), torch.arange(5), 1)])
    params = train_section(params, micro_tokens=14, gradient_checkpointing=False)
    arguments = type("Arguments", (), {"device": torch.device("cpu")})()
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="the longest micro-batch, 14 tokens in 2 rows") as told:
        LongestFirstCallback(Full(), batch, params).on_train_begin(arguments, None, None)
    text = str(told.value)
    assert "(train.micro_tokens: 14, train.gradient_checkpointing: False), does not fit: CUDA out of memory." in text
    assert text.endswith(MEMORY_REMEDIES["train"])
    assert "Including" not in text
    assert torch.equal(torch.get_rng_state(), state)


def test_the_longest_micro_batch_counts_padding_where_there_is_some():
    lengths, steps = np.array([10, 10, 1, 16]), [[[(0, 1), (1, 1)], [(2, 1), (3, 1)]]]
    assert longest_micro_batch(steps, lengths, packed=True) == [(0, 1), (1, 1)]
    assert longest_micro_batch(steps, lengths, packed=False) == [(2, 1), (3, 1)]


GB = 1e9


def needs(shape: MicroBatchShape, checkpointing: bool) -> float:
    """12.5 GB of weights, and 6 MB a token; a tenth of it with checkpointing."""
    return 12.5 * GB + shape.tokens * 6e6 * (0.1 if checkpointing else 1)


ROW = MicroBatchShape((1500,), 700)


@pytest.mark.parametrize(
    ("free", "budget", "checkpointing"),
    [
        # 40.5 GB less 12.5 GB: 4,666 tokens of 6 MB, in whole multiples of 256.
        (45 * GB, 4608, False),
        # 21.6 GB less 12.5 GB: 1,516 tokens, so that one row fits, and little more.
        (24 * GB, 1500, False),
        # 18 GB less 12.5 GB: 916 tokens, or 9,166 with checkpointing.
        (20 * GB, 9088 // 256 * 256, True),
        # All that is faster.
        (180 * GB, 16_384, False),
        # Nothing helps, and the trial will say so.
        (12 * GB, 1500, True),
    ],
)
def test_what_auto_chooses_on_a_card(params, free, budget, checkpointing):
    section = train_section(params, micro_tokens="auto", gradient_checkpointing="auto")
    sizes = choose_sizes(section, ROW, 64 * 1500, free, needs)
    assert (sizes.micro_tokens, sizes.gradient_checkpointing) == (budget, checkpointing), sizes.why
    assert f"micro_tokens {budget:,}, " in sizes.why
    assert f"{free / GB:.1f} GB are free" in sizes.why
    assert ("too little" in sizes.why) == (free < 13 * GB)
    line = MicroBatchShape((1500,) * (budget // 1500) + ((budget % 1500,) if budget % 1500 else ()), budget)
    assert free < 13 * GB or needs(line, checkpointing) <= 0.9 * free


def test_auto_is_no_more_than_a_share_of_a_step(params):
    section = train_section(params, micro_tokens="auto", gradient_checkpointing=False)
    assert choose_sizes(section, ROW, 4 * 1500, 180 * GB, needs).micro_tokens == 6000
    assert choose_sizes(section, ROW, 1500, 180 * GB, needs).micro_tokens == 1500


def test_checkpointing_alone_goes_by_the_longest_micro_batch(params):
    section = train_section(params, micro_tokens=None, gradient_checkpointing="auto")
    widest = MicroBatchShape((1000, 1000), 900)
    assert choose_sizes(section, widest, 8000, 30 * GB, needs)[:2] == (None, False)
    assert choose_sizes(section, widest, 8000, 24 * GB, needs)[:2] == (None, True)
    # The same bytes whatever is free: the budget stays out of it.
    exact = train_section(params, micro_tokens="auto", gradient_checkpointing="auto", deterministic=True)
    assert choose_sizes(exact, widest, 8000, 180 * GB, needs)[:2] == (None, False)


def test_auto_is_settled_once_and_kept_by_a_run_that_goes_on(params, tmp_path, monkeypatch, capsys):
    free = iter([4608, 9984, 512])
    monkeypatch.setattr("tuneline.models.loading.pick_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(settling, "in_children", lambda function, tasks, names: [function(one) for one in tasks])
    monkeypatch.setattr(settling, "sizes_for_this_machine", lambda *_, **named: Sizes(next(free), True, "what fits"))
    config = load_config(lambda section: section.model_validate(params[section_name(section)]))
    assert config.train.micro_tokens == config.train.gradient_checkpointing == "auto"
    paths = PATHS._replace(scratch=tmp_path)

    def settled() -> tuple:
        train = settling.settle(config, 2, paths).train
        return train.micro_tokens, train.gradient_checkpointing

    assert settled() == (4608, True)
    assert "train: auto is what fits" in capsys.readouterr().out
    # Nothing was trained yet, so that what is free now counts.
    assert settled() == (9984, True)
    checkpoint = tmp_path / "checkpoint-2"
    checkpoint.mkdir()
    (checkpoint / "x").write_text("x")
    write_manifest(checkpoint)
    assert settled() == settled() == (9984, True)
    assert json.loads((tmp_path / "auto.json").read_text())["micro_tokens"] == 9984


def test_a_plan_that_fails_leaves_micro_batches_by_rows(params, tmp_path, monkeypatch, capsys):
    def failing(*_, **__):
        raise ChildProcessError("the process for the plan of memory ended with status 1: what it said is above")

    monkeypatch.setattr("tuneline.models.loading.pick_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(settling, "in_children", failing)
    config = load_config(lambda section: section.model_validate(params[section_name(section)]))
    train = settling.settle(config, 1, PATHS._replace(scratch=tmp_path)).train
    assert (train.micro_tokens, train.gradient_checkpointing) == (None, False)
    rows = f"train.micro_batch_size {train.micro_batch_size} rows"
    assert f"train: auto is {rows}: the process for the plan of memory ended with status 1" in capsys.readouterr().out


def test_on_a_cpu_auto_goes_by_rows_and_measures_nothing(params, tmp_path, monkeypatch):
    monkeypatch.setattr("tuneline.models.loading.pick_device", lambda: torch.device("cpu"))
    config = load_config(lambda section: section.model_validate(params[section_name(section)]))
    train = settling.settle(config, 1, PATHS._replace(scratch=tmp_path)).train
    assert (train.micro_tokens, train.gradient_checkpointing) == (None, False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.story
@pytest.mark.matrix
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_processes_share_a_step_of_any_budget(llama_base, tmp_path, stage):
    """Started as a user does: the same rows and losses with one, two and three processes, and equally many passes each."""
    curves = []
    for processes in (1, 2, 3):
        folder = tmp_path / str(processes)
        train = {"batch_size": 6, "micro_tokens": 60, "max_steps": 6}
        zero = {"zero_stage": stage, "processes": processes}
        make_workspace(folder, llama_base, {"train": train, "deepspeed": zero, "lora": {"dropout": 0.0}})
        env = {"TUNELINE_SCRATCH": str(folder / "scratch"), "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
        result = python(folder, "-m", "stages.train", env=env)
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
        curves.append(curve(folder))
        assert json.loads((folder / "metrics/train.json").read_text())["rows_seen"] == 36
        assert json.loads((folder / "metrics/speed/train.json").read_text())["micro_tokens"] == 60
    for losses in curves[1:]:
        assert losses == pytest.approx(curves[0], rel=2e-3)
