"""Goals for speed and memory: a measured figure beside what it should be, and the table of them."""

from collections.abc import Iterable
from typing import NamedTuple

from benchmarks.harness import table

COLUMNS = ("", "measured", "goal", "of the goal", "")


class Goal(NamedTuple):
    """A figure that should be at least `goal`; or, `at_most`, whose size should not be larger."""

    figure: str
    measured: float
    goal: float
    unit: str = ""
    at_most: bool = False

    @property
    def ratio(self) -> float:
        """At least 1 where the goal is met; 99 where it is met by more than that."""
        size = abs(self.measured) if self.at_most else self.measured
        return min(99.0, self.goal / max(size, 1e-9) if self.at_most else size / self.goal)


def goal_table(goals: Iterable[Goal]) -> str:
    return "\n".join(table(COLUMNS, map(_cells, goals)))


def _cells(goal: Goal) -> list[str]:
    unit = f" {goal.unit}" if goal.unit else ""
    sign = "≤" if goal.at_most else "≥"
    verdict = "met" if goal.ratio >= 1 else "not met"
    return [goal.figure, f"{goal.measured:.3g}{unit}", f"{sign} {goal.goal:g}{unit}", f"{goal.ratio:.2f}", verdict]
