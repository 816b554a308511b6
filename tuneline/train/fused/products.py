"""Matrix products whose result is wider than their factors."""

import torch


def product(left: torch.Tensor, right: torch.Tensor, kind: torch.dtype, scale: float = 1.0) -> torch.Tensor:
    """scale * left @ right in the wider dtype `kind`; on a GPU one kernel, which does not round before."""
    if left.is_cuda and left.dtype != kind:
        # With beta 0 the first argument gives its place alone.
        empty = left.new_empty(left.shape[0], right.shape[1], dtype=kind)
        return torch.addmm(empty, left, right, beta=0, alpha=scale, out_dtype=kind)
    result = (left @ right).to(kind)
    return result if scale == 1.0 else result * scale
