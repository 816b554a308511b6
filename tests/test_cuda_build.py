"""torch's CUDA build of the lock: its cards, its driver, its choice of attention kernels, and the tables of docs/gpus.md."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from tests.no_gpu import environment, tables
from tuneline.cli import card_table
from tuneline.runtime.gpu import has_kernels

without_cuda = pytest.mark.skipif(environment.missing() is not None, reason=f"CUDA: {environment.missing()}")
ASK = """
import json, sys
from tuneline.models.loading import pick_device
try:
    print(pick_device())
except ValueError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def found(cuda_libraries, llama_base, tmp_path_factory) -> dict:
    """What torch_facts.json should hold."""
    folder = tmp_path_factory.mktemp("facts")
    result = environment.run(cuda_libraries, "tests.no_gpu.torch_facts", str(llama_base), folder)
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads((folder / "facts.json").read_text())


@pytest.mark.cuda
@pytest.mark.story
@without_cuda
def test_the_build_and_its_choices_are_those_that_are_written_down(found, request):
    """`pytest tests/test_cuda_build.py --write-tables` writes them."""
    if request.config.getoption("--write-tables"):
        tables.FACTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    assert tables.facts() == found


def test_the_written_build_is_that_of_the_lock():
    lock = (ROOT / "requirements-unhashed.lock").read_text(encoding="utf-8")
    assert re.findall(r"(?m)^torch==(.+)$", lock) == [tables.facts()["build"]["torch"]]


def test_attention_never_falls_to_the_math_path_nor_to_cudnn():
    for capability, card in tables.facts()["cards"].items():
        for call, kernels in card["attention"].items():
            for shape, kernel in kernels.items():
                assert kernel in ("flash", "efficient"), f"{capability}: {call}, {shape}"


def test_only_cards_from_8_0_on_compute_in_bfloat16():
    for capability, card in tables.facts()["cards"].items():
        assert card["bfloat16"] == (float(capability) >= 8)


def test_the_build_has_kernels_for_the_cards_that_the_docs_say_it_has():
    """docs/float16.md's, from torch's own list of its builds."""
    architectures = tables.facts()["build"]["architectures"]
    for capability in card_table.CARDS:
        assert has_kernels(capability, architectures) == (card_table.build(capability) == "default"), capability


@pytest.mark.parametrize("document", tables.WORDS)
def test_the_table_of_the_docs_is_current(document, request):
    """`pytest tests/test_cuda_build.py --write-tables` writes it."""
    now = tables.attention(document)
    if request.config.getoption("--write-tables"):
        tables.write(document, now)
    assert tables.table_at((ROOT / "docs" / document).read_text(encoding="utf-8"), now[0]) == now


@pytest.mark.parametrize("document", tables.WORDS)
def test_the_docs_name_cuda_and_the_driver_that_it_needs(document):
    cuda = tables.facts()["build"]["cuda"]
    driver = tables.DRIVERS[cuda.partition(".")[0]]
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    assert re.findall(r"CUDA (\d+\.\d)", text)[0] == cuda
    assert re.findall(r"≥ (\d{3})", text) == [str(driver)]


def ask(libraries: list[Path], **settings: str) -> str:
    """Which device a stage would take."""
    command = [str(environment.VENV / "bin/python"), "-c", ASK]
    env = environment.environment(libraries, **settings)
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr[-4000:]
    return result.stdout.strip()


@pytest.mark.cuda
@pytest.mark.story
@without_cuda
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, r"cuda:0"),
        ({"NO_GPU_DRIVER": "12020"}, r"torch \S+ cannot use this machine's GPU: The NVIDIA driver .* is too old .*"),
        ({"NO_GPU_CAPABILITY": "7.0"}, r"torch \S+ has no kernels for GPU 0, .* capability 7\.0, only for sm_75, .*"),
        ({"NO_GPU_COUNT": "4", "CUDA_VISIBLE_DEVICES": ""}, r"cpu"),
        ({"NO_GPU_COUNT": "4", "CUDA_VISIBLE_DEVICES": "3", "LOCAL_RANK": "0"}, r"cuda:0"),
    ],
    ids=["a card", "an old driver", "an old card", "hidden", "one of four"],
)  # fmt: skip
def test_torch_itself_says_which_cards_can_be_used(cuda_libraries, settings, said):
    assert re.fullmatch(said, ask(cuda_libraries, **settings))
