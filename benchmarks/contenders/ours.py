"""Tuneline's training process on the same token ids, in the same order."""

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any


def main(job: dict[str, Any]) -> None:
    folder = Path(job["folder"])
    os.chdir(folder)
    from transformers.utils import logging

    import tuneline.train.run as training
    from benchmarks.contenders.clock import Clock

    logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    clock = Clock()
    watch = training.live_curves
    training.live_curves = lambda params: [*watch(params), clock]
    Path("scratch").mkdir()
    training.train(Path("scratch"), None)
    clock.write(Path(job["result"]))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
