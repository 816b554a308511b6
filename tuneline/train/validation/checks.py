"""Checks of what validation needs, before any training process starts."""

from pathlib import Path

from tuneline.train.sections import TrainingConfig, needs_rows


def check_validation(config: TrainingConfig, tokens: Path, records: Path | None) -> None:
    """Raises ValueError for keys that need validation rows where there are none, and for what can't be measured here."""
    from tuneline.train.batching import has_validation
    from tuneline.train.validation.curve_metrics import best_by, curve_metrics

    train = config.train
    if not (train.eval_fraction or has_validation(tokens)):
        for complaint in needs_rows(train):
            raise ValueError(complaint)
    if not train.eval_metrics:
        return
    if config.deepspeed.zero_stage == 3:
        raise ValueError(
            f"train.eval_metrics is {train.eval_metrics} and deepspeed.zero_stage is 3, expected 0, 1 or 2: each process "
            "answers with a whole model; or set train.eval_metrics: []"
        )
    best_by(train, curve_metrics(train.eval_metrics))
    if records is None or not records.is_file():
        raise ValueError(f"{records} is missing: run `dvc repro convert`, which makes it")
