"""Thresholds of the verdict: from which figures on a page says that models differ, or that answers are bad."""

from typing import NamedTuple

SURE = 0.05
"""Of p: below it, and with an interval beyond 0, two models differ."""
VERY_SURE = 0.001


class Threshold(NamedTuple):
    """From where on a figure is noted, and from where on it is severe."""

    noted: float
    severe: float


LOOPS = Threshold(12.0, 40.0)
"""Repeated 4-grams of the tuned model's answers in percent, their mean over the items of a task."""
CUT_OFF = Threshold(10.0, 50.0)
"""Answers of the tuned model that do not end by themselves, in percent of a task's items."""
FORGETTING = Threshold(0.2, 0.7)
"""Rise of the NLL of written answers to general prompts in nats per token, its interval above 0; 0.7 doubles the perplexity."""
LOOPING_ANSWER = 50.0
"""Repeated 4-grams in percent from which on a single answer is listed as a looping one."""
