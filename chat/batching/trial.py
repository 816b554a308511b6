"""Trial of batching: whether rows of a network that share a batch get what each gets alone from transformers' `generate`.

Tried when a network is loaded, not known by name: caches of some families have no columns (states of linear attention), and
virtual tokens come from `generate` alone.
"""

import logging
from typing import Any

import torch

from chat.batching.batch import run
from chat.batching.caches import join, new_cache, select
from tuneline.models.decoding.batches import left_padded

LENGTHS = (7, 3, 5)
"""Tokens of the prompts: the first leaves again, so that columns are trimmed, too."""
TOLERANCE = {torch.float32: 0.002, torch.float16: 0.05, torch.bfloat16: 0.1}
"""Largest difference of two logits, as a part of their spread; a wrong position or mask gives another order of it."""


@torch.inference_mode()
def can_batch(network: Any) -> bool:
    """Whether rows of a network can share a batch."""
    if not hasattr(network, "get_output_embeddings"):
        return False
    vocabulary = int(network.config.get_text_config(decoder=True).vocab_size)
    prompts = [[(37 * n + 11 * length) % (vocabulary - 1) + 1 for n in range(length)] for length in LENGTHS]
    try:
        expected = [_alone(network, prompt) for prompt in prompts[1:]]
        found = _together(network, prompts, [token for token, _ in expected])
    except Exception as error:
        # Whatever a family's forward pass raises: it is answered alone then, as `generate` does it.
        logging.getLogger(__name__).info("answers are given one by one: %s", error)
        return False
    worst = max(
        float((one - other).abs().max() / one.std().clamp(min=1e-9))
        for (_, logits), others in zip(expected, found, strict=True)
        for one, other in zip(logits, others, strict=True)
    )
    return worst <= TOLERANCE.get(network.dtype, 0.1)


def _alone(network: Any, prompt: list[int]) -> tuple[int, list[torch.Tensor]]:
    """First token, and logits [V] of the first and the second one, by `generate`."""
    ids = torch.tensor([prompt], device=network.device)
    given = network.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=2, min_new_tokens=2, do_sample=False,
        top_k=None, top_p=None, temperature=None, pad_token_id=0, return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    return int(given.sequences[0, -2]), [logits[0].float() for logits in given.logits]


def _together(network: Any, prompts: list[list[int]], tokens: list[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The same for all prompts but the first: it and the second begin together, the last joins, the first leaves."""
    ids, mask = left_padded(prompts[:2], 0)
    cache, late = new_cache(network), new_cache(network)
    begun = run(network, ids, mask, (mask.cumsum(1) - 1).clamp(min=0), cache)[1:, -1]
    alone = torch.ones(1, len(prompts[2]), dtype=torch.long)
    joined = run(network, torch.tensor(prompts[2:]), alone, alone.cumsum(1) - 1, late)[:, -1]
    join(cache, late)
    width = max(map(len, prompts[1:]))
    select(cache, [1, 2], width)
    _, mask = left_padded(prompts[1:], 0)
    mask = torch.cat([mask, torch.ones(2, 1, dtype=torch.long)], dim=1)
    places = torch.tensor([[len(prompt)] for prompt in prompts[1:]])
    after = run(network, torch.tensor(tokens)[:, None], mask, places, cache)[:, -1]
    return list(zip(torch.cat([begun, joined]), after, strict=True))
