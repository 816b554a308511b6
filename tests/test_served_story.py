"""Real servers of the tuned model in float32, our own and that of transformers: they say what it said."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.helpers.ports import free_port
from tests.helpers.served_project import at, make_project, served
from tests.helpers.serving import serving


@pytest.fixture(scope="module")
def served_project(tmp_path_factory) -> Path:
    return make_project(tmp_path_factory.mktemp("served"))


@pytest.mark.story
def test_our_own_server_says_the_same_of_the_adapter_and_not_of_the_base(served_project, monkeypatch):
    import torch

    import chat.models
    from chat.engine import Engine

    monkeypatch.setattr(chat.models, "pick_dtype", lambda *_, **__: torch.float32)
    with at(served_project):
        engine = Engine(chat.models.Models())
        with serving(engine) as url:
            status, values = served(served_project, f"{url}/v1", "--model", "adapter")
            assert (status, values["outcome"], values["answers"]["equal"]) == (0, "equal", 12)
            assert values["server"]["server"] == "tuneline"
            status, values = served(served_project, f"{url}/v1", "--model", "base")
            assert (status, values["findings"][0]["faults"]) == (1, ["adapter_not_loaded"])


@pytest.mark.story
@pytest.mark.matrix
def test_the_server_of_transformers_says_the_same_of_the_merged_model(served_project, tmp_path):
    import torch

    from tuneline.models.loading import load_adapter, load_model, load_tokenizer

    base, merged, port = served_project / "models/base", tmp_path / "merged", free_port()
    model = load_adapter(load_model(base, torch.float32), served_project / "models/adapter").merge_and_unload()
    model.save_pretrained(merged)
    load_tokenizer(base).save_pretrained(merged)
    words = ["serve", str(merged), "--port", str(port), "--dtype", "float32", "--device", "cpu"]
    program = "import sys; from transformers.cli.transformers import main; main()"
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *words], stdout=file, stderr=file,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip
    try:
        url = f"http://localhost:{port}"
        wait_for(f"{url}/health", process, log)
        status, values = served(served_project, url, "--model", str(merged))
        text = json.dumps(values, ensure_ascii=False)
        assert (status, values["outcome"], values["answers"]["equal"]) == (0, "equal", 12), text
        assert values["server"]["server"] == "transformers"
    finally:
        process.terminate()
        process.wait(20)


def wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text(encoding="utf-8")[-3000:]
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.3)
    raise AssertionError(f"{url} does not answer: {log.read_text(encoding='utf-8')[-3000:]}")
