"""Cache of answers for own metrics, so that a changed metric needs no new answers.

They lie in the user's private cache folder for a week, by all that decides them: inputs, code, parameters and machine, but no
metric. A server's answers are kept as they arrive, by tuneline.evaluate.endpoint.
"""

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuneline.evaluate.answering import Answered, Questions, answer
from tuneline.evaluate.endpoint.kept import kept_answers
from tuneline.runtime.machine import machine_info
from tuneline.runtime.stage import Stage
from tuneline.runtime.terminal.lines import say
from tuneline.scoring.own import OwnMetric

KEY = "answered"


def answer_once(questions: Questions, stage: Stage, metrics: Sequence[OwnMetric]) -> Answered:
    """All answers: those that an earlier run kept, or new ones, which are kept."""
    if not metrics or questions.params.backend == "endpoint":
        return answer(questions)
    kept = kept_answers(what_decides(questions, stage, metrics))
    if KEY in kept.values:
        found = Answered(**kept.values[KEY])
        say(
            f"{stage.name}: {len(found.answers)} answers are there from an earlier run, and are only scored",
        )
    else:
        found = answer(questions)
        kept.put(KEY, {"answers": found.answers, "general": found.general, "run_info": found.run_info})
    return found


def what_decides(questions: Questions, stage: Stage, metrics: Sequence[OwnMetric]) -> dict[str, Any]:
    """All that answers depend on, as JSON."""
    of_metrics = {Path(file).as_posix() for metric in metrics for file in metric.files}
    # What chooses the device and how sums are split; torch would take seconds to say it.
    chosen = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "DS_ACCELERATOR", "OMP_NUM_THREADS")}
    devices = sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*"))
    machine = {"node": platform.node(), "threads": len(os.sched_getaffinity(0)), "devices": devices} | chosen
    return {
        "stage": stage.name,
        "inputs": stage.inputs.hashes(),
        "classes": questions.classes,
        "params": questions.params.model_dump(exclude={"metrics"}),
        "code": {name: digest for name, digest in stage.code.items() if name not in of_metrics},
        "machine": machine_info() | machine,
    }
