"""A server of a tiny model as vLLM has it, with faults to plant and abilities to switch off."""

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.helpers.fake_server import NOTHING, Asked, Said, completion, models

DEFAULT_SYSTEM = {"role": "system", "content": "你是助手。"}


class Faults(NamedTuple):
    """How a server is wrong; nothing of it is right."""

    prompt: Callable[[list[int]], list[int]] = list
    """What becomes of the ids of a prompt."""
    system: bool = False
    """Whether prompts without a system prompt get one."""
    stop_ids: tuple[int, ...] | None = None
    """None for the right ones."""
    penalty: float = 1.0
    limit: int | None = None
    """Of new tokens."""
    sample: bool = False


class ModelServer:
    """Answers one network's requests; use it with fake_server."""

    def __init__(self, network: Any, tokenizer: Any, faults: Faults | None = None, *, tells: str = "all") -> None:
        """`tells` is all, counts (usage alone) or nothing."""
        from tuneline.models.calls.answers import AnswerReader
        from tuneline.models.chat_format import load_prompter

        self.network, self.tokenizer, self.faults, self.tells = network, tokenizer, faults or Faults(), tells
        self.prompter = load_prompter(tokenizer)
        self.stop_ids = AnswerReader(tokenizer, self.prompter).stop_ids
        self.lock = threading.Lock()
        self.draws = 0

    def __call__(self, asked: Asked) -> Said | None:
        if asked.path == "/v1/models":
            return models("tuned")
        if asked.path == "/v1/chat/completions":
            return self.chat(asked.body)
        if self.tells != "all":
            return NOTHING
        if asked.path == "/version":
            return Said(200, {"version": "0.32.0"})
        if asked.path == "/tokenize" and "messages" in asked.body:
            ids = self.ids(asked.body)
            return Said(200, {"count": len(ids), "tokens": ids})
        return self.likelihood(asked.body) if asked.path == "/v1/completions" else NOTHING

    def ids(self, body: dict) -> list[int]:
        messages = body["messages"]
        if self.faults.system and messages[0]["role"] != "system":
            messages = [DEFAULT_SYSTEM, *messages]
        # As published templates have it, which think unless they are told not to.
        thinking = body.get("chat_template_kwargs", {}).get("enable_thinking", True)
        return self.faults.prompt(self.prompter.generation_prompt(messages, thinking))

    def chat(self, body: dict) -> Said:
        import torch

        ids = self.ids(body)
        limit = min(body["max_tokens"], self.faults.limit or body["max_tokens"])
        stops = self.stop_ids if self.faults.stop_ids is None else list(self.faults.stop_ids)
        with self.lock, torch.inference_mode():
            self.draws += 1
            torch.manual_seed(self.draws)
            output = self.network.generate(
                input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=limit,
                do_sample=self.faults.sample, temperature=3.0 if self.faults.sample else None, top_k=None, top_p=None,
                eos_token_id=stops or None, pad_token_id=self.tokenizer.pad_token_id,
                repetition_penalty=self.faults.penalty,
            )  # fmt: skip
        row = output[0, len(ids) :].tolist()
        ended = bool(row) and row[-1] in stops
        text = self.tokenizer.decode(row[:-1] if ended else row, skip_special_tokens=True)
        said = completion(text, "stop" if ended else "length", len(row))
        said.body["usage"]["prompt_tokens"] = len(ids)
        if self.tells == "nothing":
            del said.body["usage"]
        return said

    def likelihood(self, body: dict) -> Said:
        import torch

        ids = torch.tensor([body["prompt"]])
        with self.lock, torch.inference_mode():
            found = torch.log_softmax(self.network(input_ids=ids).logits[0].float(), -1)
        rows = [
            None,
            *({str(one): {"logprob": float(found[place, one])}} for place, one in enumerate(body["prompt"][1:])),
        ]
        return Said(200, {"choices": [{"text": "", "prompt_logprobs": rows}]})
