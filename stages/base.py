"""Bring the base model into one canonical form: safetensors, tokenizer, chat template, generation config.

    python -m stages.base

Reads section `base`; writes models/base, metrics/base.json and metrics/base_details.json (the prompt as text, how rows are
trained). A base whose perplexity is over its limit fails here, and one that a later stage could not train, evaluate or export.
"""

from pathlib import Path

from tuneline.base.source import open_source
from tuneline.models.config import Base
from tuneline.runtime.atomic import write_json
from tuneline.runtime.params.user_path import user_path
from tuneline.runtime.stage import Stage, run_stage
from tuneline.runtime.terminal.lines import say

BASE = Path("models/base")
METRICS = Path("metrics/base.json")
DETAILS = Path("metrics/base_details.json")


def main(stage: Stage) -> None:
    params = stage.load(Base)
    stage.inputs.watch(user_path(params.source), params.sha256)
    with open_source(params) as (source, gguf), stage.outputs(BASE, METRICS, DETAILS) as (folder, metrics, details):
        from tuneline.base.canonicalize import canonicalize, details_of, quantization_of
        from tuneline.base.inspect import inspect, notice

        found = canonicalize(source, gguf, params, folder)
        report, run_info = inspect(folder, params)
        prompted = {"family": found.prompt.family, "chat_template": found.prompt.chat_template}
        write_json(metrics, report | prompted | quantization_of(source, gguf))
        write_json(details, details_of(found))
    stage.record_run_info(**run_info)
    perplexity = f"perplexity {report['perplexity_zh']} (zh) {report['perplexity_en']} (en)"
    say(*notice(BASE), f"base: {params.source} in {BASE}, {perplexity}", *(f"base: {one}" for one in found.sentences()))


if __name__ == "__main__":
    run_stage(main, __doc__)
