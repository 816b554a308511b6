"""Trainer callbacks: graceful stop on a signal, and the manifest of a checkpoint."""

import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed
from transformers import TrainerCallback

from tuneline.runtime.locks import LockWatch
from tuneline.runtime.stopping import end_again, handle_signals
from tuneline.train.checkpoints import LOCK, STOP, write_manifest

SAVE_SECONDS = 30.0
"""Time after which a checkpoint is due, however many steps `train.save_steps` says."""
AGAIN = 2.0
"""Seconds after which a second signal is one, and ends the process without saving."""
SAVE_SHARE = 0.02
"""Of the time, that such checkpoints may take."""


class GracefulStopCallback(TrainerCallback):
    """On SIGTERM, SIGINT, a file that asks for it, or the stage's end: finish the step, save, and end.

    On other hosts nothing else ends with the stage. Also: save when the last time is long ago; log the last step.
    """

    def __init__(self) -> None:
        self.requested = False
        self.saved = self.ready = time.monotonic()
        self.cost = 0.0
        """Seconds that the last checkpoint took."""
        self.stage: LockWatch | None = None
        self.signal = 0
        """What asked for it, when it was a signal."""
        self.asked = 0.0
        handle_signals(self._request)

    def _request(self, number: int, frame: FrameType | None) -> None:
        # A terminal and dvc may both send the first.
        if self.requested and self.asked and time.monotonic() - self.asked > AGAIN:
            end_again(number)
        self.requested = True
        self.signal, self.asked = number, self.asked or time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.stage = LockWatch(Path(args.output_dir) / LOCK)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.saved = time.monotonic()
        self.cost = self.saved - self.ready

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.ready = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.ready = time.monotonic()
        due = self.ready - self.saved > max(SAVE_SECONDS, self.cost / SAVE_SHARE)
        gone = self.stage is not None and self.stage.is_gone()
        self.requested = self.requested or gone or (Path(args.output_dir) / STOP).exists()
        if args.world_size > 1:
            # The launcher signals one process after another, and clocks differ: all must do the same at the same step.
            flags = torch.tensor([int(self.requested), int(due)], device=args.device)
            torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
            self.requested, due = bool(flags[0]), bool(flags[1])
        if state.global_step >= state.max_steps:
            control.should_log = True
        if due:
            control.should_save = True
        if self.requested:
            control.should_save = control.should_training_stop = True


class ManifestCallback(TrainerCallback):
    """Write a checkpoint's manifest once every process has written its part."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and checkpoint.is_dir():
            write_manifest(checkpoint)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # A launcher ends the others when the first is gone, and process 0 may still be hashing.
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
