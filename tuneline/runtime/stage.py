"""A run of a stage: parameters, code and inputs are taken once at its start, and must be the same at its end.

DVC records params and dependencies as they are when a stage ends. Without the check, an edit made while a stage runs would be
recorded as what made the result.
"""

import argparse
import json
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tuneline.runtime.atomic import atomic_output, remove, write_json
from tuneline.runtime.code import all_code, changed_files, read_list, stage_files
from tuneline.runtime.errors import MEMORY_REMEDIES, exit_with_sentence
from tuneline.runtime.locks import exclusive_lock, temporary_folder
from tuneline.runtime.machine import choose_accelerator, peak_memory
from tuneline.runtime.params import S, Section, differences, parse, read_params
from tuneline.runtime.process import dvc_pid, exit_with_parent
from tuneline.runtime.progress import clock
from tuneline.runtime.slots import stage_devices
from tuneline.runtime.stopping import end_on_signals, end_process, signals_held
from tuneline.runtime.storage.failures import writing
from tuneline.runtime.storage.inputs import Inputs
from tuneline.runtime.storage.stage_map import description_of, stage_names
from tuneline.runtime.storage.written import record_written
from tuneline.runtime.terminal import log
from tuneline.runtime.terminal.lines import say

METRICS = Path("metrics")
SPEED = METRICS / "speed"
READINGS = 5
"""Of an input that grows, before a stage ends."""
T = TypeVar("T")


class Stage:
    """Parameters, code and inputs that a run of a stage began with, and the way its outputs go into place."""

    def __init__(self, name: str, code: Mapping[str, str] | None = None) -> None:
        """`code` is {file: hash}; without it code/<name>.txt is read. Raises ValueError when that is out of date or empty."""
        self.name = name
        self.code = dict(read_list(name) if code is None else code)
        if code is None and f"stages/{name}.py" not in self.code:
            raise ValueError(
                f"code/{name}.txt does not list stages/{name}.py, so it is empty or not whole: run `dvc repro`"
            )
        self.run_info: dict[str, Any] = {}
        self._document = read_params()
        self._sections: dict[type[Section], Section] = {}
        if changed := changed_files(self.code):
            raise ValueError(f"code/{name}.txt is out of date, {changed[0]} has changed since: run `dvc repro`")
        if code is None and (missing := missing_files(name, self.code)):
            raise ValueError(f"code/{name}.txt does not list {missing[0]}, which the stage runs: run `dvc repro`")
        self.inputs = Inputs(name)

    def load(self, section: type[S]) -> S:
        """A section of params.yaml as it was when the stage began. Raises ValueError for all that is wrong with it."""
        loaded = parse(section, self._document)
        self._sections[section] = loaded
        return loaded

    @contextmanager
    def outputs(self, *targets: Path, live: Sequence[Path] = ()) -> Iterator[tuple[Path, ...]]:
        """Yield a path to write for each target; all go into place at the end, or none.

        `live` are files that were written in place as the stage went on. Raises ValueError when parameters, code or inputs
        have changed since the stage began; these files are removed then.
        """
        with writing(targets[0].parent), ExitStack() as stack:
            paths = tuple(stack.enter_context(atomic_output(target)) for target in targets)
            yield paths
            missing = [str(target) for target, path in zip(targets, paths, strict=True) if not path.exists()]
            assert not missing, f"{self.name} did not write {missing}"
            try:
                self.check_unchanged()
            except ValueError:
                for path in live:
                    remove(path)
                raise
            made = dict(zip(targets, paths, strict=True)) | {path: path for path in live}
            # All or none, also when a signal comes between two of them.
            with signals_held():
                record_written(self.name, made)
                stack.pop_all().close()

    def read_settled(self, growing: Path, read: Callable[[], T]) -> T:
        """What `read` gives of the inputs; read again while an input that grows at any time, as votes do, has grown meanwhile.

        DVC records an input as it is at the end, so what came last must be in.
        """
        for _ in range(READINGS):
            self.inputs.renew(growing)
            found = read()
            # What does not grow by itself stays changed, which is said at the end.
            if not any(self.inputs.changes()) or any(self.inputs.changes(apart=growing)):
                break
        return found

    def check_unchanged(self) -> None:
        """Raises ValueError naming each key or file that differs from the start, a key with its old and new value."""
        now = read_params()
        found = [
            f"{key} was {old!r} and is {new!r}"
            for section, loaded in self._sections.items()
            for key, old, new in differences(loaded, parse(section, now))
        ]
        found += [f"{name} has another content" for name in changed_files(self.code)]
        found += self.inputs.changes()
        if found:
            raise ValueError(
                f"changed while the stage ran: {'; '.join(found)}; nothing was written, run `dvc repro` again"
            )

    def record_run_info(self, **info: Any) -> None:
        """Add facts about this run, not about its result, to metrics/speed/<stage>.json."""
        self.run_info.update(info)


