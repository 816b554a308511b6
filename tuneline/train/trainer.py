"""Hugging Face Trainer with our batches and our loss, and what it does at the end of a step."""

import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainerCallback

from tuneline.formats.token_file import Tokens
from tuneline.train.batching import MicroBatch
from tuneline.train.checkpoints import seal
from tuneline.train.collate import Collate, Row

SAVE_SECONDS = 30.0
"""Time after which a checkpoint is due, however many steps `train.save_steps` says."""


class Rows(Dataset[Row]):
    """A row is asked for by (row number, learnt tokens of its step)."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens

    def __getitem__(self, index: tuple[int, int]) -> Row:
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
    control: Any

    def __init__(
        self,
        *,
        tokens: Tokens,
        batches: list[MicroBatch],
        validation: list[MicroBatch],
        dtype: torch.dtype,
        collate: Collate,
        faster_b: float | None = None,
        **kwargs: Any,
    ) -> None:
        self.rows, self.batches, self.dtype, self.collate = Rows(tokens), Batches(batches), dtype, collate
        self.validation, self.faster_b = validation, faster_b
        super().__init__(train_dataset=self.rows, eval_dataset=self.rows if validation else None, **kwargs)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """AdamW; for LoRA+ with a higher learning rate of B."""
        if self.faster_b is None:
            return super().create_optimizer(*args, **kwargs)
        from peft.optimizers import create_loraplus_optimizer

        self.optimizer = create_loraplus_optimizer(
            self.model,
            torch.optim.AdamW,
            lr=self.args.learning_rate,
            loraplus_lr_ratio=self.faster_b,
            loraplus_weight_decay=self.args.weight_decay,
            betas=(self.args.adam_beta1, self.args.adam_beta2),
            eps=self.args.adam_epsilon,
        )
        # DeepSpeed shards each group, and an empty one can't be.
        self.optimizer.param_groups = [group for group in self.optimizer.param_groups if group["params"]]
        return self.optimizer

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """{"eval_loss": nats per learnt token of the validation rows}, each process taking its share of the batches."""
        world, rank = self.args.world_size, self.args.process_index
        total = torch.zeros((), dtype=torch.float64)
        self.model_wrapped.eval()
        for place in range(rank, -(-len(self.validation) // world) * world, world):
            # Under ZeRO-3 all processes must go forward together, so the last ones may do so for nothing.
            batch = self.validation[min(place, len(self.validation) - 1)]
            inputs = self._prepare_inputs(self.collate([self.rows[row] for row in batch]))
            inputs.pop("step_tokens")
            with torch.no_grad(), self.autocast():
                loss = self.model_wrapped(**inputs)["loss"]
            if place < len(self.validation):
                total += float(loss) / batch[0][1]
        self.model_wrapped.train()
        if world > 1:
            total = total.to(self.args.device)
            torch.distributed.all_reduce(total)
        metrics = {"eval_loss": float(total)}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Nothing: DeepSpeed's checkpoint has what trains. Trainer would clone the whole base to save the adapter again."""
        assert output_dir is not None, "only checkpoints are saved by Trainer"
        Path(output_dir).mkdir(parents=True, exist_ok=True)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.args.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """A checkpoint that can't be written is taken away again, and training goes on from the last good one."""
        try:
            super()._save_checkpoint(*args, **kwargs)
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            if self.args.world_size > 1:
                # The other processes wait for this one, so it can't just go on.
                raise ValueError(
                    f"checkpoint at step {self.state.global_step} could not be written: {reason}"
                ) from None
            shutil.rmtree(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}", ignore_errors=True)
            print(
                f"train: checkpoint at step {self.state.global_step} could not be written ({reason}): is the disk full? "
                "Training goes on; the last good checkpoint stays",
                file=sys.stderr,
            )

    def get_train_dataloader(self) -> DataLoader[Any]:
        loader = DataLoader(self.rows, batch_sampler=self.batches, collate_fn=self.collate)
        prepared_loader: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared_loader

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        step_tokens = inputs.pop("step_tokens")
        with self.autocast():
            total = model(**inputs)["loss"]
        if not torch.isfinite(total):
            raise ValueError(
                f"the loss is {float(total)} at step {self.state.global_step + 1}: lower train.learning_rate "
                f"({self.args.learning_rate:g}) or set train.dtype: float32"
            )
        # DeepSpeed averages gradients over processes, and the step's tokens are spread over all of them.
        return total / step_tokens * self.args.world_size


class Stop(TrainerCallback):
    """On SIGTERM or SIGINT: finish the step, save, and end. Also: save when the last time is long ago; log the last step."""

    def __init__(self) -> None:
        self.asked = False
        self.saved = time.monotonic()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.saved = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        due = time.monotonic() - self.saved > SAVE_SECONDS
        if args.world_size > 1:
            # The launcher signals one process after another, and clocks differ: all must do the same at the same step.
            flags = torch.tensor([int(self.asked), int(due)], device=args.device)
            torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
            self.asked, due = bool(flags[0]), bool(flags[1])
        if state.global_step >= state.max_steps:
            control.should_log = True
        if due:
            control.should_save = True
        if self.asked:
            control.should_save = control.should_training_stop = True


class Seal(TrainerCallback):
    """Write a checkpoint's manifest once every process has written its part."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and checkpoint.is_dir():
            seal(checkpoint)
