"""The page of a check: the verdict with its remedies, the scores, and each answer that differs beside ours."""

from pathlib import Path
from typing import Any

from tuneline.evaluate.page.glossary import METRIC_ENTRIES
from tuneline.formats.html import Text, render
from tuneline.served.check import Checked
from tuneline.served.expected import Project
from tuneline.served.faults import FAULTS
from tuneline.served.results import differing, headline, knowledge, score_lines, sentences

TONES = {"equal": "good", "near": "good", "different": "mixed", "fault": "bad"}


def page(project: Project, checked: Checked, about: dict[str, Any]) -> str:
    """Self-contained HTML; `about` says which server and model."""
    return render(
        Path(__file__).with_name("served.html.jinja"),
        title=Text("Served model", "已部署的模型"),
        tone=TONES[checked.verdict.outcome],
        headline=headline(checked),
        findings=[
            (sentences(finding), [FAULTS[fault].remedy for fault in finding.faults])
            for finding in checked.verdict.findings
        ],
        knowledge=knowledge(checked),
        answers=checked.evidence.answers,
        left_out=project.constrained,
        scores=score_lines(checked),
        titles={entry.title.en: entry.title for entry in METRIC_ENTRIES.values()},
        differing=differing(project, checked),
        about=about,
    )
