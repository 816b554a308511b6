"""Section `tune`: the method of fine-tuning. `lora`, `ptuning` and `freeze` are sections of their own."""

from typing import Literal

from tuneline.runtime.params import Section


class Tune(Section):
    method: Literal["lora", "p_tuning", "prefix", "prompt", "freeze", "full"]
    """`p_tuning` learns virtual tokens through an encoder (Liu et al. 2021, arXiv:2103.10385), `prompt` learns them as they are
    (Lester et al. 2021, arXiv:2104.08691), `prefix` learns keys and values of every layer (Li and Liang 2021,
    arXiv:2101.00190; called P-Tuning v2 in ChatGLM's world), `freeze` trains some layers, `full` all."""
