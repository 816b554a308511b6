"""The project's own tuned model, in which faults are planted."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from tuneline.formats.example import IGNORE_INDEX, Encoded
from tuneline.models.likelihood import answer_nll, unwrap_peft
from tuneline.models.loading import ADAPTER, BASE, load_adapter, load_model, pick_device, pick_dtype
from tuneline.served.expected import Item, Project

GROUP = 32
"""Weights that share a scale, as GGUF's 4-bit types have it."""


class LocalModel:
    """Base and adapter, on the device and in the dtype that evaluation takes."""

    scales: Sequence[float]

    def __init__(self, project: Project) -> None:
        device = pick_device()
        dtype = pick_dtype(project.params.dtype, device, "evaluate.dtype", BASE)
        self.network = load_adapter(load_model(BASE, dtype, device), ADAPTER)
        self.project = project
        self.layers = [one for one in self.network.modules() if isinstance(getattr(one, "scaling", None), dict)]
        self.scales = usual_scales(self.network) if self.layers else ()
        self.merged = False
        self.stop_ids = project.reader.stops_of(unwrap_peft(self.network))

    @contextmanager
    def scaled(self, factor: float) -> Iterator[None]:
        """The adapter at so many times its own scale."""
        before = [dict(layer.scaling) for layer in self.layers]
        for layer, scaling in zip(self.layers, before, strict=True):
            layer.scaling.update({name: scale * factor for name, scale in scaling.items()})
        try:
            yield
        finally:
            for layer, scaling in zip(self.layers, before, strict=True):
                layer.scaling.update(scaling)

    def nll(self, item: Item) -> float:
        """Of the reference, in nats."""
        labels = [IGNORE_INDEX] * item.first + item.reference[item.first :]
        return float(answer_nll(self.network, Encoded(item.reference, labels)).double().sum())

    @torch.inference_mode()
    def answer(self, prompt: Sequence[int], tokens: int) -> list[int]:
        """Ids of the greedy answer's text, as a server's answer is encoded."""
        ids = torch.tensor([list(prompt)], device=self.network.device)
        output = self.network.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, top_k=None,
            top_p=None, temperature=None, repetition_penalty=1.0, eos_token_id=self.stop_ids,
            pad_token_id=self.project.reader.tokenizer.pad_token_id or 0,
        )  # fmt: skip
        row = output[0, len(prompt) :].tolist()
        end = next((place for place, token in enumerate(row) if token in self.stop_ids), len(row))
        reader = self.project.reader
        return self.project.ids(reader.plain(reader.decode(row[:end]).strip().rstrip("\ufffd")))

    @torch.inference_mode()
    def round_weights(self, bits: int) -> None:
        """Round the linear layers, adapter merged in, in groups that share a scale. There is no way back."""
        if self.layers and not self.merged:
            self.network.merge_adapter()
            self.merged = True
        head = unwrap_peft(self.network).get_output_embeddings()
        for name, module in unwrap_peft(self.network).named_modules():
            if isinstance(module, torch.nn.Linear) and module is not head and "lora_" not in name:
                module.weight.copy_(rounded(module.weight, bits))


def usual_scales(network: Any) -> list[float]:
    """Wrong factors that are usual: half, double, alpha / r left out, and rsLoRA's taken for LoRA's or the other way."""
    config = network.active_peft_config
    own, r = config.lora_alpha / config.r, config.r
    rank_stabilized = r**-0.5 if config.use_rslora else r**0.5
    scales = [0.5, 2.0, 1 / own, rank_stabilized]
    return sorted({round(scale, 4) for scale in scales if abs(scale - 1) > 0.01})


def rounded(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """The weight [out, in], symmetrically rounded to so many bits in groups of GROUP along its inputs."""
    rows, columns = weight.shape
    width = GROUP if columns % GROUP == 0 else columns
    groups = weight.float().view(rows, -1, width)
    step = groups.abs().amax(-1, keepdim=True).clamp(min=1e-12) / (2 ** (bits - 1) - 1)
    return ((groups / step).round() * step).view(rows, columns).to(weight.dtype)
