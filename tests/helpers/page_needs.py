"""What the blocks of a page need beside a finished project, and what stands in for what is not in a test.

Each function makes the first and gives the second: text of the page to the text that is run.
"""

import json
import shutil
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.helpers.chatglm3 import SIZES, checkpoint, train_pieces
from tests.helpers.commands import git, python
from tests.helpers.fake_server import Asked, Said, completion, fake_server, models
from tests.helpers.llama_cpp import make_llama_cpp
from tests.helpers.model_hub import TOKEN, Hub
from tests.helpers.model_hub import serving as serving_hub
from tests.helpers.paths import ROOT
from tests.helpers.recipe_rows import RECIPES
from tests.helpers.shell_session import Terminal
from tests.helpers.tiny_models import base_section

WEATHER = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
DOCKER = """#!/usr/bin/env python
import os, sys
_, does, *words = sys.argv
while words and words[0].startswith("-"):
    option = words.pop(0)
    if option in ("--user", "-v", "-p", "-e", "--network", "--gpus"):
        words.pop(0)
    elif option not in ("--rm", "-it", "--init", "--ipc=host"):
        sys.exit(f"{option} is unknown")
image, *words = words
if does != "run" or image not in ("tuneline", "tuneline:cuda"):
    sys.exit(f"{does} {image} is unknown")
os.execvp(words[0], words)
"""
"""Runs what the container would run, in the project."""
QUEUE = (
    "dvc queue start && while dvc queue status | grep -qE 'Queued|Running'; do sleep 2; done"
    " && dvc queue status && ! dvc queue status | grep Failed"
)


def commit(terminal: Terminal) -> None:
    git(terminal.project, "commit", "-q", "-a", "--allow-empty", "-m", "Results")


def experiment(project: Path) -> tuple[str, str]:
    """(commit of the experiment r2, the ref that exp-a has beside it)."""
    (line,) = git(project, "for-each-ref", "refs/exps/**/r2").splitlines()
    commit, _, name = line.split()
    return commit, name.removesuffix("r2") + "exp-a"


def name_experiment(terminal: Terminal) -> None:
    """The experiment r2 is exp-a, too."""
    commit, name = experiment(terminal.project)
    git(terminal.project, "update-ref", name, commit)


