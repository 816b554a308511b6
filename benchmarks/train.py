"""Training side by side: Tuneline, transformers' Trainer, TRL and LLaMA-Factory on the same base, rows, batch, dtype and LoRA.

    python -m benchmarks.train --setup      first: environments for TRL and LLaMA-Factory, in .bench/
    python -m benchmarks.train              three rounds of three steps, half an hour on 2 cores
    python -m benchmarks.train --quick      one round of two steps

LawBench 3-8 (`dvc repro fetch`) without its `system` text, LoRA r 16 on all linear layers but the head, 4 × 2 rows a step, up
to 512 tokens, constant learning rate. Contenders take turns, each in a process of its own. Tokens are real ones, padding not
counted; the first step is left out of the rate and is in the start-up. Markdown on standard output, progress on standard error.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.hardware import matmul_rate, operations_per_token
from benchmarks.harness import ROOT, argument_parser, call_in_child, interleaved, require_file
from benchmarks.project import make_project, write_params
from benchmarks.train_report import report

BENCH = ROOT / ".bench"
UV = str(Path(sys.executable).with_name("uv"))
ROWS, MICRO, MAX_TOKENS = 8, 4, 512


class Contender(NamedTuple):
    module: str
    environment: str | None = None
    """Below .bench/; None is this one."""
    packing: bool = False


CONTENDERS = {
    "Tuneline": Contender("ours"),
    "LLaMA-Factory": Contender("llamafactory_sft", "llamafactory"),
    "TRL": Contender("trl_sft", "trl"),
    "TRL, packing": Contender("trl_sft", "trl", packing=True),
    "Trainer": Contender("plain"),
}
REQUIREMENTS = {"trl": "trl==1.16.0", "llamafactory": "llamafactory==0.9.5"}


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--base", type=Path, default=ROOT / "models/base")
    parser.add_argument("--data", type=Path, default=ROOT / "data/raw/lawbench/consultation.jsonl")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="at least two")
    parser.add_argument("--quick", action="store_true", help="one round of two steps")
    parser.add_argument("--only", nargs="*", choices=list(CONTENDERS))
    parser.add_argument("--setup", action="store_true", help="make the environments that are missing, and end")
    options = parser.parse_args()
    if options.setup:
        set_up()
        return
    require_file(options.base / "config.json", "run `dvc repro base`")
    require_file(options.data, "run `dvc repro fetch`")
    if options.steps < 2:
        parser.error("--steps is 1: the first step has no rate, expected at least 2")
    rounds, steps = (1, 2) if options.quick else (options.rounds, options.steps)
    job = make_job(options.base.resolve(), options.data, steps)
    rates: list[float] = []

    def measure(name: str) -> dict[str, Any]:
        rates.append(call_in_child(matmul_rate))
        return run(CONTENDERS[name], job)

    runs = interleaved(options.only or CONTENDERS, rounds, measure)
    print(report(runs, job, ROWS, median(rates), REQUIREMENTS.values()))


def set_up() -> None:
    """An environment each, since their versions of transformers differ."""
    for name, requirement in REQUIREMENTS.items():
        python = python_of(name)
        if not python.exists():
            subprocess.run([UV, "venv", "--quiet", str(BENCH / name)], check=True)
            # torchaudio, which LLaMA-Factory imports, works with the torch of its own version alone, and ends at 2.11.
            lock = ["-r", str(ROOT / "requirements.lock")] if name == "trl" else ["psutil", "torch==2.11.0"]
            command = [UV, "pip", "install", "--quiet", "--python", str(python), *lock, requirement]
            subprocess.run(command, check=True)


def python_of(environment: str | None) -> Path:
    return Path(sys.executable) if environment is None else BENCH / environment / "bin/python"


def make_job(base: Path, data: Path, steps: int) -> dict[str, Any]:
    """Everything that the contenders have in common."""
    import torch

    arguments = {
        "output_dir": "out", "use_cpu": not torch.cuda.is_available(), "bf16": True, "seed": 17, "max_steps": steps,
        "per_device_train_batch_size": MICRO, "gradient_accumulation_steps": ROWS // MICRO, "learning_rate": 1e-3,
        "lr_scheduler_type": "constant", "logging_steps": 1, "save_strategy": "no", "report_to": "none",
        "disable_tqdm": True,
    }  # fmt: skip
    job = {"base": str(base), "rows": read_rows(base, data, steps * ROWS), "steps": steps, "max_tokens": MAX_TOKENS}
    return job | model_facts(base) | {"arguments": arguments}


def read_rows(base: Path, data: Path, count: int) -> list[dict[str, Any]]:
    """The first rows that are short enough: token ids, labels, question and answer."""
    from tuneline.formats.records import Message
    from tuneline.models.chat_format import load_prompter
    from tuneline.models.loading import load_tokenizer

    prompter = load_prompter(load_tokenizer(base))
    rows: list[dict[str, Any]] = []
    for line in filter(None, data.read_text(encoding="utf-8").split("\n")):
        question, answer = (json.loads(line)[key] for key in ("query", "response"))
        user, assistant = Message(role="user", content=question), Message(role="assistant", content=answer)
        example = prompter.training_row([user, assistant])
        if len(example.input_ids) <= MAX_TOKENS:
            tokens = {"input_ids": list(example.input_ids), "labels": list(example.labels)}
            rows.append(tokens | {"question": question, "answer": answer})
    if len(rows) < count:
        sys.exit(f"train: {data} has {len(rows)} rows of up to {MAX_TOKENS} tokens, expected {count}")
    return rows[:count]


def model_facts(base: Path) -> dict[str, Any]:
    """LoRA's targets, and floating-point operations a token."""
    import torch
    from transformers import AutoModelForCausalLM

    from tuneline.cli.prediction import read_config
    from tuneline.train.lora import resolve_targets

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(read_config(base / "config.json"))
    body, head = operations_per_token(model)
    return {"targets": sorted(resolve_targets(model, ["all"])), "per_token": body, "per_supervised_token": head}


