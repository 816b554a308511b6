"""Figures of an evaluation that a person compares between experiments: at most ten, flat, the most telling first."""

from collections.abc import Iterable
from typing import Any

from tuneline.formats.metrics import MAIN_METRICS, METRICS

ALWAYS = ("nll_per_char", "eos_rate", "repetition")
OF_CALLS = ("tools_name_accuracy", "tools_arguments_f1", "tools_call_accuracy")
"""Beside the main one, where they are few enough."""
MOST = 10


def figures(details: dict[str, Any]) -> dict[str, float | int | None]:
    """metrics/eval.json out of eval_details.json: the tuned model's values, and the change on general prompts.

    `dvc exp show` and VS Code have their columns in this order: by what a model is judged, what it forgot, what is watched, and
    the number of items, which is the same in most experiments.
    The base answers the same items in every experiment on it, so that differences to it would tell nothing more. What was not
    measured is None.
    """
    tasks = details["tasks"]
    own = {METRICS[name].task for name in MAIN_METRICS} - {None}
    main = [name for name in MAIN_METRICS if METRICS[name].task in tasks]
    if set(tasks) - own:
        main += [name for name in MAIN_METRICS if METRICS[name].task is None]
    # What somebody wrote a metric for he wants to see; the details have those that are too many here.
    main += [name for name in details.get("own", ()) if name in details["tuned"]][: MOST - 2 - len(main)]
    always = ALWAYS[: MOST - 2 - len(main)]
    calls = (OF_CALLS if "tools" in tasks else ())[: MOST - 2 - len(main) - len(always)]
    general = details["general"]["nll_per_token"]
    forgot = {"general_nll_change": general and general["delta"]["value"]}
    return _values(main, details) | forgot | _values((*calls, *always), details) | {"items": details["items"]}


def _values(names: Iterable[str], details: dict[str, Any]) -> dict[str, Any]:
    return {name: details["tuned"].get(name, {}).get("value") for name in names}
