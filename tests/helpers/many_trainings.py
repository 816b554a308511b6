"""Many trainings in one process, since starting one is what takes time."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.helpers.commands import one_rank

MANY = """
import json, os, sys, traceback, warnings
from pathlib import Path
from transformers.utils import logging
import tuneline.train.run as training
from tests.helpers.stages import PATHS, load_config
from tuneline.runtime.params import load
logging.set_verbosity_error()
warnings.filterwarnings("ignore")
for folder, resume in json.loads(sys.argv[1]):
    os.chdir(folder)
    Path("scratch").mkdir(exist_ok=True)
    try:
        training.train(load_config(load), PATHS, Path(resume) if resume else None)
    except Exception:
        Path("failed.txt").write_text(traceback.format_exc())
        continue
    Path("models/adapter/lineage.json").write_text(json.dumps({"params": load_config(load).to_params()}))
"""


def train_all(jobs: list[tuple[str, str | None]], may_fail: bool = False) -> None:
    """Train in each (folder, checkpoint to go on from); one that fails leaves failed.txt in its folder."""
    env = os.environ | one_rank() | {"DS_ACCELERATOR": "cpu"}
    command = [sys.executable, "-c", MANY, json.dumps(jobs)]
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
    failed = [path for folder, _ in jobs if (path := Path(folder) / "failed.txt").exists()]
    assert may_fail or not failed, failed[0].read_text()
