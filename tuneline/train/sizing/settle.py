"""Settling of `auto` before any process starts: measured in a process of its own, written down, and kept by a resumed run."""

import json
from functools import partial
from pathlib import Path

from tuneline.runtime.atomic import write_json
from tuneline.runtime.children import in_children
from tuneline.runtime.terminal.lines import say
from tuneline.train.checkpoints import newest_complete
from tuneline.train.config.train import Train
from tuneline.train.process_arguments import Paths
from tuneline.train.sections import TrainingConfig
from tuneline.train.sizing.auto import MicroBatchShape, Sizes, Target, asks_plan, choose_sizes, line

SETTLED = "auto.json"
"""In the scratch folder: what `auto` came to."""


def settle(config: TrainingConfig, processes: int, paths: Paths) -> TrainingConfig:
    """The config with numbers in the place of `auto`, the same for every process, and for a run that goes on.

    On a CPU micro-batches go by rows, and nothing is computed twice.
    """
    from tuneline.models.loading import pick_device

    train, written = config.train, paths.scratch / SETTLED
    if not asks_plan(train) or pick_device().type != "cuda":
        return with_sizes(config, by_rows(train))
    if written.is_file() and newest_complete(paths.scratch):
        sizes = Sizes(**json.loads(written.read_text(encoding="utf-8")))
    else:
        # CUDA's own memory stays with a process that has once asked for anything.
        measure = partial(sizes_for_this_machine, processes=processes, tokens=paths.tokens, base=paths.base)
        try:
            (sizes,) = in_children(measure, [config], ["the plan of memory"])
        except ChildProcessError as error:
            # A base that the plan was not made for can be trained all the same.
            sizes = by_rows(train)._replace(why=f"train.micro_batch_size {train.micro_batch_size} rows: {error}")
        write_json(written, sizes._asdict())
    say(f"train: auto is {sizes.why}")
    return with_sizes(config, sizes)


def with_sizes(config: TrainingConfig, sizes: Sizes) -> TrainingConfig:
    chosen = {"micro_tokens": sizes.micro_tokens, "gradient_checkpointing": sizes.gradient_checkpointing}
    return config._replace(train=config.train.model_copy(update=chosen))


def by_rows(train: Train) -> Sizes:
    """Without a plan `auto` is train.micro_batch_size and no checkpointing."""
    budget = train.micro_tokens if isinstance(train.micro_tokens, int) else None
    return Sizes(budget, train.gradient_checkpointing is True, "")


def sizes_for_this_machine(config: TrainingConfig, processes: int, tokens: Path, base: Path) -> Sizes:
    """The choice by what is free on the fullest of the GPUs that will train."""
    import torch

    from tuneline.models.loading import pick_device, pick_dtype
    from tuneline.models.untrusted.native_config import config_of
    from tuneline.train.collate import rows_packed

    used = min(processes, torch.cuda.device_count())
    memory = min(torch.cuda.mem_get_info(index)[0] for index in range(used))
    values = json.loads((base / "config.json").read_text(encoding="utf-8"))
    dtype = str(pick_dtype(config.train.dtype, pick_device(), "train.dtype", values)).removeprefix("torch.")
    model_config = config_of(values)
    packed = rows_packed(model_config, config) is not False
    target = Target(model_config, dtype, processes, float(memory), "cuda", packed)
    return sizes_for(config, target, tokens)


def sizes_for(config: TrainingConfig, target: Target, tokens: Path | None, longest: int = 0) -> Sizes:
    """The choice for a GPU; without a token file for rows of at most `longest` tokens."""
    from tuneline.train.sizing.process_memory import memory_parts

    train = config.train
    if train.budget_is_open:
        # An open budget begins with the longest row.
        train = train.model_copy(update={"micro_batch_size": 1})
    widest = widest_micro_batch(config._replace(train=train), target, tokens, longest)
    share = max(widest.lengths) * (train.batch_size // target.processes)

    def needs(shape: MicroBatchShape, checkpointing: bool) -> float:
        given = Sizes(None, checkpointing, "")
        return sum(memory_parts(with_sizes(config, given), target, shape).values())

    return choose_sizes(train, widest, share, target.memory, needs)


def widest_micro_batch(config: TrainingConfig, target: Target, tokens: Path | None, longest: int) -> MicroBatchShape:
    """The run's longest micro-batch, where the budget is a number or micro-batches go by rows."""
    from tuneline.formats.token_file import Tokens
    from tuneline.train.batching import batches_of, longest_micro_batch

    train = config.train
    if tokens is None:
        budget = train.micro_tokens if isinstance(train.micro_tokens, int) else train.micro_batch_size * longest
        share = longest * max(1, train.batch_size // target.processes)
        return line(max(longest, min(budget, share)), longest)
    file = Tokens(tokens)
    steps, _ = batches_of(train, file, packed=target.packed, processes=target.processes)
    rows = [row for row, _ in longest_micro_batch(steps, file.lengths, packed=target.packed)]
    return MicroBatchShape(tuple(int(file.lengths[row]) for row in rows), int(file.supervised_per_row[rows].sum()))
