"""`tuneline repro`: `dvc repro`, saying only what a reader needs, and the summary at its end."""

import contextlib
import logging
import re
import signal
import sys
import time
from pathlib import Path

import psutil
import typer

from tuneline.cli import summary
from tuneline.runtime.errors import INTERRUPTED
from tuneline.runtime.stage import numbered
from tuneline.runtime.stopping import SIGNALS, STATUS
from tuneline.runtime.storage.stage_map import MAP

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
LEFT_OUT = re.compile(
    r"|> python -m stages\.\w+|Updating lock file 'dvc\.lock'"
    r"|'(data/raw/lawbench|data/processed/(rejects|removed)\.jsonl)' is empty\."
)
"""What DVC says that a stage says itself, or that is good news; the warnings are about files that list
what went wrong, and about a download that was not asked for."""
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
        self.stopped = False
        """By a signal; a stage has said so itself."""
        self.status = INTERRUPTED

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            return not self._is_interrupt(record)
        text = record.getMessage()
        if match := STARTS.fullmatch(text):
            # The stage says so itself, with its number and its time.
            _add(self.ran, match[1])
            return False
        for pattern, what in REUSED.items():
            if match := pattern.fullmatch(text):
                _add(self.reused, match[1])
                record.msg, record.args = f"{numbered(match[1])}, {what}", None
        return not LEFT_OUT.fullmatch(text)

    def _is_interrupt(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        found = isinstance(error, KeyboardInterrupt)
        if found and not self.stopped:
            where = f", it goes on from the stage {self.ran[-1]}" if self.ran else ""
            print(f"repro: stopped; run again{where}", file=sys.stderr)
        while error is not None:
            if match := BY_SIGNAL.search(str(error)):
                found, self.status = True, STATUS + abs(int(match[1])) % STATUS
            error = error.__cause__
        self.stopped = self.stopped or found
        return found


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

    DVC's messages about what is as it should be are left out; `dvc repro` shows all of them.
    """
    from dvc.cli import main as dvc

    if not MAP.is_file():
        raise ValueError(f"{MAP} was not found in {Path.cwd()}: run from the root of the project")

    started = time.monotonic()
    log = StageLog()
    for handler in logging.getLogger("dvc").handlers:
        handler.addFilter(log)
    hand_on_signals(log)
    status = dvc(["repro", *ctx.args])
    if log.stopped:
        raise typer.Exit(log.status)
    if status:
        raise typer.Exit(status)
    if {"export", "report"} <= {*log.ran, *log.reused}:
        summary.show(summary.Run(log.ran, log.reused, time.monotonic() - started))