def missing_files(name: str, listed: Container[str]) -> list[str]:
    """Code that a stage runs and its list does not have: a line was taken out of it."""
    files = [path.as_posix() for path in stage_files(Path(), Path("stages") / f"{name}.py")]
    return [file for file in files if file not in listed]


def run_stage(main: Callable[[Stage], None], description: str | None) -> None:
    """Run the main() of a stage module and exit: 0 on success, 1 with one sentence on stderr.

    Writes wall time and peak memory to metrics/speed/<stage>.json.
    """
    module = sys.modules["__main__"].__spec__
    name = module.name.rpartition(".")[2] if module else Path(sys.argv[0]).stem
    argparse.ArgumentParser(
        prog=f"python -m stages.{name}",
        description=description,
        epilog="Takes no arguments: everything is read from params.yaml. `dvc repro` runs it when needed.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    end_on_signals(f"stages.{name}")
    choose_accelerator()
    if (dvc := dvc_pid()) is not None:
        # Under a shell a stage may outlive its terminal on purpose; under dvc it must not outlive dvc.
        exit_with_parent(dvc, lambda: end_process(signal.SIGTERM, "stopped, since dvc has ended"))
    quiet_deprecations()
    # First, so that a stage that another one keeps from running says that in its log, too, and none of an earlier run is left.
    log.begin(name)
    with exit_with_sentence(name):
        if name in stage_names():
            say(announcement(name), style="bold")
    with (
        exit_with_sentence(name),
        temporary_folder(),
        exclusive_lock(METRICS / f".{name}.lock", f"the stage {name} is run in this folder") as killed,
        stage_devices(name),
    ):
        if killed:
            say(last_run_was_killed(name, killed))
        start = time.monotonic()
        # The stage that writes the lists is checked against all of them.
        stage = Stage(name, all_code() if name == "code" else None)
        main(stage)
        seconds = time.monotonic() - start
        info = {"wall_seconds": round(seconds, 1), "peak_memory_gb": peak_memory(), **stage.run_info}
        write_json(SPEED / f"{name}.json", info)
        log.end()
    took = clock(seconds) if seconds >= 60 else f"{seconds:.1f} s"
    say(f"{name}: took {took}, peak memory {peak_memory():.2f} GB", style="dim")


def last_run_was_killed(name: str, run: str) -> str:
    """The sentence about a run that could say nothing itself, such as one that the kernel killed for want of memory."""
    remedy = f" If memory was short: {MEMORY_REMEDIES[name]}" if name in MEMORY_REMEDIES else ""
    return f"{name}: the last run ({run}) was killed before its end.{remedy}"


def numbered(name: str) -> str:
    """`stage 3 of 9: base`."""
    names = stage_names()
    return f"stage {names.index(name) + 1} of {len(names)}: {name}" if name in names else f"stage {name}"


def announcement(name: str) -> str:
    """The line at a stage's start: its number, what it does, and how long it and all from it on took when they last ran."""
    said = f"{numbered(name)}, {does}" if (does := purpose(name)) else numbered(name)
    names = stage_names()
    after = names[names.index(name) :] if name in names else [name]
    paths = [SPEED / f"{stage}.json" for stage in after]
    try:
        seconds = [float(json.loads(path.read_text())["wall_seconds"]) for path in paths]
    except (OSError, ValueError, KeyError, TypeError):
        # Not all have run yet; or a file was torn, which is no reason to stop.
        return said
    end = f", {clock(sum(seconds))} to the end if all stages run" if len(after) > 1 else ""
    return f"{said} ({clock(seconds[0])} last time{end})"


def purpose(name: str) -> str:
    """What a stage does: the beginning of its `desc` in dvc.yaml, up to the first comma or the like."""
    first = re.split(r"[,;:.](?:\s|$)| \(", description_of(name), maxsplit=1)[0].strip()
    return first[:1].lower() + first[1:]


def quiet_deprecations() -> None:
    """Silence libraries about one another's deprecations, which no user can mend."""
    warnings.filterwarnings("ignore", category=FutureWarning)
