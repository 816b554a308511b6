"""A small project whose base, adapter and another adapter answer the same questions differently, and are sure of it."""

import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from tests.helpers.methods import method
from tests.helpers.paths import ROOT
from tests.helpers.tiny_models import canonical, make_base

QUESTIONS = ("感冒", "头痛", "失眠", "咳嗽", "发烧", "牙痛", "胃痛", "腰酸", "眼干", "脚气", "便秘", "过敏")
CHARACTERS = "感冒一般周左右会自行好转请多休息喝温水不动产物权设立变更消灭依法登记发生效力"
ANSWERS = 10
"""Characters of an answer."""


def records(seed: int) -> list[dict]:
    """The questions with other answers by seed."""
    draw = random.Random(seed)
    return [
        {
            "id": f"s:{number:02}", "source": "s", "origin": f"f:{number}", "task": "qa",
            "messages": [
                {"role": "user", "content": f"{question}怎么办"},
                {"role": "assistant", "content": "".join(draw.choices(CHARACTERS, k=ANSWERS - number % 3))},
            ],
        }
        for number, question in enumerate(QUESTIONS)
    ]  # fmt: skip


def learn(model, prompter, rows: list[dict], steps: int, rate: float) -> None:
    """Train what is trainable until it knows the rows by heart."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    encoded = prompter.training_rows([row["messages"] for row in rows])
    ids = pad_sequence([torch.tensor(row.input_ids) for row in encoded], batch_first=True)
    labels = pad_sequence([torch.tensor(row.labels) for row in encoded], batch_first=True, padding_value=-100)
    # Every row ends with what is padded after it, which no causal position sees.
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=rate, weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for _ in range(steps):
        logits = model(input_ids=ids).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def make_project(folder: Path, family: str = "llama3", template: str | None = None) -> Path:
    """Base, adapter, answers of both, and another adapter in models/other with its predictions beside it.

    `template` is the base's own chat template.
    """
    import torch

    from tuneline.evaluate.config import Evaluate
    from tuneline.evaluate.predict import Model, predict
    from tuneline.evaluate.results import prediction_rows
    from tuneline.formats.records import write_jsonl
    from tuneline.models.chat_format import load_prompter
    from tuneline.models.loading import load_adapter, load_model, load_tokenizer
    from tuneline.train import methods

    source = make_base(folder / "source", family, "llama")
    if template:
        (source / "chat_template.jinja").write_text(template, encoding="utf-8")
    canonical(source, folder / "models/base", "float32")
    base, tokenizer = folder / "models/base", load_tokenizer(folder / "models/base")
    prompter = load_prompter(tokenizer)
    network = load_model(base, torch.float32)
    torch.manual_seed(3)
    learn(network.requires_grad_(True).train(), prompter, records(1), 120, 0.02)
    network.eval().save_pretrained(base)
    chosen = method(lora={"r": 8, "alpha": 16, "dropout": 0.0})
    for seed, name in ((2, "adapter"), (3, "other")):
        base_model = load_model(base, torch.float32)
        # Whatever loading took of the generator, the adapter begins the same.
        torch.manual_seed(seed)
        tuned = methods.prepare(base_model, chosen)
        learn(tuned.train(), prompter, records(seed), 120, 0.03)
        methods.save(tuned, chosen, folder / "models" / name)
        (folder / "models" / name / "lineage.json").write_text("{}")
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["evaluate"] |= {"max_new_tokens": 32, "batch_size": 4, "dtype": "float32"}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True), encoding="utf-8")
    for name in ("data/processed", "metrics"):
        (folder / name).mkdir(parents=True)
    heldout, evaluate = records(2), Evaluate.model_validate(params["evaluate"])
    write_jsonl(folder / "data/processed/heldout.jsonl", heldout)

    def answered(adapter: str | None):
        model = load_model(base, torch.float32)
        if adapter:
            model = load_adapter(model, folder / "models" / adapter)
        return predict(Model(model, tokenizer, {}), heldout, evaluate, "test").answers

    before = answered(None)
    write_jsonl(folder / "data/processed/base_answers.jsonl", before)
    for adapter, path in (("adapter", "metrics/predictions.jsonl"), ("other", "other_predictions.jsonl")):
        write_jsonl(folder / path, prediction_rows(heldout, before, answered(adapter)))
    return folder


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@contextmanager
def at(folder: Path) -> Iterator[Path]:
    """Work in a folder."""
    here = Path.cwd()
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(here)


def served(folder, url, *options) -> tuple[int, dict]:
    """Exit status of the command, and the figures that it wrote."""
    from typer.testing import CliRunner

    from tuneline.cli.app import app

    with at(folder):
        result = CliRunner().invoke(app, ["served", "--url", url, *options])
    assert not isinstance(result.exception, AssertionError), result.exception
    path = folder / "metrics/served.json"
    return result.exit_code, json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
