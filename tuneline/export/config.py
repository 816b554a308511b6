"""Section `export`: the form of the merged model, and how far it may be from the adapter."""

from typing import Literal

from pydantic import Field

from tuneline.runtime.params import Section
from tuneline.runtime.params.values import Number


class Export(Section):
    dtype: Literal["bfloat16", "float16", "float32"]
    max_delta_nll: Number = Field(gt=0, le=10)
    """Highest absolute difference of mean NLL per token (nats) between merged model and adapter; 10 is as good as chance."""
    layout: Literal["native", "chatglm3", "original"]
    """`chatglm3` writes ChatGLM3's own layout, too, into a folder of the merged model; the base must have come in it.

    `original` does so with whatever layout the base came in: that, or a checkpoint with more parts than text."""
