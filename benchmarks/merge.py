"""Exporting a ChatGLM3-6B-shaped model: peak memory and time of `stages.export`, and whether it holds.

    python -m benchmarks.merge [--layers 28] [--items 2] [--folder DIR]

Random bfloat16 weights in transformers' native layout and a random LoRA adapter of rank 8 are written to disk first: 28 layers
are ChatGLM3-6B's 12.5 GB, and export writes as much again; 9 are a cut of 2.4 billion parameters. The tokenizer knows bytes
and ChatGLM3's markers. Then the stage runs as it always does.
"""

import argparse
import json
import math
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from benchmarks.folder import ROOT, make, write_params

if TYPE_CHECKING:
    import torch

RANK = 8
ANSWER = "多休息，多喝水。"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.merge", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--items", type=int, default=2, help="held-out items that both models are run over")
    parser.add_argument("--folder", type=Path, help="where to write; it needs three times the model")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        folder = Path(scratch) / "project"
        parameters = build(folder, options.layers, options.items)
        begin = time.monotonic()
        subprocess.run([sys.executable, "-m", "stages.export"], cwd=folder, check=True)
        seconds = time.monotonic() - begin
        report = json.loads((folder / "metrics/export.json").read_text(encoding="utf-8"))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print("| layers | billion parameters | bfloat16 GB | float32 GB | export's peak GB | of float32 | seconds |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    print(
        f"| {options.layers} | {parameters / 1e9:.2f} | {2 * parameters / 1e9:.2f} | {4 * parameters / 1e9:.2f} "
        f"| {peak / 1e9:.2f} | {peak / 4 / parameters:.2f} | {seconds:.0f} |"
    )
    print(
        f"delta_nll {report['delta_nll']:.2g}, largest logit difference {report['max_logit_difference']:.2g}, ", end=""
    )
    print(f"greedy agreement {report['greedy_agreement']:.2%} over {report['tokens']} tokens")


def build(folder: Path, layers: int, items: int) -> int:
    """What `export` reads; returns the parameters of the base."""
    import torch
    from transformers import AutoModelForCausalLM

    from benchmarks.chatglm3 import CONFIG
    from tuneline.formats.safetensors_writer import Tensor, write_shards
    from tuneline.models.chatglm.config import native_config, shape_of
    from tuneline.runtime.atomic import to_json
    from tuneline.runtime.hashing import file_sha256, write_sums

    make(folder, folder / "base")
    base = folder / "base"
    base.mkdir()
    stops = write_tokenizer(base)
    config = native_config(shape_of(CONFIG | {"num_layers": layers}), "bfloat16", 0, stops)
    config.save_pretrained(base)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    tensors = [Tensor(name, tuple(one.shape), noise(tuple(one.shape))) for name, one in model.state_dict().items()]
    write_shards(base, tensors, "bfloat16")
    write_sums(base)
    adapter(model, folder / "models/adapter")
    write_params(folder)
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    inputs = {"models/base/SHA256SUMS": file_sha256(base / "SHA256SUMS")}
    (folder / "models/adapter/lineage.json").write_text(to_json({"params": params, "inputs": inputs}), encoding="utf-8")
    for name in ("convert", "eval", "train"):
        shutil.copyfile(ROOT / f"metrics/{name}.json", folder / f"metrics/{name}.json")
    rows = "".join(json.dumps(record(number), ensure_ascii=False) + "\n" for number in range(items))
    for name in ("train", "heldout"):
        (folder / f"data/processed/{name}.jsonl").write_text(rows, encoding="utf-8")
    return sum(math.prod(tensor.shape) for tensor in tensors)


def write_tokenizer(folder: Path) -> list[int]:
    """Tokenizer, chat template and generation config; returns the ids that end an answer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GenerationConfig, PreTrainedTokenizerFast

    from tuneline.models.chat_format import Prompter
    from tuneline.models.chat_templates import chat_template

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<pad>", "<eos>", "[gMASK]", "sop", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]
    bytes_ = Tokenizer(models.BPE({name: number for number, name in enumerate([*names, *letters])}, []))
    bytes_.pre_tokenizer, bytes_.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    bytes_.add_special_tokens(names)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_, pad_token="<pad>", eos_token="<eos>")  # noqa: S106
    tokenizer.chat_template = chat_template("chatglm3")
    tokenizer.save_pretrained(folder)
    stops = Prompter(tokenizer).stop_ids
    GenerationConfig(eos_token_id=stops, pad_token_id=0).save_pretrained(folder)
    return stops


def record(number: int) -> dict[str, object]:
    messages = [
        {"role": "user", "content": f"第{number}个病人感冒了，怎么办？"},
        {"role": "assistant", "content": ANSWER},
    ]
    return {"id": f"s:{number}", "source": "s", "origin": f"s:{number}", "task": "qa", "messages": messages}


def adapter(model: "torch.nn.Module", folder: Path) -> None:
    """A random LoRA adapter of all linear layers, as PEFT saves one."""
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
    from safetensors.torch import save_file

    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"]
    config = LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=2 * RANK, target_modules=targets)
    state = get_peft_model_state_dict(get_peft_model(model, config))
    folder.mkdir(parents=True)
    save_file(
        {name: noise(tuple(one.shape))().float() for name, one in state.items()}, folder / "adapter_model.safetensors"
    )
    config.inference_mode = True
    config.save_pretrained(str(folder))


def noise(shape: tuple[int, ...]) -> "Callable[[], torch.Tensor]":
    """What makes a tensor of small numbers, the same few over and over: drawing billions takes minutes."""
    import torch

    def made() -> torch.Tensor:
        few = torch.randn(2**20, generator=torch.Generator().manual_seed(len(shape))) * 0.02
        return few.repeat(-(-math.prod(shape) // len(few)))[: math.prod(shape)].reshape(shape).bfloat16()

    return made


if __name__ == "__main__":
    main()
