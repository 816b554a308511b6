"""Trial of the run's longest micro-batch before its first step, so that too little memory shows in seconds, not after hours."""

from typing import Any

import torch
from accelerate.utils import send_to_device
from transformers import TrainerCallback

from tuneline.runtime.errors import MEMORY_REMEDIES, is_out_of_memory, sentence
from tuneline.train.config.train import Train


class LongestFirstCallback(TrainerCallback):
    """One forward and backward pass once optimizer and buckets are there; its gradients are dropped, its random numbers unused.

    Every process tries the same micro-batch, so that all fail where one would.
    """

    def __init__(self, model: Any, batch: dict[str, Any], params: Train) -> None:
        """batch: as the collator makes it."""
        self.model, self.batch, self.params = model, batch, params

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        inputs = send_to_device({name: one for name, one in self.batch.items() if name != "step_tokens"}, args.device)
        try:
            with torch.random.fork_rng([args.device] if args.device.type == "cuda" else []):
                self._forward_and_backward(inputs)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise ValueError(self._complaint(sentence(error))) from None

    def _forward_and_backward(self, inputs: dict[str, Any]) -> None:
        self.model.train()
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        # Gradients that are asked for are handed over and not added up, which is what DeepSpeed waits for.
        torch.autograd.grad(self.model(**inputs)["loss"], trained, allow_unused=True)

    def _complaint(self, error: str) -> str:
        ids, params = self.batch["input_ids"], self.params
        return (
            f"the longest micro-batch, {ids.numel():,} tokens in {len(self.batch.get('lengths', ids))} rows "
            f"(train.micro_tokens: {params.micro_tokens}, train.gradient_checkpointing: {params.gradient_checkpointing}), does "
            f"not fit: {error.partition(' Including ')[0]} {MEMORY_REMEDIES['train']}"
        )
