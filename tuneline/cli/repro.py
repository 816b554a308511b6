"""`tuneline repro`: `dvc repro`, saying only what a reader needs, and the summary at its end."""

import atexit
import contextlib
import logging
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import typer

from tuneline.cli import failure, summary
from tuneline.runtime.errors import INTERRUPTED
from tuneline.runtime.stage import numbered
from tuneline.runtime.stopping import SIGNALS, STATUS
from tuneline.runtime.storage.stage_map import MAP
from tuneline.runtime.terminal.lines import is_terminal, say
from tuneline.runtime.terminal.log import states

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
DELAY = 2.0
"""Seconds before a bar of DVC's appears."""
LEFT_OUT = re.compile(
    r"|> python -m stages\.\w+|(Updating|Generating) lock file 'dvc\.lock'"
    r"|'(data/raw/lawbench|data/processed/(rejects|removed)\.jsonl)' is empty\."
)
"""What DVC says that a stage says itself, or that is good news; the warnings are about files that list
what went wrong, and about a download that was not asked for."""
PUSH = "Use `dvc push` to send your updates to remote storage."
UP_TO_DATE = "Data and pipelines are up to date."
"""DVC's last words, of which the panel says the second; there is a place to push to only where one is set up."""
FAILED, STATUS_OF = re.compile(r"failed to reproduce '(\w+)'"), re.compile(r"failed to run: .*, exited with (-?\d+)")
BY_SIGNAL = re.compile(rf"exited with ({'|'.join(f'{STATUS + number}|-{number}' for number in map(int, SIGNALS))})\b")
STARTS = re.compile(r"Running stage '(\w+)':")
REUSED = {
    re.compile(r"Stage '(\w+)' didn't change, skipping"): "unchanged",
    re.compile(r"Stage '(\w+)' is cached - skipping run, checking out outputs"): "taken from the cache",
}


class StageLog(logging.Filter):
    """Filter of DVC's messages, which also keeps account of what ran and what was reused."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []
        self.reused: list[str] = []
        self.failed: dict[str, int] = {}
        """{stage: its exit status}."""
        self._unsaid: dict[str, str] = {}
        """{stage: how it was reused} since the last stage that ran."""
        self.stopped = False
        """By a signal; a stage has said so itself."""
        self.status = INTERRUPTED

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            return not self._is_interrupt(record) and not self._is_failure(record)
        text = record.getMessage()
        if match := STARTS.fullmatch(text):
            # The stage says so itself, with its number and its time.
            _add(self.ran, match[1])
            self.say_reused()
            return False
        for pattern, how in REUSED.items():
            if match := pattern.fullmatch(text):
                if match[1] not in self.reused:
                    self._unsaid[match[1]] = how
                _add(self.reused, match[1])
                return False
        return not LEFT_OUT.fullmatch(text)

    def say_reused(self) -> None:
        """Say which stages were reused, those of a kind in one line."""
        for how in REUSED.values():
            names = [name for name, found in self._unsaid.items() if found == how]
            if len(names) == 1:
                say(f"{numbered(names[0])}, {how}", style="dim")
            elif names:
                say(f"{len(names)} stages {how}: {', '.join(names)}", style="dim")
        self._unsaid.clear()

    def _is_failure(self, record: logging.LogRecord) -> bool:
        """Whether it says no more than that a stage has failed, which is shown at the end."""
        error = record.exc_info[1] if record.exc_info else None
        stage, status = FAILED.fullmatch(str(error)), STATUS_OF.fullmatch(str(getattr(error, "__cause__", None)))
        if stage and status:
            self.failed[stage[1]] = int(status[1])
        return bool(stage and status)

    def _is_interrupt(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        found = isinstance(error, KeyboardInterrupt)
        if found and not self.stopped:
            where = f", it goes on from the stage {self.ran[-1]}" if self.ran else ""
            say(f"repro: stopped; run again{where}", file=sys.stderr)
        while error is not None:
            if match := BY_SIGNAL.search(str(error)):
                found, self.status = True, STATUS + abs(int(match[1])) % STATUS
            error = error.__cause__
        self.stopped = self.stopped or found
        return found


def has_remote() -> bool:
    """Whether DVC has a storage elsewhere to push to, in any of its configs: of project, user or machine."""
    from dvc.config import Config, ConfigError

    try:
        return bool(Config(".dvc", validate=False).get("remote"))
    except ConfigError:
        # DVC itself says what is wrong there.
        return False


def leave_out_last_words() -> None:
    """DVC writes these past its own log."""
    from dvc.ui import ui

    write = ui.write

    def write_others(*objects: Any, **options: Any) -> None:
        if objects != (UP_TO_DATE,) and (objects != (PUSH,) or has_remote()):
            write(*objects, **options)

    ui.write = write_others


def without_colours() -> None:
    """Keep DVC from colouring lines, and from resetting colours at its end, where a terminal is to get plain lines."""
    from dvc import logger

    for handler in logging.getLogger("dvc").handlers:
        if isinstance(handler.formatter, logger.ColorFormatter):
            handler.formatter.log_colors = False
    atexit.unregister(logger.colorama.initialise.reset_all)


def restyle_bars() -> None:
    """Let DVC's progress bars look as ours, appear only where they last, and none where there is no terminal."""
    from dvc.progress import Tqdm
    from dvc_data.callbacks import Tqdm as DataTqdm

    # The part of DVC that looks after the cache has a class of its own.
    for bars in (Tqdm, DataTqdm):
        _restyle(bars)


