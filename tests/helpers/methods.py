"""Every method of training, as changes to the shipped params."""

import yaml

from tests.helpers.paths import ROOT

METHODS: dict[str, dict] = {
    "lora": {"lora": {}},
    "rslora": {"lora": {"variant": "rslora"}},
    "dora": {"lora": {"variant": "dora"}},
    "pissa": {"lora": {"variant": "pissa"}},
    "loraplus": {"lora": {"variant": "loraplus", "loraplus_ratio": 4}},
    "lora and a norm": {"lora": {"target_modules": ["q_proj", "v_proj"], "modules_to_save": ["norm"]}},
    "neftune": {"lora": {}, "train": {"neftune_alpha": 5}},
    "p_tuning": {"tune": {"method": "p_tuning"}, "ptuning": {"num_virtual_tokens": 6, "encoder_hidden_size": 16}},
    "prefix": {"tune": {"method": "prefix"}, "ptuning": {"num_virtual_tokens": 6, "projection": False}},
    "prefix through a network": {"tune": {"method": "prefix"}, "ptuning": {"num_virtual_tokens": 6, "encoder_hidden_size": 16}},
    "prefix with checkpointing": {"tune": {"method": "prefix"}, "ptuning": {"num_virtual_tokens": 6, "projection": False},
                                  "train": {"gradient_checkpointing": True}},
    "prompt": {"tune": {"method": "prompt"}, "ptuning": {"num_virtual_tokens": 6}, "train": {"learning_rate": 0.5}},
    "freeze": {"tune": {"method": "freeze"}, "freeze": {"layers": 1, "patterns": ["model.norm.*"]}},
    "full": {"tune": {"method": "full"}, "train": {"learning_rate": 0.005}},
}  # fmt: skip


def method(name: str = "lora", **sections: dict):
    """A Method of the shipped params with changes, section by section."""
    from tuneline.train.config.freeze import Freeze
    from tuneline.train.config.lora import Lora
    from tuneline.train.config.ptuning import PTuning
    from tuneline.train.config.tune import Tune
    from tuneline.train.sections import Method

    shipped = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values = {key: shipped[key] | sections.get(key, {}) for key in ("lora", "ptuning", "freeze")}
    return Method(
        Tune(method=name),
        Lora.model_validate(values["lora"]),
        PTuning.model_validate(values["ptuning"]),
        Freeze.model_validate(values["freeze"]),
    )


def perturb_trained(model, seed: int) -> None:
    """Move what trains by random steps, so that an adapter changes something without a training."""
    import torch

    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
