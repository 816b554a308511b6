"""Attention kernels of torch that take fewer key heads than query heads; with the others keys and values are repeated.

torch 2.13 on CUDA: grouped heads go to flash attention alone, which float16 and bfloat16 have without a mask from compute
capability 8.0 on. Elsewhere they would go to plain products, which keep a matrix [heads, T, T]: 25 GB for a row of 8,192 tokens
of ChatGLM3-6B. The memory-efficient kernel serves all of these once keys and values are repeated.
"""

import torch

FLASH = (8, 0)
"""Compute capability that flash attention begins with."""


def takes_groups(query: torch.Tensor, mask: torch.Tensor | None) -> bool:
    """Whether attention of these tensors, or of others like them, should be left to a kernel with grouped heads."""
    if not query.is_cuda:
        return True
    half = query.dtype in (torch.float16, torch.bfloat16)
    return mask is None and half and torch.cuda.get_device_capability(query.device) >= FLASH


def repeated(heads: torch.Tensor, times: int) -> torch.Tensor:
    """Keys or values [B, groups, T, d] to [B, groups * times, T, d], each group `times` times."""
    return heads.repeat_interleave(times, 1)


def repeat_where_no_kernel_takes_groups() -> None:
    """The same for transformers' own attention, which generation goes through: it asks only for the mask and d (5.23)."""
    from transformers.integrations import sdpa_attention

    asks = sdpa_attention.use_gqa_in_sdpa
    if hasattr(asks, "without_kernel"):
        return

    def use_gqa(mask: torch.Tensor | None, key: torch.Tensor, value: torch.Tensor) -> bool:
        return asks(mask, key, value) and takes_groups(key, mask)

    use_gqa.without_kernel = asks  # type: ignore[attr-defined]
    sdpa_attention.use_gqa_in_sdpa = use_gqa
