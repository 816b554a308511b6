"""Display names of models: what a visitor reads instead of the names that the API and the terminal use."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from chat.i18n.texts import Text
from tuneline.models.loading import ADAPTER, BASE, MERGED

BASES = {"gemma-3-270m": "Gemma 3 270M", "chatglm3-6b": "ChatGLM3-6B", "chatglm3-6b-base": "ChatGLM3-6B-Base"}
"""Bases by the last part of their source, in lower case with hyphens; another one keeps that part as its name."""
FAMILIES = {
    "gemma2": "Gemma 2", "gemma3_text": "Gemma 3", "glm": "ChatGLM", "llama": "Llama", "mistral": "Mistral",
    "qwen2": "Qwen2", "qwen3": "Qwen3",
}  # fmt: skip
"""By `model_type`, for a base whose source nobody knows."""
METHODS = {
    "lora": Text("LoRA", "LoRA"),
    "p_tuning": Text("P-Tuning", "P-Tuning"),
    "prefix": Text("P-Tuning v2", "P-Tuning v2"),
    "prompt": Text("Prompt Tuning", "prompt tuning"),
    "freeze": Text("Freeze", "freeze"),
    "full": Text("全参数", "all parameters"),
}
VARIANTS = {"rslora": "rsLoRA", "dora": "DoRA", "pissa": "PiSSA", "loraplus": "LoRA+"}


def display_names(names: Iterable[str]) -> dict[str, Text]:
    """Display names of registered models, from the folders of the pipeline."""
    base = base_name(read_json(BASE / "config.json") or read_json(MERGED / "config.json"), base_source())
    method = method_name((read_json(ADAPTER / "lineage.json") or read_json(MERGED / "lineage.json")).get("params", {}))
    return {name: display_name(name, base, method) for name in names}


def display_name(name: str, base: str, method: Text) -> Text:
    """Display name of one model; a revision's own method is not known here."""
    known = {
        "base": Text(f"{base}（微调前）", f"{base} (before tuning)"),
        "adapter": Text(f"{base}（微调后，{method.zh}）", f"{base} (after tuning, {method.en})"),
        "merged": Text(f"{base}（微调后，已合并）", f"{base} (after tuning, merged)"),
    }
    revision = name.removeprefix("rev:")
    return known.get(name, Text(f"{base}（微调后，版本 {revision}）", f"{base} (after tuning, revision {revision})"))


def base_name(config: Mapping[str, Any], source: str) -> str:
    """Name of a base by its checkpoint's configuration, else by its source in params.yaml, else by its family."""
    for origin in (str(config.get("_model_name_or_path") or ""), source):
        if last := Path(origin).name:
            return BASES.get(last.lower().replace(" ", "-"), last)
    kind = str(config.get("model_type") or "")
    return FAMILIES.get(kind, kind or "Base")


def method_name(params: Mapping[str, Any]) -> Text:
    """Name of the method that a lineage's parameters chose."""
    method = str(params.get("tune", {}).get("method") or "lora")
    section = params.get("lora", {})
    if method != "lora":
        return METHODS.get(method, Text(method, method))
    name = VARIANTS.get(str(section.get("variant")), "LoRA")
    name = f"Q{name}" if section.get("quantize") and name == "LoRA" else name
    return Text(name, name)


def base_source() -> str:
    """`base.source` of params.yaml, if there is one."""
    path = Path("params.yaml")
    params = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return str(((params or {}).get("base") or {}).get("source") or "")


def read_json(path: Path) -> dict[str, Any]:
    """Contents of a JSON file; empty when there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
