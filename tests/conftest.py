"""Fixtures: tokenizers, bases, an exported project, folders to work in, and the real samples."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

# One thread for each of the workers that run side by side: models of two layers gain nothing from more.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A machine with a GPU must behave like one without: what is tested here is exact.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["HF_HUB_OFFLINE"] = "1"

from tests.helpers.commands import git, git_init
from tests.helpers.first_run import Ran, copied, made_once, own_caches, run_experiment, run_first
from tests.helpers.paths import FIXTURES, ROOT
from tests.helpers.tiny_models import MARKERS, base_section, canonical, make_base, make_tokenizer
from tests.helpers.workspace import make_trained


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-tables", action="store_true", help="write the tables of docs/ that tests compare")


def pytest_collection_modifyitems(items: list) -> None:
    """Files with stories first: the longest should not be what everything else waits for at the end."""
    long = {item.path for item in items if item.get_closest_marker("story")}
    items.sort(key=lambda item: (item.path not in long, str(item.path)))


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


@pytest.fixture(scope="session")
def llama_base(tmp_path_factory) -> Path:
    """A tiny Llama with ChatML turns, as `models/base` holds one."""
    root = tmp_path_factory.mktemp("llama-base")
    return canonical(make_base(root / "source", "chatml", "llama"), root / "base", "float32")


@pytest.fixture(scope="session")
def cuda_libraries(tmp_path_factory) -> list[Path]:
    """The driver whose devices compute nothing, for torch's CUDA build."""
    from tests.no_gpu.build import build
    from tests.no_gpu.environment import packages

    return build(packages(), tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="session")
def real_shape():
    """ChatGLM3-6B without its weights."""
    import torch
    from transformers import AutoModelForCausalLM

    from tests.helpers.chatglm3 import REAL
    from tuneline.models.chatglm.config import native_config, shape_of

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(native_config(shape_of(REAL), "bfloat16", 0, [2]))


@pytest.fixture(scope="session")
def pieces(tmp_path_factory):
    """Three SentencePiece models, each with the tokenizer built from it."""
    from sentencepiece import SentencePieceProcessor

    from tests.helpers.chatglm3 import RULES, train_pieces
    from tuneline.models.chat_format import load_prompter
    from tuneline.models.chatglm.tokenizer import build

    made = {}
    for number, rule in enumerate(RULES):
        path = train_pieces(tmp_path_factory.mktemp(rule), rule, 400 + 20 * number)
        tokenizer = build(path)
        made[rule] = (path, SentencePieceProcessor(str(path)), tokenizer, load_prompter(tokenizer).plain)
    return made


@pytest.fixture(scope="session")
def golden(tmp_path_factory):
    """The reference's checkpoint, converted, and what the reference gave for it."""
    import numpy as np

    from tests.helpers.chatglm3 import converted

    folder = os.environ.get("TUNELINE_SAMPLES")
    if not folder or not (Path(folder) / "golden/chatglm3-tiny").is_dir():
        pytest.skip("TUNELINE_SAMPLES is unset: it names a folder with the reference's outputs")
    source = Path(folder) / "golden"
    expected = json.loads((source / "chatglm3-tiny-golden.json").read_text(encoding="utf-8"))
    logits = np.load(source / "chatglm3-tiny-logits.npz")
    return converted(source / "chatglm3-tiny", tmp_path_factory.mktemp("golden") / "native"), expected, logits


@pytest.fixture(scope="session")
def made(tmp_path_factory, canonical_base) -> Path:
    """A project's folder with base, adapter and merged model; read only, since all tests share it."""
    import stages.export
    from tests.helpers.stages import run_main

    folder = tmp_path_factory.mktemp("made") / "project"
    make_trained(folder, canonical_base)
    shutil.copy(ROOT / "params.yaml", folder)
    here = Path.cwd()
    os.chdir(folder)
    try:
        run_main(stages.export)
    finally:
        os.chdir(here)
    return folder


@pytest.fixture(scope="session")
def made_engine(made):
    """An engine whose models have been loaded."""
    from chat.engine import Engine
    from chat.models import Models

    here = Path.cwd()
    os.chdir(made)
    try:
        # In bfloat16 who else is in a batch changes the last bits, and so an answer of a tiny model.
        engine = Engine(Models(dtype="float32"))
        for name in engine.models.names:
            engine.models.get(name)
    finally:
        os.chdir(here)
    return engine


@pytest.fixture(scope="module")
def address(engine):
    """Of a server of the API around the module's engine."""
    from tests.helpers.serving import serving

    with serving(engine) as address:
        yield address


@pytest.fixture(scope="module")
def http(address):
    """Client of that server."""
    import httpx

    with httpx.Client(base_url=address, timeout=30) as http:
        yield http


@pytest.fixture(scope="module")
def client(address):
    import openai

    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def browser():
    from tests.helpers.browsing import CHROMIUM

    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


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
    for name, value in own_caches(tmp_path).items():
        monkeypatch.setenv(name, value)
    return make_project(tmp_path / "project", raw_base)


@pytest.fixture(scope="session")
def first_run(tmp_path_factory, raw_base) -> Ran:
    """Such a project after `tuneline repro`, with nothing of it committed."""
    root = shared_folder(tmp_path_factory) / "first-run"
    return made_once(root, lambda: run_first(root, raw_base, make_project))


@pytest.fixture(scope="session")
def experiment(tmp_path_factory, first_run) -> Ran:
    """The same, its results committed, after the experiment r2."""
    root = shared_folder(tmp_path_factory) / "experiment"
    return made_once(root, lambda: run_experiment(root, first_run))


@pytest.fixture
def rerun(first_run, tmp_path, monkeypatch) -> Path:
    """A copy of the project after its first run."""
    for name, value in own_caches(tmp_path).items():
        monkeypatch.setenv(name, value)
    return copied(first_run, tmp_path / "project")


def shared_folder(tmp_path_factory) -> Path:
    """Of all workers of a test run."""
    root = tmp_path_factory.getbasetemp()
    return root.parent if "PYTEST_XDIST_WORKER" in os.environ else root


def make_project(folder: Path, raw_base: Path) -> Path:
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.splitlines():
        source = ROOT / name
        made = name == "dvc.lock" or (name.startswith("metrics/") and source.name != ".gitignore")
        if source.is_file() and not made:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name)
    shutil.copy(FIXTURES / "consultation.jsonl", folder / "data/raw/consultation.jsonl")
    params["fetch"]["packages"] = []
    params["base"] |= base_section(raw_base)
    params["data"] |= {"sources": [{"path": "consultation.jsonl", "system": ""}, {"path": "medical.csv"}], "heldout": 6}
    params["train"] |= {"max_steps": 6, "learning_rate": 0.01, "batch_size": 4, "micro_batch_size": 2, "save_steps": 2}
    params["train"] |= {"logging_steps": 1, "warmup_ratio": 0.1}
    params["evaluate"] |= {"max_new_tokens": 8, "batch_size": 4}
    params["lora"] |= {"r": 4, "dropout": 0.0}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True), encoding="utf-8")
    git_init(folder)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Start")
    return folder


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of real public samples."""
    folder = os.environ.get("TUNELINE_SAMPLES")
    if not folder or not (Path(folder) / "data/toyhom_medical").is_dir():
        pytest.skip("TUNELINE_SAMPLES is unset: it names a folder with real public samples")
    return Path(folder)