def run(contender: Contender, job: dict[str, Any]) -> dict[str, Any]:
    """{"times", "losses", "peak_gb"} of one run in a process of its own."""
    python = python_of(contender.environment)
    require_file(python, "run `python -m benchmarks.train --setup`")
    with tempfile.TemporaryDirectory(prefix="tuneline-train-") as name:
        if contender.module == "ours":
            prepare_ours(Path(name), job)
        return call_in_child(
            f"benchmarks.contenders.{contender.module}:train", job | {"packing": contender.packing},
            cwd=Path(name), python=str(python), TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1",
        )  # fmt: skip


def prepare_ours(folder: Path, job: dict[str, Any]) -> None:
    """The rows stored so that the run's own shuffling brings them in the order of the others."""
    import numpy as np

    from tuneline.formats.example import Encoded
    from tuneline.formats.token_file import write_tokens

    make_project(folder, Path(job["base"]))
    rows = job["rows"]
    places = np.random.default_rng([17, 0]).permutation(len(rows))
    stored: list[Any] = [None] * len(rows)
    for place, row in zip(places, rows, strict=True):
        stored[place] = Encoded(row["input_ids"], row["labels"])
    write_tokens(folder / "data/processed/tokens.safetensors", stored)
    train = {"seed": 17, "max_steps": job["steps"], "epochs": 1, "scheduler": "constant", "warmup_ratio": 0.0}
    train |= {"batch_size": ROWS, "micro_batch_size": MICRO, "save_steps": 10_000, "dtype": "bfloat16"}
    write_params(folder, {"train": train, "lora": {"r": 16, "alpha": 32, "dropout": 0.0, "targets": ["all"]}})


if __name__ == "__main__":
    main()
