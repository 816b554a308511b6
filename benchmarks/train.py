"""Training side by side: Tuneline, transformers' Trainer, TRL and LLaMA-Factory on the same base, rows, batch, dtype and LoRA.

    python -m benchmarks.train --setup      first: environments for TRL and LLaMA-Factory, in .bench/
    python -m benchmarks.train              three rounds of three steps, half an hour on 2 cores
    python -m benchmarks.train --quick      one round of two steps

LawBench 3-8 (`dvc repro fetch`) without its `system` text, LoRA r 16 on all linear layers but the head, 4 × 2 rows a step, up
to 512 tokens, constant learning rate. Contenders take turns, each in a process of its own. Tokens are real ones, padding not
counted; the first step is left out of the rate and is in the start-up. Markdown on standard output, progress on standard error.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks import folder as folders
from benchmarks.figures import chart, heading, measure, table, verdicts, workload

BENCH = folders.ROOT / ".bench"
CONTENDER = "benchmarks.contenders"
UV = str(Path(sys.executable).with_name("uv"))
ROWS, MICRO, MAX_TOKENS = 8, 4, 512


class Contender(NamedTuple):
    program: str
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
NEEDS = {"trl": "trl==1.16.0", "llamafactory": "llamafactory==0.9.5"}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, default=folders.ROOT / "models/base")
    parser.add_argument("--data", type=Path, default=folders.ROOT / "data/raw/lawbench/consultation.jsonl")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="at least two")
    parser.add_argument("--quick", action="store_true", help="one round of two steps")
    parser.add_argument("--only", nargs="*", choices=list(CONTENDERS))
    parser.add_argument("--setup", action="store_true", help="make the environments that are missing, and end")
    options = parser.parse_args()
    if options.setup:
        set_up()
        return
    for needed, how in ((options.base / "config.json", "base"), (options.data, "fetch")):
        if not needed.is_file():
            sys.exit(f"train: {needed} is missing: run `dvc repro {how}`")
    if options.steps < 2:
        parser.error("--steps is 1: the first step has no rate, expected at least 2")
    rounds, steps = (1, 2) if options.quick else (options.rounds, options.steps)
    names = options.only or list(CONTENDERS)
    job = make_job(options.base.resolve(), options.data, steps)
    seen: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    peaks = []
    for number in range(rounds):
        for name in names:
            print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
            peaks.append(matmul_rate())
            seen[name].append(run(CONTENDERS[name], job))
    work = workload(job, ROWS)
    figures = {name: measure(runs, work, median(peaks)) for name, runs in seen.items()}
    print(
        heading(work, rounds, median(peaks), NEEDS.values()),
        table(figures),
        verdicts(figures),
        chart(figures),
        sep="\n\n",
    )


def set_up() -> None:
    """An environment each, since their versions of transformers differ."""
    for name, needed in NEEDS.items():
        if not (BENCH / name / "bin/python").exists():
            subprocess.run([UV, "venv", "--quiet", str(BENCH / name)], check=True)
            # torchaudio, which LLaMA-Factory imports, works with the torch of its own version alone, and ends at 2.11.
            lock = ["-r", str(folders.ROOT / "requirements.lock")] if name == "trl" else ["psutil", "torch==2.11.0"]
            python = str(BENCH / name / "bin/python")
            subprocess.run([UV, "pip", "install", "--quiet", "--python", python, *lock, needed], check=True)


def make_job(base: Path, data: Path, steps: int) -> dict[str, Any]:
    """Everything that the contenders have in common."""
    from tuneline.cli.plan import read_config
    from tuneline.formats.records import Message
    from tuneline.models.chat_format import Prompter
    from tuneline.models.loading import load_tokenizer
    from tuneline.train.lora import resolve_targets

    prompter = Prompter(load_tokenizer(base))
    rows = []
    for line in filter(None, data.read_text(encoding="utf-8").split("\n")):
        said = json.loads(line)
        turns: list[Message] = [
            {"role": "user", "content": said["query"]},
            {"role": "assistant", "content": said["response"]},
        ]
        row = prompter.training_row(turns)
        if len(row.input_ids) <= MAX_TOKENS:
            own = {"question": said["query"], "answer": said["response"]}
            rows.append({"input_ids": list(row.input_ids), "labels": list(row.labels)} | own)
    if len(rows) < steps * ROWS:
        sys.exit(f"train: {data} has {len(rows)} rows of up to {MAX_TOKENS} tokens, expected {steps * ROWS}")
    import torch
    from transformers import AutoModelForCausalLM

    config = read_config(base / "config.json")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings().weight.numel()
    total = sum(one.numel() for one in model.parameters())
    tied = config.tie_word_embeddings
    return {
        "base": str(base),
        "rows": rows[: steps * ROWS],
        "steps": steps,
        "max_tokens": MAX_TOKENS,
        "targets": sorted(resolve_targets(model, ["all"])),
        # Frozen weights: 2N forward and 2N backward a token; embeddings are looked up, not multiplied.
        "per_token": 4 * (total - head * (1 if tied else 2)),
        "per_learnt_token": 4 * head,
        "arguments": {
            "use_cpu": not torch.cuda.is_available(),
            "bf16": True,
            "seed": 17,
            "max_steps": steps,
            "per_device_train_batch_size": MICRO,
            "gradient_accumulation_steps": ROWS // MICRO,
            "learning_rate": 1e-3,
            "lr_scheduler_type": "constant",
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
        },
    }


def run(contender: Contender, job: dict[str, Any]) -> dict[str, Any]:
    """{"times", "losses", "peak_gb"} of one run in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="tuneline-train-") as name:
        folder = Path(name)
        own = {"folder": name, "result": str(folder / "result.json"), "packing": contender.packing}
        given = job | own | {"arguments": job["arguments"] | {"output_dir": str(folder / "out")}}
        (folder / "job.json").write_text(json.dumps(given, ensure_ascii=False), encoding="utf-8")
        if contender.program == "ours":
            prepare_ours(folder, job)
        python = sys.executable if contender.environment is None else str(BENCH / contender.environment / "bin/python")
        if not Path(python).exists():
            sys.exit("train: its environment is missing: run `python -m benchmarks.train --setup` first")
        env = os.environ | {
            "PYTHONPATH": str(folders.ROOT),
            "PYTHONWARNINGS": "ignore",
            "TOKENIZERS_PARALLELISM": "false",
        }
        env |= {"HF_HUB_OFFLINE": "1"}
        if contender.program == "ours":
            env |= folders.ALONE | {"MASTER_PORT": folders.free_port()}
        command = [python, "-m", f"{CONTENDER}.{contender.program}", str(folder / "job.json")]
        result = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=folder)
        if result.returncode:
            sys.exit(f"train: {contender.program} failed: {result.stderr[-3000:]}")
        answer: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        return answer


