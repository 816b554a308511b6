"""The pipeline's own stages on GPUs: speed, memory against the plan, ZeRO, resume, repeatability, answers, other trainers.

    sh benchmarks/gpu.sh                    (these, and then benchmarks.gpu.steps)
    python -m benchmarks.gpu.stages [--smoke] [--seconds 480] [--only CHECK …] [--out FILE]

Random weights in the shape of ChatGLM3-6B, random rows, LoRA r 16, all through `stages.train` and DeepSpeed's launcher, as
`dvc repro` runs it. A check begins only while there is time for it; what is left out is named. `--smoke`: a model of two small
layers on whatever is there.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.checkpoints import CHATGLM3_6B, write_base
from benchmarks.gpu.checks import compare_attention, resume_after_kill, train_other, train_twice
from benchmarks.harness import ChildError, argument_parser, call_in_child, machine_line, show, table
from benchmarks.plan import predict_peak
from benchmarks.project import make_project, read_json, run_stage, write_params, write_random_rows

TINY = {"num_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "kv_channels": 16, "ffn_hidden_size": 128,
        "padded_vocab_size": 512}  # fmt: skip
"""Instead of ChatGLM3-6B's sizes, for `--smoke`."""
STEPS = 6
COLUMNS = ("check", "setting", "result")


class Setting(NamedTuple):
    """Rows of a step, their lengths, and what differs from the shipped params."""

    name: str
    lengths: list[int]
    changes: dict[str, dict[str, Any]]


LEGAL = [120, 200, 250, 300, 340, 380, 450, 600]
"""Tokens of a step's rows as in the legal recipe, 330 in the mean."""


def rows_of(rows: int, length: int, **train: Any) -> Setting:
    settings = ", ".join(f"{name} {value}" for name, value in train.items())
    changes: dict[str, dict[str, Any]] = {"lora": {"dropout": train.pop("dropout", 0.0)}, "train": train}
    name = f"{rows} × {length}" + (f", {settings}" if settings else "")
    return Setting(name, [length] * rows, changes)


SPEED = [
    rows_of(1, 1024),
    Setting("legal rows, one a pass, dropout 0.1, checkpointing", LEGAL,
            {"lora": {"dropout": 0.1}, "train": {"micro_batch_size": 1, "gradient_checkpointing": True}}),
    Setting("legal rows, four a pass", LEGAL, {"train": {"micro_batch_size": 4}}),
    rows_of(1, 1024, dropout=0.1),
    rows_of(1, 1024, dropout=0.1, gradient_checkpointing=True),
    rows_of(8, 1024),
]  # fmt: skip
ZERO = [
    Setting(f"ZeRO-{stage}", [1024], {"lora": {"dropout": 0.0}, "deepspeed": {"zero_stage": stage}}) for stage in (2, 3)
]
PLANNED = SPEED[:1] + SPEED[-1:]
"""Settings whose peak is predicted, too."""


class Check(NamedTuple):
    name: str
    seconds: float
    """That it takes at most, by which it is left out when too few remain."""
    setting: str
    run: Callable[[], str]


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--smoke", action="store_true", help="small layers")
    parser.add_argument("--seconds", type=float, default=480.0, help="begin no check that could end after this")
    parser.add_argument("--only", nargs="+", metavar="CHECK", help="checks by name")
    parser.add_argument("--out", type=Path, help="Markdown goes there, too")
    options = parser.parse_args()
    start, skipped = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="tuneline-gpu-") as name:
        checks = plan_checks(Path(name), TINY if options.smoke else {})

        def rows() -> Iterator[list[str]]:
            for check in checks:
                if options.only and check.name not in options.only:
                    continue
                if time.monotonic() - start + check.seconds > options.seconds:
                    skipped.append(f"\nNo time left for: {check.name}, {check.setting}")
                else:
                    yield [check.name, check.setting, result_of(check)]

        text = show(chain([f"{machine_line('transformers', 'deepspeed')}\n"], table(COLUMNS, rows())))
    text = "\n".join([text, *skipped]) + "\n"
    print(*skipped, sep="\n")
    if options.out:
        options.out.write_text(text, encoding="utf-8")


def result_of(check: Check) -> str:
    """The check's result, or the end of its error."""
    try:
        return check.run()
    except ChildError as error:
        return f"failed: {str(error).strip().splitlines()[-1][:300].replace('|', '/')}"


def plan_checks(scratch: Path, sizes: dict[str, int]) -> list[Check]:
    """In the order of what they tell; a small base is made for those that need one no larger."""
    large, small = scratch / "large", scratch / "small"
    few = CHATGLM3_6B | {"num_layers": 2} | sizes

    def speed(setting: Setting) -> str:
        return train_speed(train_project(scratch, large, setting))

    def planned(setting: Setting) -> str:
        return f"{call_in_child(predict_peak, cwd=train_project(scratch, large, setting)):.1f} GB predicted"

    def weights(base: Path, config: dict[str, Any]) -> str:
        return f"{write_base(base, config) / 1e9:.2f} billion"

    another = partial(small_project, scratch, small)
    checks = [
        Check("weights", 120, "ChatGLM3-6B", partial(weights, large, CHATGLM3_6B | sizes)),
        Check("speed", 60, SPEED[0].name, partial(speed, SPEED[0])),
        Check(
            "attention", 60, "greedy answers, cuDNN on and off", partial(call_in_child, compare_attention, str(large))
        ),
        Check("weights", 30, "two of its layers", partial(weights, small, few)),
        Check("repeatable", 90, "deterministic, twice", partial(train_twice, another)),
        Check("resume", 90, "kill -9 after a checkpoint", partial(resume_after_kill, another)),
    ]
    checks += [Check("speed", 60, one.name, partial(speed, one)) for one in SPEED[1:]]
    checks += [Check("ZeRO", 60, one.name, partial(speed, one)) for one in ZERO]
    checks += [Check("plan", 60, one.name, partial(planned, one)) for one in PLANNED]
    lengths = SPEED[0].lengths * STEPS
    checks += [Check("others", 60, name, partial(train_other, name, large, lengths)) for name in ("plain", "trl_sft")]
    return checks


def train_project(scratch: Path, base: Path, setting: Setting, **train: Any) -> Path:
    """A project folder of its own, ready for `stages.train`."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    make_project(folder, base)
    write_random_rows(folder, setting.lengths * STEPS)
    rows = len(setting.lengths)
    shipped: dict[str, Any] = {
        "batch_size": rows,
        "micro_batch_size": rows,
        "max_steps": STEPS,
        "save_steps": 1000,
        "logging_steps": 1,
    }
    shipped |= {"epochs": 1, "micro_tokens": None, "gradient_checkpointing": False, "learning_rate": 1e-4}
    write_params(folder, {"train": shipped, "lora": {"r": 16, "alpha": 32}}, setting.changes, {"train": train})
    return folder


def small_project(scratch: Path, base: Path) -> Path:
    return train_project(scratch, base, rows_of(2, 256, deterministic=True), save_steps=2)


def train_speed(folder: Path) -> str:
    """Tokens a second, highest memory and first and last loss of a run of the stage."""
    run_stage(folder, "train")
    speed, report = read_json(folder / "metrics/speed/train.json"), read_json(folder / "metrics/train.json")
    return (
        f"{speed['tokens_per_second']:,.0f} tokens/s, {speed['peak_memory_gb']:.1f} GB, loss {report['first_loss']:.4f} → "
        f"{report['last_loss']:.4f}, {speed['wall_seconds']:.0f} s in all"
    )


if __name__ == "__main__":
    main()
