"""Evaluation by a server against evaluation in this process: the same answers, and how fast.

    python -m benchmarks.endpoint --folder <a finished project> --items 50

Starts our own API on the project's models in a process of its own, and lets the tuned model answer the held-out items by both
backends of `evaluate`, in the same dtype.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT

SERVER = """
import socket, sys
from chat.api import make_app
from chat.engine import Engine
from chat.models import Models
from chat.serve import make_server

models = Models(dtype=sys.argv[1])
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
make_server(make_app(Engine(models), None, ("127.0.0.1",))).run(sockets=[listening])
"""
"""Our API; it says its port."""


def main() -> None:
    options = arguments()
    os.chdir(options.folder)
    from tuneline.evaluate.config import Evaluate
    from tuneline.runtime.params import load

    params = load(Evaluate).model_copy(
        update={"dtype": options.dtype, "concurrency": options.concurrency, "constrain": None}
    )
    own = answered(params, options.items)
    command = [sys.executable, "-c", SERVER, options.dtype]
    with (
        tempfile.TemporaryDirectory() as scratch,
        subprocess.Popen(command, stdout=-1, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}) as server,
    ):
        os.environ["TUNELINE_SCRATCH"] = scratch
        try:
            assert server.stdout is not None, "it is a pipe"
            url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
            names = {"backend": "endpoint", "url": url, "model": "adapter", "base_model": "base"}
            there = answered(params.model_copy(update=names), options.items)
        finally:
            server.terminate()
    print("\n".join(compared(own, there)))


def answered(params: Any, items: int) -> Any:
    from tuneline.evaluate.answering import Questions, answer
    from tuneline.formats.records import read_heldout

    records = read_heldout(Path("data/processed/heldout.jsonl"))[:items]
    return answer(Questions(Path("models/base"), Path("models/adapter"), records, {}, params, params.backend))


def compared(own: Any, there: Any) -> list[str]:
    """What both backends said, and tokens a second of both."""
    pairs = list(zip(own.answers, there.answers, strict=True))
    equal = sum(one["prediction"] == other["prediction"] for one, other in pairs)
    ends = sum(one["stopped_at_eos"] == other["stopped_at_eos"] for one, other in pairs)
    known = [(one["nll"], other["nll"]) for one, other in pairs if other["nll"] is not None]
    nll = f"{max(abs(one - other) for one, other in known):.1g}" if known else "not told by the server"
    speeds = [side.run_info["new_tokens_per_second"] for side in (own, there)]
    return [
        f"answers equal: {equal} of {len(pairs)}; ends equal: {ends}; largest difference of NLL: {nll}",
        f"tokens/s: transformers {speeds[0]}, endpoint {speeds[1]}, ratio {speeds[1] / speeds[0]:.2f}",
    ]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT, help="a project whose pipeline has run")
    parser.add_argument("--items", type=int, default=50)
    parser.add_argument("--concurrency", type=int, default=25)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    return parser.parse_args()


if __name__ == "__main__":
    main()
