"""Benchmark harness: child processes and their JSON, interleaved rounds, peak memory, Markdown tables.

It imports the standard library alone, since the environments of other trainers run it, too.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
ROOT = Path(__file__).parent.parent


class ChildError(SystemExit):
    """A child process that failed; where nobody catches it, it ends the benchmark with the child's last words."""


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """Parser for the running module, with its docstring as help."""
    raw = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(f"python -m {_main_module()}", description=description, formatter_class=raw)


def require_file(path: Path, remedy: str) -> None:
    if not path.exists():
        sys.exit(f"{_main_module()}: {path} is missing: {remedy}")


def run_python(*arguments: str, cwd: Path = ROOT, python: str = sys.executable, stdin: str = "", **env: str) -> str:
    """Standard output of a Python process, with this project's packages at hand."""
    done = subprocess.run(
        [python, *arguments], cwd=cwd, env=environment(**env), input=stdin, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ChildError(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr[-3000:]}")
    return done.stdout


def environment(**env: str) -> dict[str, str]:
    """Of a Python process with this project's packages at hand."""
    return os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"} | env


def call_in_child(function: Callable[..., Any] | str, *arguments: Any, **options: Any) -> Any:
    """JSON result of a module's function, or of "module:function", called in a process of its own.

    The arguments travel as JSON; `options` are those of `run_python`.
    """
    if not isinstance(function, str):
        module = _main_module() if function.__module__ == "__main__" else function.__module__
        function = f"{module}:{function.__name__}"
    output = run_python("-m", "benchmarks.harness", function, stdin=json.dumps(arguments), **options)
    return json.loads(output.splitlines()[-1])


def interleaved(names: Iterable[str], rounds: int, measure: Callable[[str], T]) -> dict[str, list[T]]:
    """Results of each contender, which take turns, so that a change of the machine's load meets them all."""
    results: dict[str, list[T]] = {name: [] for name in names}
    for number in range(rounds):
        for name, runs in results.items():
            print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
            runs.append(measure(name))
    return results


def peak_bytes() -> int:
    """Peak resident memory of this process.

    That of getrusage is at least its parent's (getrusage(2)); some sandboxes leave VmHWM out.
    """
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    own = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), None)
    return 1024 * int(own or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


@contextmanager
def anonymous_peak() -> Iterator[Callable[[], int]]:
    """Peak anonymous memory of this process in bytes, sampled: resident pages that are no mapped file's."""
    highest, done = 0, threading.Event()

    def sample() -> None:
        nonlocal highest
        while not done.wait(0.02):
            _, resident, shared, *_ = Path("/proc/self/statm").read_text(encoding="utf-8").split()
            highest = max(highest, (int(resident) - int(shared)) * resource.getpagesize())

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield lambda: highest
    finally:
        done.set()
        thread.join()


def table(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    """Lines of a Markdown table, each as soon as its row is there."""
    yield f"| {' | '.join(columns)} |"
    yield f"{'|---' * len(columns)}|"
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"


def show(lines: Iterable[str]) -> str:
    """Print the lines as they come; returns them all."""
    shown = []
    for line in lines:
        print(line, flush=True)
        shown.append(line)
    return "\n".join(shown)


def machine_line(*packages: str) -> str:
    """GPU or else processor, cores, and versions of torch and other packages."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor()
    return ", ".join([device, f"{os.cpu_count()} cores", *(f"{name} {version(name)}" for name in ("torch", *packages))])


def processor() -> str:
    """Name of the processor, and its instructions for bfloat16 products."""
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    name = next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")), "")
    flags = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in text]
    return " ".join(filter(None, [name or platform.machine(), f"({', '.join(flags)})" if flags else ""]))


def _main_module() -> str:
    spec = sys.modules["__main__"].__spec__
    return spec.name.removesuffix(".__main__") if spec else "benchmarks"


def _answer(target: str) -> None:
    """Call MODULE:FUNCTION with the arguments on standard input; its result alone goes to standard output."""
    module, _, name = target.partition(":")
    with redirect_stdout(sys.stderr):
        result = getattr(import_module(module), name)(*json.load(sys.stdin))
    print(json.dumps(result))


if __name__ == "__main__":
    _answer(sys.argv[1])
