"""Benchmark of two optimizer steps of the real run, for the time that all will take."""

import time

from tuneline.cli.prediction import TOKENS, Prediction


def seconds_and_rate(plan: Prediction) -> tuple[float, float]:
    """(seconds of the second step, tokens a second of one process), on this machine."""
    import torch
    from accelerate.utils import send_to_device

    from tuneline.formats.token_file import Tokens
    from tuneline.models import cpu_tuning
    from tuneline.models.head_loss.gradient_filter import GradientFilter
    from tuneline.models.loading import BASE, load_model, pick_device
    from tuneline.train.batching import batches_of
    from tuneline.train.collate import collator
    from tuneline.train.run import prepare_model
    from tuneline.train.trainer.dataset import TokenDataset

    method, train, _ = plan.config
    tokens, device = Tokens(TOKENS), pick_device()
    rows = TokenDataset(tokens)
    steps, _ = batches_of(train, tokens, packed=plan.packed, processes=plan.processes)
    if device.type == "cpu":
        cpu_tuning.limit_onednn_caches()
        cpu_tuning.release_large_blocks()
    dtype = getattr(torch, plan.dtype)
    base = load_model(BASE, dtype, device)
    collate = collator(base, packed=plan.packed)
    gradient_filter = GradientFilter() if train.loss_filter == "auto" else None
    model = prepare_model(base, method, train.gradient_checkpointing is True, gradient_filter).train()
    optimizer = torch.optim.AdamW(parameter for parameter in model.parameters() if parameter.requires_grad)
    seconds, seen = 0.0, 0
    for step in (steps[0], steps[min(1, len(steps) - 1)]):
        started, seen = time.monotonic(), 0
        for batch in step:
            inputs = send_to_device(collate([rows[row] for row in batch]), device)
            step_tokens = inputs.pop("step_tokens")
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                (model(**inputs)["loss"] / step_tokens).backward()
            seen += sum(int(tokens.lengths[row]) for row, _ in batch)
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.monotonic() - started
    return seconds, seen / seconds
