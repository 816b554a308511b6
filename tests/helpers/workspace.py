"""A project's folder as the stages leave it: params, chats, records, metrics, base and adapter."""

import copy
import json
import shutil
from pathlib import Path

import yaml

from tests.helpers.methods import method
from tests.helpers.paths import ROOT
from tests.helpers.stages import link_code

CHATS = [
    [{"role": "user", "content": question}, {"role": "assistant", "content": "多休息，多喝水。"}]
    for question in ("感冒怎么办", "头痛怎么办", "失眠了", "我咳嗽", "发烧三天", "牙痛", "胃不舒服", "腰酸")
]


def make_workspace(folder: Path, base: Path, changes: dict) -> None:
    """A folder as `tokenize` leaves it, with params of a method."""
    from tuneline.formats.token_file import write_tokens
    from tuneline.models.chat_format import load_prompter
    from tuneline.models.loading import load_tokenizer

    (folder / "models").mkdir(parents=True)
    (folder / "models/base").symlink_to(base)
    link_code(folder)
    (folder / "data/processed").mkdir(parents=True)
    prompter = load_prompter(load_tokenizer(base))
    write_tokens(folder / "data/processed/tokens.safetensors", [prompter.training_row(chat) for chat in CHATS])
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["lora"] |= {"r": 4, "alpha": 8, "dropout": 0.1}
    params["train"] |= {"max_steps": 8, "epochs": 9, "learning_rate": 0.03, "batch_size": 4, "micro_batch_size": 2}
    params["train"] |= {"save_steps": 4, "logging_steps": 1, "dtype": "float32", "warmup_ratio": 0.1}
    params["export"]["dtype"] = "float32"
    for section, values in copy.deepcopy(changes).items():
        params[section] |= values
    (folder / "params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True), encoding="utf-8")
    write_records(folder, CHATS[:3])
    (folder / "metrics").mkdir()
    write_metrics(folder)


def write_records(folder: Path, chats: list) -> None:
    """The same records to train on and to hold out."""
    text = "".join(
        json.dumps(
            {"id": f"s:{n}", "source": "s", "origin": f"f:{n}", "task": "qa", "messages": chat}, ensure_ascii=False
        )
        + "\n"
        for n, chat in enumerate(chats)
    )
    for name in ("train", "heldout"):
        (folder / f"data/processed/{name}.jsonl").write_text(text, encoding="utf-8")


def shipped_sections() -> dict:
    """What an adapter's lineage says of the parameters."""
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    return {name: shipped[name] for name in ("deepspeed", "freeze", "lora", "ptuning", "train", "tune")}


def write_metrics(folder: Path) -> None:
    """What the stages before `export` say of their work."""
    counted = {"items": 4, "train": 2, "heldout": 2, "duplicates": 0, "leaks": 0, "rejected": 0}
    side = {"rouge_l": {"value": 12.5, "low": 10.0, "high": 15.0}}
    side |= {name: {"value": value} for name, value in (("eos_rate", 100.0), ("repetition", 1.0))}
    delta = {"rouge_l": {"value": 2.5, "low": -1.0, "high": 6.0, "p": 0.25, "wins": 1, "ties": 0, "losses": 1}}
    change = {
        "prompts": 3,
        "nll_per_token": {
            "base": {"value": 0.25},
            "tuned": {"value": 0.5},
            "delta": {"value": 0.25, "low": 0.1, "high": 0.4},
        },
    }
    trained = {"first_loss": 3.5, "last_loss": 2.5, "supervised_tokens": 40, "rows_seen": 8, "steps": 4}
    contents = {
        "convert_details": {"sources": {"s": counted}, "total": counted},
        "eval_details": {
            "items": 2,
            "tasks": {"qa": 2},
            "base": side,
            "tuned": side,
            "delta": delta,
            "general": change,
        },
        "train": trained | {"trainable_parameters": 10, "total_parameters": 100},
    }
    for name, content in contents.items():
        (folder / f"metrics/{name}.json").write_text(json.dumps(content))
    # The figures above are of one task: no item's scores are needed for them.
    (folder / "metrics/predictions.jsonl").write_text("")
    (folder / "data/processed/classes.json").write_text("{}")


def make_trained(folder: Path, base: Path, seed: int = 2) -> None:
    """Models, records and metrics as `evaluate` leaves them; the LoRA adapter is random and strong."""
    import torch

    from tuneline.models.loading import load_model
    from tuneline.runtime.hashing import file_sha256
    from tuneline.train import methods

    shutil.copytree(base, folder / "models/base")
    chosen = method(lora={"r": 4, "alpha": 8, "dropout": 0.0})
    model = methods.prepare(load_model(base, torch.float32), chosen)
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    methods.save(model, chosen, folder / "models/adapter")
    inputs = {"models/base/SHA256SUMS": file_sha256(folder / "models/base/SHA256SUMS")}
    (folder / "models/adapter/lineage.json").write_text(json.dumps({"params": shipped_sections(), "inputs": inputs}))
    (folder / "data/processed").mkdir(parents=True)
    (folder / "metrics").mkdir()
    write_records(folder, CHATS[:2])
    write_metrics(folder)
