"""What tests share: a tiny random base with a tokenizer trained here, a project folder, and the real samples."""

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
FIXTURES = Path(__file__).parent / "fixtures"
# One thread for each of the workers that run side by side: models of two layers gain nothing from more.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A machine with a GPU must behave like one without: what is tested here is exact.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["HF_HUB_OFFLINE"] = "1"


def pytest_collection_modifyitems(items: list) -> None:
    """Files with stories first: the longest should not be what everything else waits for at the end."""
    long = {item.path for item in items if item.get_closest_marker("story")}
    items.sort(key=lambda item: (item.path not in long, str(item.path)))


MARKERS = {
    "gemma": ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"],
    "chatml": ["<pad>", "<eos>", "<|im_start|>", "<|im_end|>"],
    "llama3": ["<pad>", "<eos>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    "glm4": ["<pad>", "<eos>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"],
}
FIRST = {"gemma": "<bos>", "llama3": "<|begin_of_text|>"}
TEXTS = [
    "感冒一般一周左右会自行好转，请多休息、多喝温水。",
    "根据《中华人民共和国民法典》第二百零九条，不动产物权的设立、变更、转让和消灭，经依法登记，发生效力。",
    "The quick brown fox jumps over the lazy dog.\n\nuser model assistant system",
]


CONFIG = {
    "model_type": "chatglm", "architectures": ["ChatGLMModel"], "add_bias_linear": False, "add_qkv_bias": True,
    "apply_residual_connection_post_layernorm": False, "multi_query_attention": True, "original_rope": True,
    "post_layer_norm": True, "rmsnorm": True, "layernorm_epsilon": 1e-5, "seq_length": 256, "quantization_bit": 0,
}  # fmt: skip
"""Of a ChatGLM3 checkpoint, sizes left out."""
REAL = CONFIG | {
    "num_layers": 28, "hidden_size": 4096, "num_attention_heads": 32, "kv_channels": 128, "multi_query_group_num": 2,
    "ffn_hidden_size": 13696, "padded_vocab_size": 65024, "seq_length": 8192,
}  # fmt: skip
"""ChatGLM3-6B."""


def make_tokenizer(family: str):
    """A byte-level BPE tokenizer with the family's control tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=MARKERS[family],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    bos = {"bos_token": FIRST[family]} if family in FIRST else {}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", **bos)


def make_base(folder: Path, family: str = "gemma", model: str = "gemma3") -> Path:
    """A random two-layer model with its tokenizer, as a checkpoint folder."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(family)
    shape = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 2048}
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    torch.manual_seed(5)
    if model == "gemma3":
        config = Gemma3TextConfig(**shape, **heads, **ends, sliding_window=64, query_pre_attn_scalar=16)
        network = Gemma3ForCausalLM(config)
    else:
        config = LlamaConfig(**shape, **heads, **ends, tie_word_embeddings=False)
        network = LlamaForCausalLM(config)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizers():
    return {family: make_tokenizer(family) for family in MARKERS}


@pytest.fixture(scope="session")
def raw_base(tmp_path_factory) -> Path:
    """A checkpoint as a user would bring it: not yet in canonical form."""
    return make_base(tmp_path_factory.mktemp("raw-base") / "tiny")


@pytest.fixture(scope="session")
def canonical_base(raw_base, tmp_path_factory) -> Path:
    """The same after the base stage."""
    return canonical(raw_base, tmp_path_factory.mktemp("base") / "tiny", "bfloat16")


def canonical(source: Path, folder: Path, dtype: str) -> Path:
    """A checkpoint as the base stage writes it."""
    import stages.base
    from tuneline.base.config import Base
    from tuneline.runtime.hashing import write_sums

    params = Base.model_validate(base_section(source) | {"dtype": dtype})
    stages.base.canonical(source, None, params, folder)
    write_sums(folder)
    return folder


@pytest.fixture(scope="session")
def llama_base(tmp_path_factory) -> Path:
    """A tiny Llama with ChatML turns, as `models/base` holds one."""
    root = tmp_path_factory.mktemp("llama-base")
    return canonical(make_base(root / "source", "chatml", "llama"), root / "base", "float32")


def base_section(folder: Path) -> dict:
    from tuneline.runtime.hashing import folder_sha256

    section = {"source": str(folder), "revision": None, "sha256": folder_sha256(folder), "dtype": "bfloat16"}
    return section | {"max_perplexity_zh": None, "max_perplexity_en": None}


def method(name: str = "lora", **sections: dict):
    """A Method of the shipped params with changes, section by section."""
    from tuneline.train.config.freeze import Freeze
    from tuneline.train.config.lora import Lora
    from tuneline.train.config.ptuning import PTuning
    from tuneline.train.config.tune import Tune
    from tuneline.train.methods import Method

    shipped = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values = {key: shipped[key] | sections.get(key, {}) for key in ("lora", "ptuning", "freeze")}
    return Method(
        Tune(method=name),
        Lora.model_validate(values["lora"]),
        PTuning.model_validate(values["ptuning"]),
        Freeze.model_validate(values["freeze"]),
    )


@pytest.fixture(scope="session")
def real_shape():
    """ChatGLM3-6B without its weights."""
    import torch
    from transformers import AutoModelForCausalLM

    from tuneline.models.chatglm.config import native_config, shape_of

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(native_config(shape_of(REAL), "bfloat16", 0, [2]))


