"""Section `tune`: the method of fine-tuning."""

from typing import Literal

from tuneline.params import Section


class Tune(Section):
    method: Literal["lora"]
