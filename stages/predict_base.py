"""Let the base answer the held-out questions: what every tuned model is compared with.

    python -m stages.predict_base

Reads data/processed/heldout.jsonl, models/base and section `evaluate`; writes
data/processed/{base_answers,base_general}.jsonl. It reads nothing of training, so ablations do not run it again.
"""

from pathlib import Path

from tuneline.evaluate.config import Evaluate
from tuneline.formats.records import read_heldout, write_jsonl
from tuneline.models.cpu_tuning import keep_blocks
from tuneline.runtime.atomic import building
from tuneline.runtime.params import load
from tuneline.runtime.stage import note, run

HELDOUT = Path("data/processed/heldout.jsonl")
BASE = Path("models/base")
ANSWERS = Path("data/processed/base_answers.jsonl")
GENERAL = Path("data/processed/base_general.jsonl")


def main() -> None:
    params = load(Evaluate)
    from tuneline.evaluate.general_prompts import ask_general
    from tuneline.evaluate.predict import ask
    from tuneline.models.loading import load_model, load_tokenizer, pick_device, pick_dtype

    records = read_heldout(HELDOUT)
    device = pick_device()
    dtype = pick_dtype(params.dtype, device, "evaluate.dtype")
    note(device=device.type, dtype=str(dtype))
    keep_blocks()
    model, tokenizer = load_model(BASE, dtype, device), load_tokenizer(BASE)
    answers, speed = ask(model, tokenizer, records, params, "predict_base")
    note(**speed)
    general = ask_general(model, tokenizer, params, "predict_base")
    with building(ANSWERS) as path, building(GENERAL) as other:
        write_jsonl(path, answers)
        write_jsonl(other, general)
    print(f"predict_base: {len(answers)} answers of the base in {ANSWERS}")


if __name__ == "__main__":
    run(main, __doc__)
