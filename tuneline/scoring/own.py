"""Metrics of the user's own: functions in Python files of evaluation/, which params.yaml names as `file.py:function`.

The names of its parameters say what a function is of. One item: `prediction`, and any of `references`, `reference` (the first),
`question` and `record`. All items: `rows` alone, each of them a dictionary of these five, `id` and `task`. It gives a number;
None where an item does not count. True and False are 1 and 0, and 100 and 0 in percent. Attributes of the function say the
rest: `unit` ("" unless set), `higher_is_better` (True unless set), `title`; its docstring's first line is its meaning.
"""

import hashlib
import inspect
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from tuneline.formats.metrics import EARLIER_NAMES, METRICS, Metric
from tuneline.runtime.evaluation_folder import FOLDER, SPEC, hashes_of, path_of
from tuneline.scoring.own_modules import load_module, place_of, said, serve

OF_AN_ITEM = ("prediction", "references", "reference", "question", "record")
PERCENT = ("%", "0–100")
"""Units in which True is 100."""
TAKEN = {*METRICS, *EARLIER_NAMES, "items", "general_nll_change", "general"}
"""Names of figures that are there already."""


class MetricError(ValueError):
    """An own metric that failed: file, line, and the item where it was one."""


class NoNumberError(ValueError):
    """What a function gave, and is no finite number."""


@dataclass(frozen=True)
class OwnMetric:
    spec: str
    """As in params.yaml."""
    name: str
    """The function's."""
    version: str
    """The first 12 digits of the file's sha256; of all hashes together, where it uses other files of the folder."""
    corpus: bool
    """Of all rows, and not of one item."""
    higher_is_better: bool
    title: str
    unit: str
    meaning: str
    """A line for readers; may be empty."""
    files: tuple[str, ...]
    """That it consists of: evaluation/my_metrics.py, …"""
    folder: Path
    line: int
    function: Callable[..., Any]
    parameters: tuple[str, ...]

    @property
    def metric(self) -> Metric:
        return Metric(self.title, self.version, self.higher_is_better, self.unit, None, self.corpus)

    def value(
        self, prediction: str, question: str, references: Sequence[str], record: Mapping[str, Any]
    ) -> float | None:
        """Of one answer; None where it does not count. Raises MetricError naming file, line and item."""
        # What a function does to its record is nothing to the next one.
        given = row_of(prediction, question, references, deepcopy(dict(record)))
        return self._number({name: given[name] for name in self.parameters}, f"item {record.get('id')}")

    def corpus_value(self, rows: Sequence[Mapping[str, Any]]) -> float | None:
        """Of all answers, whose rows are those of row_of; None where nothing counts. Raises MetricError."""
        # A function may sort or change what it is given, and resampling gives the same rows again.
        copies = [{**row, "references": list(row["references"])} for row in rows]
        return self._number({"rows": copies}, f"{len(rows)} rows")

    def _number(self, given: dict[str, Any], of: str) -> float | None:
        try:
            found = self.function(**given)
            return number(found, self.unit)
        except NoNumberError as error:
            raise MetricError(
                f"{self._place()}: {self.name} gave {error} for {of}, expected a number, or None where nothing counts"
            ) from None
        except (Exception, SystemExit) as error:
            place = place_of(error, self.folder) or self._place()
            raise MetricError(f"{place}: {self.name} failed on {of}: {said(error)}") from error

    def _place(self) -> str:
        return f"{self.files[0]}, line {self.line}"


def row_of(prediction: str, question: str, references: Sequence[str], record: Mapping[str, Any]) -> dict[str, Any]:
    """What functions are given of an answer to an item."""
    return {
        "id": record.get("id"),
        "task": record.get("task"),
        "prediction": prediction,
        "question": question,
        "references": list(references),
        "reference": references[0],
        "record": record,
    }


def number(value: Any, unit: str) -> float | None:
    """What a function gave, as a number. Raises NoNumberError for anything else, nan and inf included."""
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        value = value.item()
    if value is None:
        return None
    if isinstance(value, bool):
        return float(value) * (100 if unit in PERCENT else 1)
    if not isinstance(value, Real):
        shown = repr(value)
        raise NoNumberError(f"{shown[:60]}{'…' * (len(shown) > 60)} ({type(value).__name__})")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise NoNumberError(str(found))
    return found


