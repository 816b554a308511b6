"""Where the ways of this package are taken: on GPUs, since they round otherwise than a CPU's runs of before."""

import torch


def on_gpu(x: torch.Tensor) -> bool:
    return x.is_cuda
