"""Memory estimate of a training step, which `train` itself uses for `auto`."""

from tuneline.train.sizing.step_memory import StepMemory, measure_step, without_weights

__all__ = ["StepMemory", "measure_step", "without_weights"]