def prepare_ours(folder: Path, job: dict[str, Any]) -> None:
    """The rows stored so that the run's own shuffling brings them in the order of the others."""
    import numpy as np

    from tuneline.formats.example import Encoded
    from tuneline.formats.token_file import write_tokens

    folders.make(folder, Path(job["base"]))
    rows = job["rows"]
    places = np.random.default_rng([17, 0]).permutation(len(rows))
    stored: list[Any] = [None] * len(rows)
    for place, row in zip(places, rows, strict=True):
        stored[place] = Encoded(row["input_ids"], row["labels"])
    write_tokens(folder / "data/processed/tokens.safetensors", stored)
    train = {"seed": 17, "max_steps": job["steps"], "epochs": 1, "scheduler": "constant", "warmup_ratio": 0.0}
    train |= {"batch_size": ROWS, "micro_batch_size": MICRO, "save_steps": 10_000, "dtype": "bfloat16"}
    folders.write_params(folder, {"train": train, "lora": {"r": 16, "alpha": 32, "dropout": 0.0, "targets": ["all"]}})


def matmul_rate() -> float:
    """Floating-point operations a second of a bfloat16 product of 2048 × 2048, in a process of its own."""
    program = """
import time, torch
a, b = (torch.randn(2048, 2048, device="cuda" if torch.cuda.is_available() else "cpu").bfloat16() for _ in "ab")
sync = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
best = 9e9
for _ in range(15):
    start = time.perf_counter(); (a @ b); sync(); best = min(best, time.perf_counter() - start)
print(2 * 2048**3 / best)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return float(said.stdout)


if __name__ == "__main__":
    main()
