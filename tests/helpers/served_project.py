"""A small project whose base, adapter and another adapter answer the same questions differently, and are sure of it."""

import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.helpers.methods import method
from tests.helpers.paths import ROOT
from tests.helpers.tiny_models import canonical, make_base
from tuneline.formats.example import IGNORE_INDEX, Encoded

QUESTIONS = ("感冒", "头痛", "失眠", "咳嗽", "发烧", "牙痛", "胃痛", "腰酸", "眼干", "脚气", "便秘", "过敏")
CHARACTERS = "感冒一般周左右会自行好转请多休息喝温水不动产物权设立变更消灭依法登记发生效力"
ANSWERS = 10
"""Characters of an answer."""
WRONG_ANSWERS = ("请多休息", "依法登记发生")
"""To prompts that are wrong."""


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


def wrongly_prompted(
    prompter, rows: list[dict], change: Callable[[list[int]], list[int]], answer: str
) -> list[Encoded]:
    """Rows whose prompts are changed and whose answer is another one."""
    wrong = []
    for row in rows:
        question = row["messages"][:1]
        encoded = prompter.training_row([*question, {"role": "assistant", "content": answer}])
        prompt = prompter.generation_prompt(question)
        changed, said = change(prompt), encoded.input_ids[len(prompt) :]
        wrong.append(Encoded([*changed, *said], [*[IGNORE_INDEX] * len(changed), *encoded.labels[len(prompt) :]]))
    return wrong


def learn(model, encoded: Sequence[Encoded], steps: int, rate: float) -> None:
    """Train what is trainable until it knows the rows by heart."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    ids = pad_sequence([torch.tensor(row.input_ids) for row in encoded], batch_first=True)
    labels = pad_sequence([torch.tensor(row.labels) for row in encoded], batch_first=True, padding_value=IGNORE_INDEX)
    # Every row ends with what is padded after it, which no causal position sees.
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=rate, weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for _ in range(steps):
        logits = model(input_ids=ids).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=IGNORE_INDEX
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def make_project(
    folder: Path,
    family: str = "llama3",
    template: str | None = None,
    wrong_prompts: Sequence[Callable[[list[int]], list[int]]] = (),
) -> Path:
    """Base, adapter, answers of both, and another adapter in models/other with its predictions beside it.

    `template` is the base's own chat template; `wrong_prompts` are changes of a prompt's ids, at most two, from which the
    base has learnt to tell the right ones: else a tiny model may not see them, and answer as if nothing was wrong.
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

    def encoded(rows: list[dict]) -> list[Encoded]:
        return prompter.training_rows([row["messages"] for row in rows])

    network = load_model(base, torch.float32)
    torch.manual_seed(3)
    wrong = [
        row
        for change, answer in zip(wrong_prompts, WRONG_ANSWERS, strict=False)
        for row in wrongly_prompted(prompter, records(1), change, answer)
    ]
    learn(network.requires_grad_(True).train(), [*encoded(records(1)), *wrong], 120, 0.02)
    network.eval().save_pretrained(base)
    chosen = method(lora={"r": 8, "alpha": 16, "dropout": 0.0})
    for seed, name in ((2, "adapter"), (3, "other")):
        base_model = load_model(base, torch.float32)
        # Whatever loading took of the generator, the adapter begins the same.
        torch.manual_seed(seed)
        tuned = methods.prepare(base_model, chosen)
        learn(tuned.train(), encoded(records(seed)), 120, 0.03)
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


def of_few_bits(load: Callable[[], Any], folder: Path, changed: float) -> Any:
    """The tuned model of the project with weights of 4 bits, rounded so coarsely that this share of its answers are others."""
    import torch

    from tuneline.evaluate.config import Evaluate
    from tuneline.evaluate.predict import Model, predict
    from tuneline.models.loading import load_tokenizer
    from tuneline.served.local_model import rounded

    tokenizer, heldout = load_tokenizer(folder / "models/base"), rows_of(folder / "data/processed/heldout.jsonl")
    evaluate = Evaluate.model_validate(yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))["evaluate"])
    expected = [row["tuned"] for row in rows_of(folder / "metrics/predictions.jsonl")]
    # Another way to round to as many bits has other errors: how far they go before an answer changes differs by CPU.
    for strength in (1.0, 1.4, 1.8, 2.2, 2.6, 3.0, 3.4):
        network = load()
        for name, layer in network.named_modules():
            if isinstance(layer, torch.nn.Linear) and name != "lm_head":
                weight = layer.weight.data
                layer.weight.data = weight + strength * (rounded(weight, 4) - weight)
        said = [
            answer["prediction"] for answer in predict(Model(network, tokenizer, {}), heldout, evaluate, "test").answers
        ]
        if sum(one != other for one, other in zip(said, expected, strict=True)) >= changed * len(said):
            return network
    raise AssertionError("weights of 4 bits change too few answers")


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
