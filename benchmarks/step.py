"""Forward and backward pass of one micro-batch, this tree against another one: CPU seconds, gradients, peak memory.

    git archive HEAD | tar -x -C /tmp/before          first: the tree to compare with
    python -m benchmarks.step --against /tmp/before

Each tree's code runs in a process of its own, and they take turns, so that the machine's load meets both alike; CPU time (user
and system) and not the clock's, since it is asked on busy machines. LoRA r 16 on all linear layers, bfloat16 where the machine
computes in it.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

BATCHES = {
    "short rows": [(30, 8), (38, 10), (41, 12), (44, 3), (44, 14), (46, 16), (50, 20), (67, 22)],
    "long rows": [(327, 250)] * 4,
}
"""(tokens, supervised tokens at the row's end) of each row: a micro-batch of the default run, and one of LawBench's."""


def main() -> None:
    from benchmarks.harness import ROOT, argument_parser, require_file, show, table

    parser = argument_parser(__doc__)
    parser.add_argument("--base", type=Path, default=ROOT / "models/base")
    parser.add_argument("--against", type=Path, help="another tree of this project")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", nargs="*", choices=list(BATCHES), default=list(BATCHES))
    options = parser.parse_args()
    require_file(options.base / "config.json", "run `dvc repro base`")
    trees = {"this": ROOT} | ({"other": options.against.resolve()} if options.against else {})
    workers = {name: Worker(tree, options.base.resolve()) for name, tree in trees.items()}
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for _ in range(options.rounds + 1):
        for batch in options.batches:
            for name, worker in workers.items():
                found.setdefault((batch, name), []).append(worker.ask(batch))
    rows = []
    for (batch, name), (_, *measured) in found.items():
        gradients = [one.ask(f"gradients {batch}") for one in workers.values()]
        rows.append((batch, name, f"{median(one['seconds'] for one in measured):.3f}", f"{measured[-1]['loss']:.4f}",
                     f"{distance(*gradients):.2e}" if len(gradients) > 1 else ""))  # fmt: skip
    show(table(("", "tree", "CPU seconds", "loss", "distance of gradients"), rows))
    show(table(("tree", "peak GB"), [(name, f"{one.ask('memory'):.2f}") for name, one in workers.items()]))


def distance(one: str, other: str) -> float:
    """Of two files' gradients, in proportion to the first."""
    import numpy as np

    first, second = np.load(one), np.load(other)
    return float(np.linalg.norm(first - second) / np.linalg.norm(first))


class Worker:
    """A process that runs a tree's code."""

    def __init__(self, tree: Path, base: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(base)], cwd=tree, env=os.environ | {"PYTHONPATH": str(tree)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ask(self, request: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(request, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"step: the process ended with {self.process.wait()}")
        return json.loads(answer)


def serve(base: Path) -> None:
    """Answer requests of standard input: a batch's name, "gradients" of it, or "memory"."""
    import resource
    import tempfile

    import numpy as np

    model, trained = trained_model(base)
    folder = Path(tempfile.mkdtemp(prefix="tuneline-step-"))
    for line in sys.stdin:
        request = line.rstrip("\n")
        if request == "memory":
            answer: Any = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        elif request.startswith("gradients "):
            step(model, trained, request.removeprefix("gradients "))
            answer = str(folder / f"{len(list(folder.iterdir()))}.npy")
            np.save(answer, np.concatenate([one.grad.flatten().numpy() for one in trained]))
        else:
            start = time.process_time()
            loss = step(model, trained, request)
            answer = {"seconds": time.process_time() - start, "loss": loss}
        print(json.dumps(answer), flush=True)


def trained_model(base: Path) -> tuple[Any, list[Any]]:
    """(the base as it trains, its parameters that do), LoRA's B away from zero."""
    from tuneline.models import cpu_tuning

    cpu_tuning.limit_onednn_caches()
    cpu_tuning.release_large_blocks()
    import torch

    from tuneline.models.loading import load_model, pick_device, pick_dtype
    from tuneline.runtime.params import load
    from tuneline.train.collate import collator
    from tuneline.train.run import prepare_model
    from tuneline.train.sections import load_method
    from tuneline.train.trainer.autocast import autocast_forward

    device = pick_device()
    dtype = pick_dtype("auto", device)
    torch.manual_seed(17)
    model = load_model(base, dtype, device)
    model.collate = collator(model, packed=True)
    tuned = prepare_model(model, load_method(load), False)
    autocast_forward(tuned, device, dtype)
    trained = [one for one in tuned.parameters() if one.requires_grad]
    with torch.no_grad():
        for one in trained:
            if not one.any():
                one.normal_(std=0.01)
    return tuned.train(), trained


def step(model: Any, trained: list[Any], name: str) -> float:
    """The mean loss of a batch of random tokens, their gradients in `trained`."""
    import torch

    generator, rows = torch.Generator().manual_seed(5), []
    for tokens, supervised in BATCHES[name]:
        ids = torch.randint(1000, 50_000, (tokens,), generator=generator)
        labels = ids.clone()
        labels[: tokens - supervised] = -100
        rows.append((ids, labels, 1))
    for one in trained:
        one.grad = None
    batch = model.get_base_model().collate(rows)
    batch.pop("step_tokens")
    loss = model(**batch)["loss"] / sum(supervised for _, supervised in BATCHES[name])
    loss.backward()
    return float(loss.detach())


if __name__ == "__main__":
    if len(sys.argv) == 2 and Path(sys.argv[1], "config.json").exists():
        serve(Path(sys.argv[1]))
    else:
        main()