CHATS = [
    [{"role": "user", "content": question}, {"role": "assistant", "content": "多休息，多喝水。"}]
    for question in ("感冒怎么办", "头痛怎么办", "失眠了", "我咳嗽", "发烧三天", "牙痛", "胃不舒服", "腰酸")
]


def make_workspace(folder: Path, base: Path, changes: dict) -> None:
    """A folder as `tokenize` leaves it, with params of a method."""
    from tuneline.formats.token_file import write_tokens
    from tuneline.models.chat_format import Prompter
    from tuneline.models.loading import load_tokenizer

    (folder / "models").mkdir(parents=True)
    (folder / "models/base").symlink_to(base)
    for name in ("dvc.yaml", "stages", "tuneline"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "data/processed").mkdir(parents=True)
    prompter = Prompter(load_tokenizer(base))
    write_tokens(folder / "data/processed/tokens.safetensors", [prompter.training_row(chat) for chat in CHATS])
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["lora"] |= {"r": 4, "alpha": 8, "dropout": 0.1}
    params["train"] |= {"max_steps": 8, "epochs": 9, "learning_rate": 0.03, "batch_size": 4, "micro_batch_size": 2}
    params["train"] |= {"save_steps": 4, "dtype": "float32"}
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
    delta = {"rouge_l": {"value": 2.5, "low": -1.0, "high": 6.0, "p": 0.25, "wins": 1, "ties": 0, "losses": 1}}
    change = {"nll_per_token": {"base": {"value": 0.25}, "tuned": {"value": 0.5}}}
    trained = {"first_loss": 3.5, "last_loss": 2.5, "learnt_tokens": 40, "rows_seen": 8, "steps": 4, "tokens": 80}
    contents = {
        "convert": {"sources": {"s": counted}, "total": counted},
        "eval": {"items": 2, "base": side, "tuned": side, "delta": delta, "general": change},
        "train": trained | {"trainable_parameters": 10, "total_parameters": 100},
    }
    for name, content in contents.items():
        (folder / f"metrics/{name}.json").write_text(json.dumps(content))


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


@pytest.fixture(scope="session")
def made(tmp_path_factory, canonical_base) -> Path:
    """A project's folder with base, adapter and merged model; read only, since all tests share it."""
    import stages.export

    folder = tmp_path_factory.mktemp("made") / "project"
    make_trained(folder, canonical_base)
    shutil.copy(ROOT / "params.yaml", folder)
    here = Path.cwd()
    os.chdir(folder)
    try:
        stages.export.main()
    finally:
        os.chdir(here)
    return folder


@pytest.fixture
def params() -> dict:
    """The shipped params.yaml as values."""
    return yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def workspace(tmp_path, monkeypatch, params):
    """An empty project folder to work in; call it with changes to params, section by section."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNELINE_SCRATCH", str(tmp_path / "scratch"))
    (tmp_path / "data/raw").mkdir(parents=True)

    def write(**changes: dict) -> Path:
        for section, values in changes.items():
            params[section] |= values
        Path("params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True), encoding="utf-8")
        return tmp_path

    write()
    return write


@pytest.fixture
def project(tmp_path, raw_base, params, monkeypatch):
    """A copy of this project under git and DVC, on the tiny base and the fixtures: no network, no weights to load."""
    folder = tmp_path / "project"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.splitlines():
        source = ROOT / name
        if source.is_file() and not name.startswith("metrics/") and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name)
    # No analytics, no shared state, and a scratch of its own.
    monkeypatch.setenv("TUNELINE_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    shutil.copy(FIXTURES / "consultation.jsonl", folder / "data/raw/consultation.jsonl")
    params["fetch"]["packages"] = []
    params["base"] |= base_section(raw_base)
    params["data"] |= {"sources": [{"path": "consultation.jsonl", "system": ""}, {"path": "medical.csv"}], "heldout": 6}
    params["train"] |= {"max_steps": 6, "learning_rate": 0.01, "batch_size": 4, "micro_batch_size": 2, "save_steps": 2}
    params["evaluate"] |= {"max_new_tokens": 8, "batch_size": 4}
    params["lora"] |= {"r": 4, "dropout": 0.0}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True), encoding="utf-8")
    git_init(folder)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Start")
    return folder


def git_init(folder: Path) -> None:
    git(folder, "init", "-q", "-b", "main")
    git(folder, "config", "user.email", "somebody@example.org")
    git(folder, "config", "user.name", "Somebody")


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def python(folder: Path, *arguments: str, **options) -> subprocess.CompletedProcess:
    """Run this Python in a folder; its bin directory is first on PATH, so `python` in dvc.yaml is the same."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "PYTHONPATH": ""} | options.pop("env", {})
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False, env=env, **options
    )


def dvc(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    result = python(folder, "-m", "dvc", *arguments)
    assert result.returncode == 0, f"dvc {' '.join(arguments)}\n{result.stdout[-3000:]}\n{result.stderr[-6000:]}"
    return result


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of real public samples."""
    folder = os.environ.get("TUNELINE_SAMPLES")
    if not folder or not (Path(folder) / "data/toyhom_medical").is_dir():
        pytest.skip("TUNELINE_SAMPLES is unset: it names a folder with real public samples")
    return Path(folder)
