"""A tiny model that is taught to call a function, to answer what it gives, and to answer without it."""

from pathlib import Path

import torch

from benchmarks.chat_templates import template_tokenizer
from tests.helpers.tiny_models import canonical

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "", "parameters": CITY}}]
ASKED = {"role": "user", "content": "a天气"}
CALLED = {"role": "assistant", "content": "", "tool_calls": [{"name": "weather", "arguments": {"city": "a"}}]}
FOUND = {"role": "tool", "content": "晴"}


def record(number, messages):
    return {"id": f"s:{number}", "source": "s", "origin": "f", "task": "tools", "tools": TOOLS, "messages": messages}


def lessons():
    """Six items of three kinds: a call, an answer to what it gave, and one that needs no call."""
    talks = []
    for city in "ab":
        asked = [{"role": "user", "content": f"{city}天气"}]
        call = CALLED | {"tool_calls": [{"name": "weather", "arguments": {"city": city}}]}
        talks += [[*asked, call], [*asked, call, FOUND, {"role": "assistant", "content": f"{city}晴天"}]]
    talks += [[{"role": "user", "content": text}, {"role": "assistant", "content": "好"}] for text in ("你好", "再见")]
    return [record(number, talk) for number, talk in enumerate(talks)]


def made(folder: Path, template: str) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = template_tokenizer(template)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=1024, tie_word_embeddings=False, **shape, **ends
    )
    LlamaForCausalLM(config).save_pretrained(folder / "source")
    tokenizer.save_pretrained(folder / "source")
    return canonical(folder / "source", folder / "base", "float32")


def teach(network, rows, most=1000) -> None:
    """Train until it is sure of every token, on whatever CPU."""
    width = max(len(row.input_ids) for row in rows)
    ids, labels = (
        torch.tensor([[*part, *[fill] * (width - len(part))] for part in parts])
        for parts, fill in (([row.input_ids for row in rows], 0), ([row.labels for row in rows], -100))
    )
    mask = torch.tensor([[1] * len(row.input_ids) + [0] * (width - len(row.input_ids)) for row in rows])
    optimizer = torch.optim.AdamW(network.requires_grad_(True).parameters(), lr=0.005)
    for _ in range(most):
        logits = network(input_ids=ids, attention_mask=mask).logits[:, :-1].flatten(0, 1)
        losses = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="none")
        if float(losses.detach().max()) < 0.1:
            return
        optimizer.zero_grad()
        losses.sum().div((labels[:, 1:] != -100).sum()).backward()
        optimizer.step()
    raise AssertionError(f"it is not sure of every token after {most} steps")
