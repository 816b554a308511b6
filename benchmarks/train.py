"""Training side by side: Tuneline, transformers' Trainer, TRL and LLaMA-Factory on the same base, rows, batch, dtype and LoRA.

    python -m benchmarks.train --setup      first: the environment for LLaMA-Factory, in .bench/, and the rows
    python -m benchmarks.train              three rounds of three steps, half an hour on 2 cores
    python -m benchmarks.train --quick      one round of two steps

LawBench 3-8 without its `system` text, LoRA r 16 on all linear layers but the head, 4 × 2 rows a step, up to 512 tokens,
constant learning rate; bfloat16 where the machine computes in it, else float32. Contenders take turns, each in a process of its
own. Tokens are real ones, padding not counted; the first step is left out of the rate and is in the start-up. Tuneline also
trains on short rows, which are the same ones cut to 70 tokens. Markdown on standard output, progress on standard error.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.hardware import matmul_rate, operations_per_token
from benchmarks.harness import ROOT, argument_parser, call_in_child, interleaved, require_file
from benchmarks.project import BENCH, LAWBENCH, lawbench, make_project, write_params
from benchmarks.speed.goals import goal_table
from benchmarks.speed.train_report import SHORT, Comparison, Workload, goals, report, summaries_of, workload

UV = str(Path(sys.executable).with_name("uv"))
ROWS, MICRO, MAX_TOKENS, SHORT_TOKENS = 8, 4, 512, 70


class Contender(NamedTuple):
    module: str
    environment: str | None = None
    """Below .bench/; None is this one."""
    packing: bool = False
    short: bool = False


CONTENDERS = {
    "Tuneline": Contender("ours"),
    SHORT: Contender("ours", short=True),
    "LLaMA-Factory": Contender("llamafactory_sft", "llamafactory"),
    "TRL": Contender("trl_sft"),
    "Trainer": Contender("plain"),
    "TRL, packing": Contender("trl_sft", packing=True),
}
USUAL = list(CONTENDERS)[:-1]
LLAMAFACTORY = "llamafactory==0.9.5"
"""The newest; it needs older versions of transformers and PEFT than this environment's."""
LOADED = ("torch", "transformers", "peft", "trl")


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--base", type=Path, default=ROOT / "models/base")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="at least two")
    parser.add_argument("--quick", action="store_true", help="one round of two steps")
    parser.add_argument("--only", nargs="*", choices=list(CONTENDERS), default=USUAL)
    parser.add_argument("--setup", action="store_true", help="make what is missing, and end")
    options = parser.parse_args()
    if options.setup:
        set_up()
        return
    if options.steps < 2:
        parser.error("--steps is 1: the first step has no rate, expected at least 2")
    rounds, steps = (1, 2) if options.quick else (options.rounds, options.steps)
    found = compare(options.base, rounds, steps, options.only)
    print(f"{report(found)}\n\n{goal_table(goals(summaries_of(found)))}")


def set_up() -> None:
    """LLaMA-Factory's environment, with this one's version of torch, and the rows."""
    lawbench()
    python = python_of("llamafactory")
    if python.exists():
        return
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, str(BENCH / "llamafactory")], check=True)
    # It imports torchaudio, which an index has for CUDA builds of torch alone: a folder of wheels may hold the CPU's.
    environment = {name: value for name, value in os.environ.items() if name != "UV_FIND_LINKS"}
    torch = f"torch=={version('torch').partition('+')[0]}"
    command = [UV, "pip", "install", "--quiet", "--python", str(python), "psutil", torch, LLAMAFACTORY]
    subprocess.run(command, check=True, env=environment)


def compare(base: Path, rounds: int, steps: int, names: Iterable[str] = USUAL) -> Comparison:
    """Every contender's runs, in turns. Ends the benchmark where the base, the rows or an environment are missing."""
    require_file(base / "config.json", "run `dvc repro base`")
    require_file(LAWBENCH / "consultation.jsonl", "run `python -m benchmarks.train --setup`")
    job = make_job(base.resolve(), steps)
    short = shortened(job)
    rates: list[float] = []

    def measure(name: str) -> dict[str, Any]:
        rates.append(call_in_child(matmul_rate, job["dtype"]))
        return run(CONTENDERS[name], short if CONTENDERS[name].short else job)

    runs = interleaved(names, rounds, measure)
    works: dict[str, Workload] = {name: workload(short if CONTENDERS[name].short else job, ROWS) for name in runs}
    return Comparison(runs, works, median(rates), job["dtype"], versions(runs))


def versions(names: Iterable[str]) -> str:
    """Of the contenders that ran in an environment of their own."""
    program = f"from importlib.metadata import version\nprint(*(f'{{name}} {{version(name)}}' for name in {LOADED}), sep=', ')"
    found = []
    for environment in {CONTENDERS[name].environment for name in names} - {None}:
        done = subprocess.run([python_of(environment), "-c", program], capture_output=True, text=True, check=True)
        found.append(f"{LLAMAFACTORY.replace('==', ' ')} with {done.stdout.strip()}")
    return "; ".join(found)


def python_of(environment: str | None) -> Path:
    return Path(sys.executable) if environment is None else BENCH / environment / "bin/python"


def make_job(base: Path, steps: int) -> dict[str, Any]:
    """Everything that the contenders have in common."""
    import torch

    from tuneline.models.loading import pick_device, pick_dtype

    dtype = str(pick_dtype("auto", pick_device())).removeprefix("torch.")
    arguments = {
        "output_dir": "out", "use_cpu": not torch.cuda.is_available(), "bf16": dtype == "bfloat16", "seed": 17,
        "max_steps": steps, "per_device_train_batch_size": MICRO, "gradient_accumulation_steps": ROWS // MICRO,
        "learning_rate": 1e-3, "lr_scheduler_type": "constant", "logging_steps": 1, "save_strategy": "no",
        "report_to": "none", "disable_tqdm": True,
    }  # fmt: skip
    rows = read_rows(base, LAWBENCH / "consultation.jsonl", steps * ROWS)
    job = {"base": str(base), "rows": rows, "steps": steps, "max_tokens": MAX_TOKENS, "dtype": dtype, "micro": MICRO}
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


def shortened(job: dict[str, Any]) -> dict[str, Any]:
    """The job with each row cut to SHORT_TOKENS, as much of it supervised, three times over; one micro-batch a step."""
    rows = [cut(row, SHORT_TOKENS) for row in job["rows"]] * 3
    return job | {"rows": rows, "steps": 3 * job["steps"], "micro": ROWS}


def cut(row: dict[str, Any], length: int) -> dict[str, Any]:
    """The end of a row's prompt and the beginning of its answer, `length` tokens in the proportion of the whole."""
    ids, labels = row["input_ids"], row["labels"]
    first = next(place for place, label in enumerate(labels) if label != -100)
    prompt = max(1, round(length * first / len(ids)))
    part = slice(first - prompt, first - prompt + length)
    return row | {"input_ids": ids[part], "labels": labels[part]}


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
    train = {"seed": 17, "max_steps": job["steps"], "epochs": 1, "lr_scheduler_type": "constant", "warmup_ratio": 0.0}
    train |= {
        "batch_size": ROWS,
        "micro_batch_size": job["micro"],
        "micro_tokens": None,
        "gradient_checkpointing": False,
    }
    train |= {"save_steps": 10_000, "logging_steps": 1, "dtype": job["dtype"]}
    write_params(folder, {"train": train, "lora": {"r": 16, "alpha": 32, "dropout": 0.0, "target_modules": ["all"]}})


if __name__ == "__main__":
    main()
