"""All goals for speed and memory in one table: training beside its peers, and the default pipeline.

    python -m benchmarks.train --setup          first
    python -m benchmarks.speed                  three rounds, half an hour on 2 cores (`make bench` does both)
    python -m benchmarks.speed --rounds 1       a quarter of an hour
    python -m benchmarks.speed --whole          with the export of ChatGLM3-6B's whole shape: 26 GB of disk, 10 minutes more

Needs models/base (`dvc repro base`), and nothing else on the machine: what runs beside it is in its figures. Markdown on
standard output, progress on standard error.
"""

import tempfile
from pathlib import Path

from benchmarks import merge, train
from benchmarks.harness import ROOT, argument_parser, require_file
from benchmarks.project import LAWBENCH
from benchmarks.speed import pipeline, train_report
from benchmarks.speed.goals import Goal, goal_table
from benchmarks.speed.pipeline import METRICS


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--base", type=Path, default=ROOT / "models/base")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="of each contender's run, at least two")
    parser.add_argument("--whole", action="store_true", help="export of the whole 6B shape, too")
    parser.add_argument("--folder", type=Path, help="where the 6B shape is written")
    options = parser.parse_args()
    if options.steps < 2:
        parser.error("--steps is 1: the first step has no rate, expected at least 2")
    # Before the pipeline has run for minutes.
    require_file(options.base / "config.json", "run `dvc repro base`")
    require_file(LAWBENCH, "run `python -m benchmarks.train --setup`")
    run = pipeline.measure(options.rounds)
    found = train.compare(options.base, options.rounds, options.steps)
    goals = [*train_report.goals(train_report.summaries_of(found)), *pipeline.goals(run)]
    if options.whole:
        goals += whole_export(options.folder)
    print("\n\n".join([train_report.report(found), pipeline.report(run), goal_table(goals)]))


def whole_export(folder: Path | None) -> list[Goal]:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        export = merge.measure(Path(scratch) / "project", layers=28, items=1, metrics=METRICS)
    return [
        Goal("export of the whole 6B shape", export.seconds, 300.0, "s", at_most=True),
        Goal("its peak memory", export.peak_gb, 24.0, "GB", at_most=True),
    ]


if __name__ == "__main__":
    main()