def name_changed_experiment(terminal: Terminal) -> None:
    """The experiment r2, one of its answers changed, is exp-a: on some CPUs all of them are the workspace's."""
    project = terminal.project
    commit, name = experiment(project)
    answers, lock = project / "metrics/predictions.jsonl", project / "dvc.lock"
    before = {path: path.read_text(encoding="utf-8") for path in (answers, lock)}
    first, _, rest = before[answers].partition("\n")
    changed = json.loads(first) | {"tuned": "另一个回答"}
    # In the cache of DVC it is read only.
    answers.unlink()
    answers.write_text(json.dumps(changed, ensure_ascii=False) + "\n" + rest, encoding="utf-8")
    assert python(project, "-m", "dvc", "commit", "-q", "-f", "evaluate").returncode == 0
    blob = git(project, "hash-object", "-w", "dvc.lock").strip()
    entries = [entry for entry in git(project, "ls-tree", commit).splitlines() if not entry.endswith("\tdvc.lock")]
    tree = subprocess.run(
        ["git", "mktree"], cwd=project, input="\n".join([*entries, f"100644 blob {blob}\tdvc.lock", ""]),
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    made = git(project, "commit-tree", tree, "-p", f"{commit}^", "-m", "exp-a").strip()
    git(project, "update-ref", name, made)
    for path, text in before.items():
        path.unlink()
        path.write_text(text, encoding="utf-8")


def bases(terminal: Terminal, stack: ExitStack) -> dict[str, str]:
    shutil.copytree(terminal.project / "models/adapter", terminal.project / "theirs")
    return {}


def chat(terminal: Terminal, stack: ExitStack) -> dict[str, str]:
    name_experiment(terminal)
    tools = [{"type": "function", "function": WEATHER}]
    (terminal.project / "tools.json").write_text(json.dumps(tools), encoding="utf-8")
    # Six answers of a tiny model in bfloat16: that they differ by rounding, status 1, is an answer, too.
    asks = "tuneline served --url http://127.0.0.1:8000/v1 --model adapter"
    return {asks: f"{asks} || [ $? = 1 ]"}


def contributing(terminal: Terminal, stack: ExitStack) -> dict[str, str]:
    commit(terminal)
    return {}


def docker(terminal: Terminal, stack: ExitStack) -> dict[str, str]:
    program = terminal.project / ".venv/bin/docker"
    program.write_text(DOCKER)
    program.chmod(0o755)
    terminal.environment |= {"TUNELINE_PASSWORD": "mond-und-sterne", "TUNELINE_KEY": "sonne-und-wind"}
    return {}


def evaluation(terminal: Terminal, stack: ExitStack) -> dict[str, str]:
    commit(terminal)
    # Bash splits it at blanks, so that sed has its own word for one.
    terminal.environment["EDITOR"] = r"sed -i s/max_steps:.6/max_steps:\x204/"
    return {}


def experiments(terminal: Terminal, stack: ExitStack) -> dict[str, str]:
    commit(terminal)
    git(terminal.home, "init", "-q", "--bare", "-b", "main", "others.git")
    git(terminal.project, "remote", "add", "origin", str(terminal.home / "others.git"))
    git(terminal.project, "push", "-q", "-u", "origin", "main")
    # Twelve runs of a study are test_study_story's.
    return {
        "/mnt/shared/store": str(terminal.home / "store"),
        "lora.r=4,8,16,32": "lora.r=2,6",
        "dvc queue start": QUEUE,
        "dvc push -a && git push": f"dvc push -a && git push && git clone -q {terminal.home / 'others.git'} ../other"
        " && cd ../other && git pull && dvc pull && tuneline verify models/merged",
        "tuneline study": "tuneline study --dry-run",
    }


def recipes(terminal: Terminal, stack: ExitStack) -> dict[str, str]:
    base = terminal.project / "bases/chatglm3-6b"
    base.parent.mkdir()
    checkpoint(base, train_pieces(terminal.home / "pieces", "identity", 420), SIZES["grouped"] | {"seq_length": 4096})
    RECIPES["chatglm3-legal-lora"](terminal.project / "data/raw")
    small = "base.max_perplexity_zh=null base.max_perplexity_en=null data.heldout=4 train.max_steps=2 evaluate.max_new_tokens=4"
    return {"base.sha256=…": f"base.sha256={base_section(base)['sha256']} {small}"}


def release(terminal: Terminal, stack: ExitStack) -> dict[str, str]:
    commit(terminal)
    make_llama_cpp(terminal.home / "llama.cpp", Path(terminal.environment["TUNELINE_SCRATCH"]))
    terminal.environment["LLAMA_CPP"] = str(terminal.home / "llama.cpp")
    address = stack.enter_context(serving_hub(Hub()))
    online = {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_ENDPOINT": address, "HF_TOKEN": TOKEN}
    terminal.environment |= online
    return {}


def review(terminal: Terminal, stack: ExitStack) -> dict[str, str]:
    from tuneline.evaluate.review.pairs import answer_hash
    from tuneline.evaluate.review.votes import Vote, append

    name_changed_experiment(terminal)
    rows = [json.loads(line) for line in (terminal.project / "metrics/predictions.jsonl").read_text().splitlines()]
    row = next(row for row in rows if row["base"] != row["tuned"])
    first, second = sorted((answer_hash(row["base"]), answer_hash(row["tuned"])))
    append(terminal.project / "reviews", Vote(row["id"], (first, second), first, "anna", ""))

    def answer(asked: Asked) -> Said:
        return models("judge") if asked.path == "/v1/models" else completion("[[A]]")

    judge = stack.enter_context(fake_server(answer))
    return {"http://localhost:8000": judge, "TUNELINE_PASSWORD=…": "TUNELINE_PASSWORD=mond-und-sterne"}


def serving(terminal: Terminal, stack: ExitStack) -> dict[str, str]:
    """Of a project whose models are sure of what they say; its server has several models."""
    from tests.helpers.served_project import make_project

    terminal.environment |= {"PYTHONPATH": str(ROOT), "MY_KEY": "none"}
    make_project(terminal.project)
    terminal.run("tuneline serve --dtype float32")
    return {
        "my-adapter": "adapter",
        "v1     ": "v1 --model adapter ",
        "--url https://host/v1": "--url http://localhost:8000/v1 --model adapter",
        "--min-equal 48": "--min-equal 12",
    }


def study(terminal: Terminal, stack: ExitStack) -> dict[str, str]:
    return {"tuneline study": "tuneline study --dry-run"}


NEEDS: dict[str, Callable[[Terminal, ExitStack], dict[str, str]]] = {
    "CONTRIBUTING": contributing,
    "bases": bases,
    "chat": chat,
    "docker": docker,
    "evaluation": evaluation,
    "experiments": experiments,
    "recipes": recipes,
    "release": release,
    "review": review,
    "serving": serving,
    "study": study,
}
"""By the page's name."""
FIRST = ("README", "experiments")
"""Pages that begin with a run of which nothing is committed; the others with an experiment made."""
ACTIVATING = ("CONTRIBUTING", "README", "distributed", "install")
"""Pages that say to activate `.venv`, or need no such thing; readers of the others have done it."""
EMPTY = ("serving",)
"""Pages that bring a project of their own."""


def folder_of(page: Path, first: Path, experiment: Path, folder: Path) -> Path:
    """A project to work in, as the page's reader has it."""
    if page.stem in EMPTY:
        folder.mkdir()
        return folder
    return Path(shutil.copytree(first if page.stem in FIRST else experiment, folder, symlinks=True))
