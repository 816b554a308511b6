"""Hugging Face Trainer with our batches and our loss, and what it does at the end of a step."""

import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainerCallback

from tuneline.batching import MicroBatch
from tuneline.prompt import IGNORE_INDEX
from tuneline.scratch import seal
from tuneline.tokens import Tokens


class Rows(Dataset[tuple[torch.Tensor, torch.Tensor, int]]):
    """A row is asked for by (row number, learnt tokens of its step)."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens

    def __getitem__(self, index: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, int]:
        row, step_tokens = index
        ids, labels = self.tokens.row(row)
        return torch.from_numpy(ids), torch.from_numpy(labels), step_tokens


class Batches:
    """The micro-batches of the run as a batch sampler; accelerate deals them out to the processes in turn."""

    drop_last = False

    def __init__(self, batches: list[MicroBatch]) -> None:
        self.batches = batches
        self.batch_size = len(batches[0])

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[MicroBatch]:
        return iter(self.batches)


class SupervisedTrainer(Trainer):
    """Trainer with our batches, and with the loss divided by the learnt tokens of the whole step."""

    loss_is_scaled_for_ga = True

    def __init__(
        self, *, tokens: Tokens, batches: list[MicroBatch], dtype: torch.dtype, pad: int, **kwargs: Any
    ) -> None:
        self.rows, self.batches, self.dtype, self.pad = Rows(tokens), Batches(batches), dtype, pad
        super().__init__(train_dataset=self.rows, **kwargs)

    def get_train_dataloader(self) -> DataLoader[Any]:
        loader = DataLoader(self.rows, batch_sampler=self.batches, collate_fn=self.collate)
        prepared_loader: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared_loader

    def collate(self, rows: list[tuple[torch.Tensor, torch.Tensor, int]]) -> dict[str, torch.Tensor]:
        """input_ids and labels [B, T], padded on the right, and step_tokens, a scalar."""
        pad = torch.nn.utils.rnn.pad_sequence
        return {
            "input_ids": pad([ids for ids, _, _ in rows], batch_first=True, padding_value=self.pad),
            "labels": pad([labels for _, labels, _ in rows], batch_first=True, padding_value=IGNORE_INDEX),
            "step_tokens": torch.tensor(rows[0][2]),
        }

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        step_tokens = inputs.pop("step_tokens")
        with torch.autocast(self.args.device.type, self.dtype, enabled=self.dtype != torch.float32):
            total = model(**inputs)["loss"]
        if not torch.isfinite(total):
            raise ValueError(
                f"the loss is {float(total)} at step {self.state.global_step + 1}: lower train.learning_rate "
                f"({self.args.learning_rate:g}) or set train.dtype: float32"
            )
        # DeepSpeed averages gradients over processes, and the step's tokens are spread over all of them.
        return total / step_tokens * self.args.world_size


class Stop(TrainerCallback):
    """On SIGTERM or SIGINT: finish the step, save, and end. The last step is always logged."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.world_size > 1:
            # The launcher signals one process after another, and all must stop at the same step.
            flag = torch.tensor(int(self.asked), device=args.device)
            torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
            self.asked = bool(flag)
        if state.global_step >= state.max_steps:
            control.should_log = True
        if self.asked:
            control.should_save = control.should_training_stop = True


class Seal(TrainerCallback):
    """Write a checkpoint's manifest once every process has written its part."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        if state.is_world_process_zero:
            seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")
