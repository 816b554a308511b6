"""Own metrics that two revisions were both scored by: what can be compared, and a sentence for what can't."""

from collections.abc import Callable, Mapping
from typing import Any

from tuneline.evaluate.own.comparison import Function, OwnFigures
from tuneline.formats.metrics import known_metrics
from tuneline.scoring.own import load_metrics

Described = Mapping[str, Mapping[str, Any]]
"""`own` of an eval_details.json."""


def own_of_both(
    names: tuple[str, str], described: tuple[Described, Described], read_records: Callable[[], Mapping[str, Any]]
) -> tuple[OwnFigures, list[str]]:
    """Metrics with one version on both sides, and why others are left out.

    Values of items lie beside the answers. A metric of all rows is computed anew, by the function that is here, which must be
    of this version, too; `read_records` gives the held-out items by id for it.
    """
    first, second = described
    left: list[str] = []
    same: dict[str, Mapping[str, Any]] = {}
    functions: dict[str, Function] = {}
    for name in dict.fromkeys([*first, *second]):
        if name not in first or name not in second:
            has, lacks = names if name in first else names[::-1]
            left.append(f"{name} is a metric of {has} alone: {lacks} was evaluated without it")
        elif (one := first[name]["version"]) != (other := second[name]["version"]):
            left.append(
                f"{name} has version {one} in {names[0]} and {other} in {names[1]}: run `dvc repro evaluate` with one in both"
            )
        elif not first[name]["corpus"]:
            same[name] = first[name]
        else:
            try:
                functions[name] = _function(first[name])
                same[name] = first[name]
            except ValueError as error:
                left.append(f"{name} is of all rows, and can't be computed here: {error}")
    records: Mapping[str, Any] = {}
    if functions:
        try:
            records = read_records()
        except ValueError as error:
            left.append(f"{', '.join(functions)}: of all rows, and without the held-out items: {error}")
            same = {name: one for name, one in same.items() if name not in functions}
    metrics = {name: metric for name, metric in known_metrics({"own": same}).items() if name in same}
    return OwnFigures(metrics, functions, records), left


def _function(described: Mapping[str, Any]) -> Function:
    (metric,) = load_metrics([described["spec"]])
    if metric.version != described["version"]:
        raise ValueError(f"{metric.files[0]} has version {metric.version}, expected {described['version']}")
    return metric.corpus_value
