"""Measurement of all training rows under base and tuned model, in one loaded model, kept under .dvc/tmp."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tuneline.cli.rows.features import Evidence, Floats, odds_of
from tuneline.cli.rows.findings import Measured, by_source
from tuneline.cli.rows.listing import said
from tuneline.cli.rows.pairs import Numbers, partners, parts
from tuneline.formats.records import Record, last_question, normalise, read_records
from tuneline.runtime.atomic import atomic_output, remove
from tuneline.runtime.hashing import file_sha256, files, folder_sha256
from tuneline.tokenize.config import Tokenize

if TYPE_CHECKING:
    from tuneline.models.loading import Dtype

CACHE = Path(".dvc/tmp/rows")
DTYPE = "evaluate.dtype"
RESULT = "measured.npz"
METHOD = "3"
"""Of measuring: raised when the same inputs give other values."""
BUDGET = 1024
"""Tokens of a batch on a CPU, padding included; a GPU takes GPU_BUDGET."""
GPU_BUDGET = 16_384


class Inputs(NamedTuple):
    records: Path = Path("data/processed/train.jsonl")
    tokens: Path = Path("data/processed/tokens.safetensors")
    base: Path = Path("models/base")
    adapter: Path = Path("models/adapter")


def measured_rows(inputs: Inputs, params: Tokenize, dtype: "Dtype") -> tuple[list[Record], Measured]:
    """The records that are trained on, in order, and what the models say of them.

    What was measured of the same inputs is read; a measurement that was killed goes on. Raises ValueError for a missing input.
    """
    folder = CACHE / key(inputs, params, dtype)
    if not (folder / RESULT).is_file():
        _measure(inputs, params, dtype, folder)
    with np.load(folder / RESULT, allow_pickle=False) as kept:
        values = {name: kept[name] for name in kept.files}
    every, numbers = list(read_records(inputs.records)), values.pop("records")
    return [every[number] for number in numbers], Measured(**values)


def key(inputs: Inputs, params: Tokenize, dtype: "Dtype") -> str:
    """A hash of all that decides the values; of the base's weights by size and time, since to hash them may take minutes."""
    for path, stage in zip(inputs, ("convert", "tokenize", "base", "train"), strict=True):
        if not path.exists():
            raise ValueError(f"{path} is missing: run `dvc repro {stage}`, which writes it")
    states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files(inputs.base)]
    parts = [
        METHOD,
        file_sha256(inputs.records),
        file_sha256(inputs.tokens),
        folder_sha256(inputs.adapter),
        states,
        params.model_dump(mode="json"),
        dtype,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _measure(inputs: Inputs, params: Tokenize, dtype: "Dtype", folder: Path) -> None:
    from tuneline.cli.rows.items import (
        answer_begin,
        flat_rows,
        last_answer_alone,
        read_items,
        supervised,
        under_other_prompt,
    )
    from tuneline.cli.rows.passes import nll_pass
    from tuneline.models.chat_format import load_prompter
    from tuneline.models.loading import load_tokenizer

    tokenizer = load_tokenizer(inputs.base)
    items = read_items(inputs.records, inputs.tokens, tokenizer, params)
    owners, rows = zip(*flat_rows(items), strict=True)
    records = [item.record for item in items]
    compared, others = _compared(records)
    has_other = others != np.arange(len(records))
    asks_nothing = load_prompter(tokenizer).generation_prompt([{"role": "user", "content": ""}])
    last = [last_answer_alone(item.rows[-1]) for item in items]
    alone = [under_other_prompt(row, asks_nothing) for row in last]
    mixed = [
        under_other_prompt(last[others[row]], last[row].input_ids[: answer_begin(last[row])])
        for row in np.flatnonzero(has_other)
    ]
    models = Models(inputs, dtype)
    base = nll_pass(models.base, rows, models.budget, folder / "base", "rows under the base", pooled=True)
    without = nll_pass(models.base, alone, models.budget, folder / "alone", "answers without questions", pooled=True)
    crossed = nll_pass(models.base, mixed, models.budget, folder / "mixed", "answers of other questions")
    tuned = nll_pass(models.tuned, rows, models.budget, folder / "tuned", "rows under the tuned model")
    # Of a record that was split, the last row has its last answer.
    final = np.flatnonzero(np.diff([*owners, len(items)]))
    counts = np.bincount(owners, [supervised(row) for row in rows])
    tokens = np.array([supervised(row) for row in alone], dtype=np.float64)
    information = np.stack([without["last"], without["last"][others]], 1).astype(np.float64)
    information[:, 0] -= base["last"][final]
    information[has_other, 1] -= crossed["last"]
    evidence = Evidence(base["prompt"][final], without["answer"], information, np.stack([tokens, tokens[others]], 1))
    values = Measured(
        base_nll=np.bincount(owners, base["nll"]) / counts,
        tuned_nll=np.bincount(owners, tuned["nll"]) / counts,
        information=evidence.information[:, 0],
        odds=_all_odds(records, compared, others, evidence),
        prompt=evidence.prompt,
        answer=evidence.answer,
    )
    with atomic_output(folder / RESULT) as partial, partial.open("wb") as stream:
        np.savez(stream, allow_pickle=False, records=np.array([item.number for item in items]), **values._asdict())
    for name in ("base", "alone", "mixed", "tuned"):
        remove(folder / name)


def _compared(records: Sequence[Record]) -> tuple[list[Numbers], Numbers]:
    """Parts of sources whose rows are compared, and for each row another one of its part, or itself where there is none."""
    questions, answers = ([normalise(of(record)) for record in records] for of in (last_question, said))
    others = np.arange(len(records))
    compared = list(parts(by_source(records)))
    for part in compared:
        others[part] = part[partners(part, questions, answers)]
    return compared, others


def _all_odds(records: Sequence[Record], compared: Sequence[Numbers], others: Numbers, evidence: Evidence) -> Floats:
    found = np.full(len(records), np.nan)
    for part in compared:
        place = {int(row): number for number, row in enumerate(part)}
        within = np.array([place[int(other)] for other in others[part]])
        found[part] = odds_of([records[row] for row in part], evidence.of(part), within)
    return found


class Models:
    """Base and tuned model, loaded once and only when asked for: the adapter is put onto the base, or reads it anew."""

    def __init__(self, inputs: Inputs, dtype: "Dtype") -> None:
        from tuneline.models.devices.placement import place
        from tuneline.models.loading import pick_dtype

        self.inputs = inputs
        self.place = place(inputs.base, dtype, DTYPE).places[0]
        self.dtype = pick_dtype(dtype, self.place.device, DTYPE, inputs.base)
        self.budget = BUDGET if self.place.device.type == "cpu" else GPU_BUDGET
        self.model: Any = None
        self.has_adapter = False

    def base(self) -> Any:
        from tuneline.models.cpu_tuning import retain_freed_blocks
        from tuneline.models.devices.placement import load_at

        if self.model is None:
            retain_freed_blocks()
            self.model = load_at(self.place, self.inputs.base, self.dtype)
        assert not self.has_adapter, "rows under the base come first"
        return self.model

    def tuned(self) -> Any:
        from tuneline.models.devices.placement import load_at
        from tuneline.models.loading import load_adapter, load_narrow_adapter

        if self.has_adapter:
            return self.model
        if self.place.limits is not None:
            # Its layers are where they will compute, with hooks: what is added has to be read with them.
            self.model = None
            self.model = load_at(self.place, self.inputs.base, self.dtype, self.inputs.adapter)
        elif self.place.device.type == "cpu":
            self.model = load_adapter(self.base(), self.inputs.adapter)
        else:
            self.model = load_narrow_adapter(self.base(), self.inputs.adapter, self.dtype)
        self.has_adapter = True
        return self.model
