"""Prompt ids and token likelihoods, each kind of server by its own interface; None where it has none."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from tuneline.endpoint.kinds import Server
from tuneline.endpoint.transport import RefusedError, Transport

Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]] | None
FORCED = 1e5
"""A logit bias that leaves no other token."""
NOT_IMPLEMENTED = 501
WRONG = (KeyError, IndexError, TypeError, ValueError, OverflowError)
"""What reading of an answer in another form raises."""


def prompt_ids(
    transport: Transport,
    server: Server,
    model: str,
    messages: Messages,
    tools: Tools,
    extra: Mapping[str, Any] | None = None,
) -> list[int] | None:
    """Ids of a conversation with its generation prompt, as the server's chat completions make them of it and `extra`."""
    more = ({"tools": list(tools)} if tools else {}) | dict(extra or {})
    if server.kind in ("vllm", "sglang", "tuneline", "unknown"):
        body = {"model": model, "messages": list(messages), "add_generation_prompt": True} | more
        return ids_in(ask(transport, "/tokenize", body))
    if server.kind == "llama.cpp":
        shown = ask(transport, "/apply-template", {"messages": list(messages)} | more)
        if not isinstance(shown, dict) or not isinstance(shown.get("prompt"), str):
            return None
        # The flags that its chat completions use: a BOS where the model wants one, control tokens as such.
        body = {"content": shown["prompt"], "add_special": True, "parse_special": True}
        return ids_in(ask(transport, "/tokenize", body))
    if server.kind == "tgi":
        said = ask(transport, "/chat_tokenize", {"model": model, "messages": list(messages)} | more)
        return ids_in(said.get("tokenize_response") if isinstance(said, dict) else None)
    return None


def text_ids(transport: Transport, server: Server, model: str, text: str) -> list[int] | None:
    """Ids of a text without BOS."""
    bodies = {
        "llama.cpp": {"content": text, "add_special": False, "parse_special": True},
        "tgi": {"inputs": text, "add_special_tokens": False},
    }
    if server.kind in ("ollama", "transformers"):
        return None
    plain = {"model": model, "prompt": text, "add_special_tokens": False}
    return ids_in(ask(transport, "/tokenize", bodies.get(server.kind, plain)))


def token_nll(transport: Transport, server: Server, model: str, ids: Sequence[int], first: int) -> list[float] | None:
    """-log p in nats of ids[first:]; 1 <= first."""
    assert first >= 1, "the first id follows nothing, so it has no likelihood"
    if len(ids) <= first:
        return []
    ways = {"vllm": _vllm, "sglang": _sglang, "llama.cpp": _llama_cpp, "ollama": None, "tgi": None}
    way = ways.get(server.kind, _echo)
    found = way(transport, model, list(ids), first) if way else None
    # A server that leaves out some, or says what is no number, is one that can't say.
    return found if found is not None and len(found) == len(ids) - first and all(map(isfinite, found)) else None


def _vllm(transport: Transport, model: str, ids: list[int], first: int) -> list[float] | None:
    body = {"model": model, "prompt": ids, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
    said = ask(transport, "/v1/completions", body)
    try:
        rows = said["choices"][0]["prompt_logprobs"]
        return [-float(row[str(own)]["logprob"]) for own, row in zip(ids[first:], rows[first:], strict=True)]
    except WRONG:
        return None


def _sglang(transport: Transport, model: str, ids: list[int], first: int) -> list[float] | None:
    body = {
        "input_ids": ids,
        "sampling_params": {"max_new_tokens": 1, "temperature": 0},
        "return_logprob": True,
        "logprob_start_len": 0,
    }
    said = ask(transport, "/generate", body)
    try:
        rows = said["meta_info"]["input_token_logprobs"]
        return [-float(row[0]) for row in rows[first:]] if [row[1] for row in rows] == ids else None
    except WRONG:
        return None


def _llama_cpp(transport: Transport, model: str, ids: list[int], first: int) -> list[float] | None:
    """Its likelihoods are of generated tokens alone, before biases: so each id is generated, forced by a bias."""
    found = []
    for place in range(first, len(ids)):
        body = {
            "prompt": ids[:place],
            "n_predict": 1,
            "n_probs": 1,
            "logit_bias": [[ids[place], FORCED]],
            "temperature": 0,
            "cache_prompt": True,
        }
        said = ask(transport, "/completion", body)
        try:
            token = said["completion_probabilities"][0]
            if token["id"] != ids[place]:
                return None
            found.append(-float(token["logprob"]))
        except WRONG:
            return None
    return found


def _echo(transport: Transport, model: str, ids: list[int], first: int) -> list[float] | None:
    """OpenAI's own earlier way, which lm-evaluation-harness asks by, too: a completion that repeats its prompt."""
    body = {"model": model, "prompt": ids, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
    said = ask(transport, "/v1/completions", body)
    try:
        found = said["choices"][0]["logprobs"]["token_logprobs"]
        return [-float(value) for value in found[first : len(ids)]] if len(found) >= len(ids) else None
    except WRONG:
        return None


def ask(transport: Transport, path: str, body: Mapping[str, Any]) -> Any:
    """What the server answers; None where it does not know the path or the request. Raises RefusedError where it fails."""
    try:
        return transport.post(path, body)
    except RefusedError as refused:
        if refused.status >= 500 and refused.status != NOT_IMPLEMENTED:
            raise
        return None


def ids_in(said: Any) -> list[int] | None:
    """A list of ids, however it is wrapped."""
    if isinstance(said, dict):
        said = said.get("tokens", said.get("input_ids"))
    if isinstance(said, list) and said and isinstance(said[0], list):
        said = said[0]
    if not isinstance(said, list):
        return None
    ids = [entry.get("id") if isinstance(entry, dict) else entry for entry in said]
    known = [number for number in ids if isinstance(number, int) and not isinstance(number, bool)]
    return known if len(known) == len(ids) else None
