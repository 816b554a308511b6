"""Rows that can't share a batch: each by transformers' `generate` in a thread of its own, interleaved token by token."""

import threading
from collections.abc import Callable
from typing import Any

import torch
from transformers import StoppingCriteriaList

from chat.batching.rows import Row, Token
from chat.generation import StopWhen, TokenStreamer


def start_alone(row: Row, use: Callable[[], Any], pad_id: int) -> None:
    """Begin a row in a thread. `use` is a context with the network."""

    def put(token: int) -> None:
        row.tokens.append(token)
        row.output.put(Token(token))

    def generate() -> None:
        try:
            with torch.inference_mode(), use() as network:
                inputs = torch.tensor([row.prompt], device=network.device)
                network.generate(
                    input_ids=inputs,
                    attention_mask=torch.ones_like(inputs),
                    max_new_tokens=row.max_new_tokens,
                    # GumbelSampler samples, with a seed of its own.
                    do_sample=False,
                    top_k=None,
                    top_p=None,
                    temperature=None,
                    eos_token_id=list(row.stop_ids),
                    pad_token_id=pad_id,
                    logits_processor=row.processors,
                    stopping_criteria=StoppingCriteriaList([StopWhen(lambda: row.gone)]),
                    streamer=TokenStreamer(put),
                )
            row.end()
        except BaseException as error:
            # The consumer at the other end of the queue raises it.
            row.end(error)

    threading.Thread(target=generate, daemon=True).start()
