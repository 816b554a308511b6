"""Dynamic loss scaling for float16 (Micikevicius et al. 2017, arXiv:1710.03740), so that small gradients are no zeros.

DeepSpeed takes the adapter for what it is, float32, and is only given a scaler to multiply the loss with, which it asks after
each step. Its own modes do otherwise (deepspeed 0.19.8): fp16 casts the adapter, and torch_autocast sends gradients in
float16, clips them before they are unscaled, and from ZeRO 1 on never lowers its scale.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed

INITIAL = 2.0**16
GROWTH_INTERVAL = 2000
"""Steps without overflow after which the scale doubles; both are torch.amp.GradScaler's."""
MINIMUM = 1.0
"""Gradients that overflow at this scale are no matter of scale."""


class LossScaling:
    """The scale of DeepSpeed's engine. A step whose scaled gradients overflow is done again with half of it: no row is lost."""

    def __init__(self) -> None:
        self.overflows = 0
        self._engine: Any = None

    def attach(self, engine: Any) -> None:
        """Give the engine a scaler: DeepSpeed's for ZeRO, which goes into its checkpoints, and torch's without."""
        self._engine = engine
        if hasattr(engine.optimizer, "loss_scaler"):
            from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler

            engine.optimizer.loss_scaler = DynamicLossScaler(
                INITIAL, GROWTH_INTERVAL, MINIMUM, delayed_shift=1, consecutive_hysteresis=False,
                raise_error_at_min_scale=False,
            )  # fmt: skip
            engine.optimizer.dynamic_loss_scale = True
        else:
            engine.torch_autocast_z0_gradscaler = torch.amp.GradScaler(
                engine.device.type, init_scale=INITIAL, growth_interval=GROWTH_INTERVAL
            )

    @property
    def scale(self) -> float:
        scaler = self._engine.torch_autocast_z0_gradscaler
        return float(self._engine.optimizer.loss_scaler.cur_scale if scaler is None else scaler.get_scale())

    def step(self, accelerator: Any, compute: Callable[[], list[torch.Tensor]]) -> list[torch.Tensor]:
        """The losses of a step's micro-batches, by `compute`, which takes the optimizer's step, too.

        Raises ValueError when gradients are not finite whatever the scale is.
        """
        random, before = random_state(accelerator.device), self.scale
        losses = compute()
        while self._overflowed(before):
            self.overflows += 1
            _check(accelerator, losses, before)
            set_random_state(accelerator.device, random)
            before = self.scale
            losses = compute()
        return losses

    def _overflowed(self, before: float) -> bool:
        if self._engine.torch_autocast_z0_gradscaler is None:
            return bool(self._engine.optimizer.overflow)
        return self.scale < before

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside DeepSpeed's part of it."""
        scaler = self._engine.torch_autocast_z0_gradscaler
        return {"overflows": self.overflows, "scaler": None if scaler is None else scaler.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        self.overflows = state["overflows"]
        if state["scaler"] is not None:
            self._engine.torch_autocast_z0_gradscaler.load_state_dict(state["scaler"])


def _check(accelerator: Any, losses: list[torch.Tensor], scale: float) -> None:
    """Raises ValueError for an overflow that a lower scale would not mend."""
    finite = torch.isfinite(torch.stack(losses)).all().to(torch.uint8)
    if accelerator.num_processes > 1:
        # The gradients of all processes are one sum, but the loss of each is its own.
        torch.distributed.all_reduce(finite, torch.distributed.ReduceOp.MIN)
    if not finite:
        raise ValueError("the loss in float16 is not finite: some value is beyond 65,504, or a number no longer")
    if scale <= MINIMUM:
        raise ValueError(f"gradients in float16 are not finite, even with the lowest loss scale, {MINIMUM:g}")


def random_state(device: torch.device) -> list[torch.Tensor]:
    """Of the CPU's generator, which gives dropout on a CPU and NEFTune's noise, and of the GPU's."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def set_random_state(device: torch.device, states: list[torch.Tensor]) -> None:
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state, device)
