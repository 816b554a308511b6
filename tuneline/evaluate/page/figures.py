"""Figures as a page shows them: as many digits as say something, with their unit."""

import re
from collections.abc import Mapping

from tuneline.formats.html import Text
from tuneline.formats.metrics import METRICS, Metric

DIGITS = {"%": 1, "0–100": 1}
"""By unit; 2 for the others."""


def number(name: str, value: float, known: Mapping[str, Metric] = METRICS) -> str:
    """A metric's value without its unit; none and all of a hundred need no digits. `known` are the metrics by name."""
    if known[name].unit == "%" and value in (0, 100):
        return f"{value:.0f}"
    return f"{value:.{DIGITS.get(known[name].unit, 2)}f}"


def shown(name: str, value: float, known: Mapping[str, Metric] = METRICS) -> str:
    """With its unit, where that is a sign."""
    return number(name, value, known) + ("\u00a0%" if known[name].unit == "%" else "")


def signed(name: str, value: float, known: Mapping[str, Metric] = METRICS) -> str:
    """A difference without its unit; a minus is one, and no hyphen, and there is no minus before 0."""
    text = f"{value:+.{DIGITS.get(known[name].unit, 2)}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("+-")


def curve_title(column: str, known: Mapping[str, Metric] = METRICS) -> Text:
    """Of a column of metrics/loss.csv: a user's own metric that the evaluation does not have is called as it is."""
    if column == "validation_loss":
        return Text("Validation loss by step", "各步的验证损失")
    name = known[column].title if column in known else column
    return Text(f"{name} of validation answers by step", spaced(f"各步验证回答的{name}"))


def difference(name: str, value: float) -> Text:
    """With its unit, which is points and not percent."""
    unit = METRICS[name].unit
    en = {"%": " points", "0–100": " points", "nats": " nats"}.get(unit, "")
    zh = {"%": " 个百分点", "0–100": " 分", "nats": " 奈特"}.get(unit, "")
    return Text(signed(name, value) + en, signed(name, value) + zh)


def chance(p: float) -> Text:
    """How often equal models would differ as much."""
    if p < 0.001:
        return Text("fewer than 1 in 1,000 cases", "不到千分之一的情况")
    percent = f"{100 * p:.0f}" if p >= 0.1 else f"{100 * p:.2g}"
    return Text(f"{percent} % of cases", f"{percent} % 的情况")


def p_value(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def spaced(text: str) -> str:
    """Chinese text with a space between a Chinese character and a Latin letter or digit."""
    han, latin = "[\u4e00-\u9fff]", "[A-Za-z0-9+\u2212]"
    return re.sub(f"(?<={han})(?={latin})|(?<=[A-Za-z0-9%])(?={han})", " ", text)
