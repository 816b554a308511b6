"""A stage that does one thing for a long time, to be stopped at it; worker processes import it by name."""

import time
from pathlib import Path

STAGE = '''
"""Wait."""

import hashlib, os, subprocess, sys, tempfile, time
from pathlib import Path

def ready():
    Path("ready").touch()

if {at!r} == "import":
    try:
        ready()
        time.sleep(60)
    except BaseException:
        pass

from tests.helpers.interrupted import after_a_while
from tuneline.data.workers import Workers
from tuneline.runtime.children import in_children
from tuneline.runtime.stage import Stage, run_stage

def swallow():
    ready()
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            time.sleep(60)
        except BaseException:
            pass

def long_call():
    ready()
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 60_000_000)

def program():
    ready()
    subprocess.run(["sleep", "60"])

def workers():
    with Workers(2) as pool:
        list(pool.map(after_a_while, [str(Path("ready").absolute())] * 4))

def children():
    in_children(after_a_while, [str(Path("ready").absolute())] * 2, ["one", "two"])

def temporary():
    with open(os.path.join(tempfile.mkdtemp(), "file"), "w") as file, tempfile.NamedTemporaryFile():
        file.write("x")
        ready()
        time.sleep(60)

def commit():
    replace = Path.replace
    def slowly(self, target):
        replace(self, target)
        if str(target).startswith("models"):
            ready()
            time.sleep(1)
    Path.replace = slowly

def main(stage: Stage) -> None:
    with stage.outputs(Path("data/processed/rows.jsonl"), Path("models/adapter")) as (rows, adapter):
        rows.write_text("a row")
        adapter.mkdir()
        (adapter / "weights").write_text("w")
        {{"import": None, "swallow": swallow, "long_call": long_call, "program": program, "workers": workers,
          "children": children, "temporary": temporary, "commit": commit}}[{at!r}]()

if __name__ == "__main__":
    run_stage(main, __doc__)
'''
"""Its code; `at` is where it is to be stopped: the file `ready` is there then."""


def after_a_while(path: str) -> None:
    Path(path).touch()
    time.sleep(60)
