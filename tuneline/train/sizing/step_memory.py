"""Memory estimate of a training step with FakeTensorMode: the step is run on tensors that have no data.

PyTorch's FakeTensorMode runs the real code of model, adapter, loss and optimizer, shapes and dtypes only, while every
storage that comes and goes is counted. So it holds for any architecture and method, and needs no weights.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from tuneline.models import chunked_loss, packed_attention
from tuneline.train import methods
from tuneline.train.collate import collator
from tuneline.train.fused import norms
from tuneline.train.fused.patches import patch_model
from tuneline.train.gradient_checkpointing import enable_checkpointing
from tuneline.train.loss_forward import install_loss_forward
from tuneline.train.sections import Method


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one process's step without sharding."""

    weights: int
    """Of the frozen base, as it is computed with."""
    trained: int
    """Of what trains, float32."""
    optimizer: int
    """AdamW's two moments."""
    gradients: int
    activations: int
    """Kept from the forward pass for the backward pass."""
    temporary: int
    """At the highest moment, beyond all of the above: a chunk of logits and its gradient, mostly."""

    @property
    def total(self) -> int:
        return self.weights + self.trained + self.optimizer + self.gradients + self.activations + self.temporary


def measure_step(
    config: Any,
    method: Method,
    *,
    lengths: tuple[int, ...],
    supervised: int,
    dtype: str,
    checkpointing: bool,
    packed: bool,
    device: str = "cpu",
) -> StepMemory:
    """One optimizer step of a model of this transformers config: rows of these lengths, `supervised` of the tokens with loss.

    dtype: of the frozen base and of the forward pass ("bfloat16", "float16", "float32"). device: "cpu", or "cuda", whose
    tensors a torch without CUDA can't even pretend; there a CPU's are taken, in the attention and the loss of a GPU.
    """
    import torch
    from accelerate.utils import send_to_device
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import AutoModelForCausalLM

    kind = getattr(torch, dtype)
    pretended = device if device == "cpu" or torch.cuda.is_available() else "cpu"
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=kind, trust_remote_code=False)
        model.requires_grad_(False)
        collate = collator(model, packed=packed)
        tuned = methods.prepare(model, without_weights(method))
    # Modules are tried before they are patched, and what has no data can't be.
    patch_model(tuned)
    with FakeTensorMode(allow_non_fake_inputs=True), _products_of_experts_without_data(), _kernels_of(device):
        _give_storage(tuned, pretended)
        # How many positions are supervised is data, and there is none.
        install_loss_forward(model, lambda hidden, labels: _first(hidden, labels, supervised))
        if checkpointing:
            enable_checkpointing(model)
        tuned.train()
        parameters = {id(parameter): parameter for parameter in tuned.parameters()}.values()
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        alive = _alive()
        for tensor in (*parameters, *tuned.buffers()):
            alive.add(tensor)
        with alive:
            before = alive.peak = alive.now
            rows = [torch.zeros(length, dtype=torch.long) for length in lengths]
            with torch.autocast(pretended, kind, enabled=kind != torch.float32):
                loss = tuned(**send_to_device(collate([(row, row, supervised) for row in rows]), pretended))["loss"]
            kept = alive.now - before
            loss.backward()
    size = sum(tensor.numel() * tensor.element_size() for tensor in trained)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in parameters) - size
    return StepMemory(
        weights=weights,
        trained=size,
        # AdamW's moments, which come with the first step.
        optimizer=2 * size,
        gradients=size,
        activations=kept,
        temporary=max(0, alive.peak - before - kept - size),
    )


def without_weights(method: Method) -> Method:
    """PiSSA takes its beginning from the weights, which there are none of; its sizes are LoRA's."""
    if method.lora.variant == "pissa":
        return method._replace(lora=method.lora.model_copy(update={"variant": "lora"}))
    return method


@contextmanager
def _products_of_experts_without_data() -> Iterator[None]:
    """torch has none for its own kernel in float32; transformers' substitute for it has the same shapes."""
    from transformers.integrations import moe

    usual = moe._can_use_grouped_mm
    moe._can_use_grouped_mm = lambda *_: False
    try:
        yield
    finally:
        moe._can_use_grouped_mm = usual


@contextmanager
def _kernels_of(device: str) -> Iterator[None]:
    """On a GPU attention never keeps probabilities, dropout keeps little, and the loss takes a chunk of logits whole.

    Norms that add to their weight are the model's own there.
    """
    import torch

    functional: Any = torch.nn.functional
    before = packed_attention.SHORT, chunked_loss.BLOCK, functional.dropout, norms.stays_own
    if device == "cuda":
        packed_attention.SHORT, chunked_loss.BLOCK, functional.dropout = 0, chunked_loss.CHUNK, _dropout
        norms.stays_own = lambda x, added, on_gpu: before[3](x, added, True)
    try:
        yield
    finally:
        packed_attention.SHORT, chunked_loss.BLOCK, functional.dropout, norms.stays_own = before


def _dropout(given: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """A GPU's, which keeps one byte of mask an element."""
    import torch

    return torch.native_dropout(given, p, train=True)[0] if training and p else given


def _first(hidden: Any, labels: Any, supervised: int) -> tuple[Any, Any]:
    return hidden.reshape(-1, hidden.shape[-1])[:supervised], labels.reshape(-1)[:supervised]


def _give_storage(model: Any, device: str) -> None:
    """Put fake tensors of a device in the place of meta ones, tied ones once."""
    import torch

    empty = partial(torch.empty, device=device)
    made: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, one in module._parameters.items():
            if one is not None:
                new = made.get(id(one))
                if new is None:
                    new = torch.nn.Parameter(empty(one.shape, dtype=one.dtype), requires_grad=one.requires_grad)
                made[id(one)] = module._parameters[name] = new
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = empty(buffer.shape, dtype=buffer.dtype)
        for name, tokens in getattr(module, "prompt_tokens", {}).items():
            # PEFT keeps the numbers of its virtual tokens outside of the buffers.
            module.prompt_tokens[name] = empty(tokens.shape, dtype=tokens.dtype)


def _alive() -> Any:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Alive(TorchDispatchMode):
        """Counts the bytes of all storages that exist, and their highest sum."""

        def __init__(self) -> None:
            super().__init__()
            self.now = self.peak = 0
            self.known: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

        def add(self, tensor: torch.Tensor) -> None:
            storage = tensor.untyped_storage()
            if storage not in self.known:
                size = storage.nbytes()
                self.known[storage] = size
                self.now += size
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._drop, size)

        def _drop(self, size: int) -> None:
            self.now -= size

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            for leaf in tree_leaves(result):
                if isinstance(leaf, torch.Tensor):
                    self.add(leaf)
            return result

    return Alive()
