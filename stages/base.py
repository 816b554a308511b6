"""Bring the base model into one canonical form: safetensors, tokenizer, chat template, generation config.

    python -m stages.base

Reads section `base`; writes models/base, metrics/base.json and metrics/base_details.json (the prompt as text). A base whose
perplexity is over its limit fails here.
"""

from pathlib import Path

from tuneline.base.source import open_source
from tuneline.models.config import Base
from tuneline.runtime.atomic import write_json
from tuneline.runtime.stage import Stage, run_stage

BASE = Path("models/base")
METRICS = Path("metrics/base.json")
DETAILS = Path("metrics/base_details.json")


def main(stage: Stage) -> None:
    params = stage.load(Base)
    with open_source(params) as (source, gguf), stage.outputs(BASE, METRICS, DETAILS) as (folder, metrics, details):
        from tuneline.base.canonicalize import canonicalize, quantization_of
        from tuneline.base.inspect import inspect, notice

        prompt = canonicalize(source, gguf, params, folder)
        report, run_info = inspect(folder, params)
        prompted = {"family": prompt.family, "chat_template": prompt.chat_template}
        write_json(metrics, report | prompted | quantization_of(source, gguf))
        write_json(details, {"base_prompt": prompt.text, "rules": prompt.rules})
    stage.record_run_info(**run_info)
    perplexity = f"perplexity {report['perplexity_zh']} (zh) {report['perplexity_en']} (en)"
    print(f"{notice(BASE)}base: {params.source} in {BASE}, {perplexity}\nbase: {prompt.sentence()}")


if __name__ == "__main__":
    run_stage(main, __doc__)
