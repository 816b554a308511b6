"""Kinds of servers: what tells them apart, their versions, and how each is made to answer greedily.

Each has something beside OpenAI's API that no other has. Sources: the documentation of vLLM 0.32, SGLang 0.5, llama.cpp's
`tools/server/README.md`, TGI 3.3, Ollama's `docs/api.md`, transformers 5.23.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tuneline.endpoint.transport import RefusedError, Transport

MODELS = "/v1/models"
MAX_VERSION = 100
"""Characters."""
PENALTY = {"repetition_penalty": 1.0}
"""Against a generation_config.json that sets another."""


class Server(NamedTuple):
    kind: str
    """`tuneline`, `vllm`, `sglang`, `llama.cpp`, `ollama`, `tgi`, `transformers`, or `unknown`."""
    version: str | None
    greedy: Mapping[str, Any]
    """Fields beside OpenAI's that switch off what would change a greedy answer; None leaves one of OpenAI's out."""
    about: Mapping[str, Any]
    """What it says of itself."""


class Kind(NamedTuple):
    name: str
    path: str
    is_it: Callable[[Any], bool]
    """By what is answered at the path."""
    version: Callable[[Any], Any]
    greedy: Mapping[str, Any] = {}


def _has(*keys: str) -> Callable[[Any], bool]:
    return lambda said: all(key in said for key in keys)


def _ours(said: Any) -> bool:
    models = said.get("data")
    first = models[0] if isinstance(models, list) and models else None
    return isinstance(first, dict) and first.get("owned_by") == "tuneline"


def _loads_models(said: Any) -> bool:
    paths = said.get("paths")
    return isinstance(paths, dict) and "/load_model" in paths


KINDS = (
    Kind("tuneline", MODELS, _ours, lambda said: None),
    Kind(
        "llama.cpp",
        "/props",
        _has("default_generation_settings"),
        lambda said: said.get("build_info"),
        # llama.cpp's own sampler chain has more than OpenAI's fields, and some are on by default.
        {"repeat_penalty": 1.0, "dry_multiplier": 0.0, "top_k": 1},
    ),
    # TGI takes no top_p of 1.
    Kind("tgi", "/info", _has("model_id", "max_input_tokens"), lambda said: said.get("version"), {"top_p": None}),
    Kind("sglang", "/get_server_info", _has("model_path", "version"), lambda said: said["version"], PENALTY),
    Kind("vllm", "/version", _has("version"), lambda said: said["version"], PENALTY),
    Kind("ollama", "/api/version", _has("version"), lambda said: said["version"]),
    Kind("transformers", "/openapi.json", _loads_models, lambda said: None),
)
UNKNOWN = Server("unknown", None, {}, {})


def find_server(transport: Transport) -> Server:
    """Ask for what each kind alone has. Raises UnreachableError when nothing answers."""
    try:
        models = transport.get(MODELS)
    except RefusedError:
        models = {}
    for kind in KINDS:
        said = models if kind.path == MODELS else peek(transport, kind.path)
        if isinstance(said, dict) and kind.is_it(said):
            return Server(kind.name, version_text(kind.version(said)), kind.greedy, said)
    return UNKNOWN


def version_text(version: Any) -> str | None:
    """A version as results have it; None for what is none."""
    if not isinstance(version, str | int | float) or isinstance(version, bool):
        return None
    text = str(version)
    return text if text.isprintable() and 0 < len(text) <= MAX_VERSION else None


def peek(transport: Transport, path: str) -> Any:
    """What is answered at a path that may not exist; None where it does not, or is no JSON."""
    try:
        return transport.ask("GET", path, None, retries=0)
    except ValueError:
        return None
