"""Worked examples of metrics: `evaluate.metrics: [example_metrics.py:names_department]` in params.yaml uses one."""

from collections import defaultdict


def names_department(prediction, references, record):
    """Share of complaints whose department is named anywhere in the answer, also within a sentence."""
    if record["task"] != "label":
        return None
    return any(reference in prediction for reference in references)


names_department.title = "Department named"
names_department.unit = "%"


def worst_department(rows):
    """Share of right answers in the department that is answered worst: nobody should be sent wrong every time."""
    right = defaultdict(list)
    for row in rows:
        if row["task"] == "label":
            right[row["reference"]].append(row["prediction"].strip() == row["reference"])
    return min((100 * sum(found) / len(found) for found in right.values()), default=None)


worst_department.unit = "%"