def load_metrics(specs: Sequence[str], folder: Path = FOLDER) -> list[OwnMetric]:
    """The metrics that are named, in order. Raises ValueError with a sentence for each that can't be one."""
    serve(folder)
    modules: dict[str, Any] = {}
    metrics, wrong = [], []
    for spec in specs:
        try:
            metrics.append(_load(spec, folder, modules))
        except ValueError as error:
            wrong.append(str(error))
    twice = [name for name, times in Counter(metric.name for metric in metrics).items() if times > 1]
    wrong += [
        f"{' and '.join(metric.spec for metric in metrics if metric.name == name)} have one name: rename a function"
        for name in twice
    ]
    if wrong:
        raise ValueError("; ".join(wrong))
    return metrics


def _load(spec: str, folder: Path, modules: dict[str, Any]) -> OwnMetric:
    parts = SPEC.fullmatch(spec)
    if parts is None or not parts["function"].isidentifier():
        raise ValueError(
            f"{spec!r} names no metric, expected a file and its function, such as my_metrics.py:triage_accuracy"
        )
    file, name = parts["file"], parts["function"]
    if name in TAKEN:
        raise ValueError(f"{spec}: {name} is a figure of Tuneline's own: give the function another name")
    if file not in modules:
        modules[file] = load_module(path_of(file, folder), folder)
    path, function = folder / file, getattr(modules[file], name, None)
    if not callable(function) or inspect.isclass(function):
        known = ", ".join(key for key, value in vars(modules[file]).items() if inspect.isfunction(value))
        what = "has no function" if function is None else f"has a {type(function).__name__}, and no function, called"
        raise ValueError(f"{path} {what} {name}, expected one of {known or 'nothing: it has none'}")
    line = getattr(getattr(function, "__code__", None), "co_firstlineno", 1)
    corpus, parameters = _parameters(function, name, f"{path}, line {line}")
    hashes = hashes_of([file], folder)
    return OwnMetric(
        spec, name, _version(file, hashes), corpus, **_attributes(function, name, f"{path}, line {line}"),
        files=tuple(str(folder / one) for one in sorted(hashes, key=lambda one: one != file)),
        folder=folder, line=line, function=function, parameters=parameters,
    )  # fmt: skip


def _version(file: str, hashes: dict[str, str]) -> str:
    if len(hashes) == 1:
        return hashes[file][:12]
    return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in hashes.items()).encode()).hexdigest()[:12]


def _parameters(function: Callable[..., Any], name: str, place: str) -> tuple[bool, tuple[str, ...]]:
    """Whether it is of all rows, and which of what is known of an item it takes."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):
        raise ValueError(f"{place}: {name} does not say what it takes, expected a plain function") from None
    own = [one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    taken = tuple(one.name for one in own if one.name in (*OF_AN_ITEM, "rows"))
    strange = [one for one in parameters if one.name not in taken and one.default is one.empty]
    strange = [one for one in strange if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    if not strange and (taken == ("rows",) or ("prediction" in taken and "rows" not in taken)):
        return taken == ("rows",), taken
    raise ValueError(
        f"{place}: {name} takes ({', '.join(map(str, parameters))}), expected prediction and any of "
        f"{', '.join(OF_AN_ITEM[1:])} for a metric of each item, or rows alone for one of all"
    )


def _attributes(function: Callable[..., Any], name: str, place: str) -> dict[str, Any]:
    title = getattr(function, "title", name[:1].upper() + name[1:].replace("_", " "))
    unit, higher = getattr(function, "unit", ""), getattr(function, "higher_is_better", True)
    unit = "0–100" if unit == "0-100" else unit
    for key, value in (("title", title), ("unit", unit)):
        if not isinstance(value, str) or not value.isprintable() or len(value) > 60:
            raise ValueError(f"{place}: {name}.{key} is {value!r}, expected text on one line of at most 60 characters")
    if not isinstance(higher, bool):
        raise ValueError(f"{place}: {name}.higher_is_better is {higher!r}, expected True or False")
    meaning = (inspect.getdoc(function) or "").partition("\n")[0] if inspect.isfunction(function) else ""
    return {"higher_is_better": higher, "title": title or name, "unit": unit, "meaning": meaning}