def _restyle(bars: Any) -> None:
    begin, display = bars.__init__, bars.display

    def begin_later(bar: Any, *arguments: Any, **options: Any) -> None:
        begin(bar, *arguments, **options | {"delay": DELAY} | ({} if is_terminal(sys.stderr) else {"disable": True}))

    def display_later(bar: Any, *arguments: Any, **options: Any) -> Any:
        if time.time() < bar.start_t + DELAY:
            return None
        # Else it would take itself for one that was never shown, and stay.
        bar.last_print_t = time.time()
        return display(bar, *arguments, **options)

    bars.__init__, bars.display = begin_later, display_later
    bars.BAR_FMT_DEFAULT = bars.BAR_FMT_DEFAULT_NESTED = "{desc}{bar:0}  {n_fmt} of {total_fmt}, {remaining} left"
    bars.BAR_FMT_NOTOTAL = "{desc}{bar:0}  {n_fmt} {unit}, {elapsed}"


def hand_on_signals(log: StageLog) -> None:
    """Let SIGTERM and SIGHUP, as a service manager sends them to this process alone, do what Ctrl-C in a terminal does."""

    def stop(number: int, _: object) -> None:
        log.status = STATUS + number
        started = psutil.Process().children(recursive=True)
        for one in started:
            if any(word.startswith("stages.") for word in _words(one)[:4]):
                # It saves what it can, says so, and then DVC ends.
                with contextlib.suppress(psutil.Error):
                    one.send_signal(number)
        if not any(not _words(one) or "stages." in " ".join(_words(one)) for one in started):
            raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


def _words(process: psutil.Process) -> list[str]:
    """The command line; empty of a process that has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _add(names: list[str], name: str) -> None:
    # Each of DVC's handlers asks anew.
    if name not in names:
        names.append(name)


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def repro(ctx: typer.Context) -> None:
    """Run the pipeline as `dvc repro` does, with its options, and show the summary at the end.

    DVC's messages about what is as it should be are left out; `dvc repro` shows all of them. When a stage fails, the panel
    at the end says which one, why, and where its log is.
    """
    from dvc.cli import main as dvc

    if not MAP.is_file():
        raise ValueError(f"{MAP} was not found in {Path.cwd()}: run from the root of the project")

    started = time.monotonic()
    log, logs = StageLog(), states()
    for handler in logging.getLogger("dvc").handlers:
        handler.addFilter(log)
    if not is_terminal(sys.stdout):
        without_colours()
    leave_out_last_words()
    restyle_bars()
    hand_on_signals(log)
    status = dvc(["repro", *ctx.args])
    log.say_reused()
    if log.stopped:
        raise typer.Exit(log.status)
    for stage, exit_status in log.failed.items():
        failure.show(stage, exit_status, ctx.args, logs)
    if status:
        raise typer.Exit(status)
    if {"export", "report"} <= {*log.ran, *log.reused}:
        summary.show(summary.Run(log.ran, log.reused, time.monotonic() - started))
