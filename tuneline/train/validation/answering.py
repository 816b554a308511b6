"""Answers of the model that trains to the validation items, shared by the processes, and the metrics of the curve over them."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from tuneline.formats.records import Record
from tuneline.formats.token_file import Tokens
from tuneline.models.calls.answers import AnswerReader
from tuneline.models.chat_format import load_prompter
from tuneline.models.decoding.asking import Limits, answer, asked
from tuneline.models.decoding.generate import Generated, plan_batches
from tuneline.models.loading import load_tokenizer
from tuneline.runtime.terminal.lines import say
from tuneline.scoring.own import MetricError
from tuneline.train.config.train import Train
from tuneline.train.process_arguments import Paths
from tuneline.train.validation.as_evaluated import as_evaluated
from tuneline.train.validation.cost import cost
from tuneline.train.validation.curve_metrics import CurveMetric, points, values
from tuneline.train.validation.items import validation_items
from tuneline.train.validation.processes import by_first, gathered, rank, wait_for_all, world
from tuneline.train.validation.rows import answered_row, empty_row, right_row


class Answering:
    """Asks the same items at each validation. Whole batches are dealt to the processes, so their number changes nothing."""

    def __init__(
        self, params: Train, records: Sequence[Record], metrics: Sequence[CurveMetric], base: Path, attention: str,
        dtype: torch.dtype,
    ) -> None:  # fmt: skip
        """base: a folder with a tokenizer. attention, dtype: of the base as it was loaded."""
        self.records, self.metrics, self.attention, self.dtype = records, metrics, attention, dtype
        tokenizer = load_tokenizer(base)
        self.prompter = load_prompter(tokenizer)
        self.reader = AnswerReader(tokenizer, self.prompter)
        self.limits = Limits(params.eval_max_new_tokens, params.eval_max_new_tokens, params.micro_batch_size)
        self.best_by = params.best_by
        self.validations, self.tokens, self.seconds = 0, 0, 0.0

    def __call__(self, model: Any) -> dict[str, float]:
        """{column: value}, the same in all processes."""
        started = monotonic()
        mine = self.answers(model)
        wait_for_all(f"answered {self.validations}")
        found = gathered(mine)
        result: dict[str, float] = by_first(lambda: self.measured(found), f"measured {self.validations}")
        self.validations += 1
        self.tokens += sum(output.tokens for output in found.values())
        self.seconds += monotonic() - started
        return result

    def measured(self, found: dict[int, Generated]) -> dict[str, float]:
        """{column: value} of the answers to all items."""
        rows = [answered_row(record, found[item], self.reader) for item, record in enumerate(self.records)]
        return points(self.metrics, rows, self.records, self.best_by)

    def answers(self, model: Any) -> dict[int, Generated]:
        """Those of this process, by number of the item; planned alone they are the same batches as among all."""
        lengths = [len(prompt) for prompt in asked(self.records).prompts(self.prompter)]
        batches = plan_batches(lengths, self.limits.batch_size)
        mine = sorted(chain(*batches[rank() :: world()]))
        if not mine:
            return {}
        with as_evaluated(model, self.attention, self.dtype) as network:
            own = asked([self.records[item] for item in mine])
            outputs, _ = answer(network, self.prompter, self.reader, own, self.limits, "train: validation")
        return dict(zip(mine, outputs, strict=True))

    def check(self) -> None:
        """Raises ValueError for a metric that fails at right or at empty answers, before hours of training."""
        by_first(lambda: check_metrics(self.metrics, self.records), "metrics are tried")

    def report(self) -> dict[str, Any]:
        """For metrics/speed: what the validations of this start took."""
        counted = {"validations": self.validations, "items": len(self.records), "tokens": self.tokens}
        return {"validation_answers": counted | {"seconds": round(self.seconds, 2)}}


def prepare_answering(
    params: Train,
    metrics: Sequence[CurveMetric],
    tokens: Tokens,
    paths: Paths,
    base: Any,
    dtype: torch.dtype,
    steps: int,
) -> Answering | None:
    """What answers at each validation, None without train.eval_metrics; says what it will cost.

    Raises ValueError where nothing could be answered, or measured.
    """
    if not metrics:
        return None
    assert paths.records is not None, "the stage gives the records beside metrics of answers"
    records = validation_items(params, tokens, paths.records)
    answering = Answering(params, records, metrics, paths.base, base.config._attn_implementation, dtype)
    answering.check()
    if rank() == 0:
        say(f"train: {cost(params, steps, len(records))}")
    return answering


def check_metrics(metrics: Sequence[CurveMetric], records: Sequence[Record]) -> None:
    """Raises ValueError for a metric that fails at right or at empty answers, or has no value of right ones."""
    values(metrics, [right_row(record) for record in records], records)
    empty = [empty_row(record) for record in records]
    for metric in metrics:
        try:
            # Of nothing it may have no value.
            metric.value(empty, records)
        except MetricError as error:
            raise ValueError(f"{error} (tried with an empty answer)") from error
