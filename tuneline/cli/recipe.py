"""`tuneline recipe`: run a recipe, its values in place of those of params.yaml, beside the project."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from ruamel.yaml import YAML

from tuneline.cli.failure import CHANGES, RECIPE
from tuneline.cli.plots_page import SCRIPTS
from tuneline.runtime.git import git
from tuneline.runtime.params import PARAMS, read_yaml
from tuneline.runtime.terminal.lines import say

RECIPES = Path("recipes")
RUNS = Path("runs")
RAW = Path("data/raw")


app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def recipe(
    name: Annotated[str, typer.Argument(help="A file of recipes/, without .yaml.")],
    changes: Annotated[list[str] | None, typer.Argument(help="section.key=value, as for `dvc exp run -S`.")] = None,
) -> None:
    """Run a recipe beside the project, never in it: in runs/<name>, a git clone that shares DVC's cache.

    The clone has the working tree's files, and as params.yaml the project's with the recipe's values on top. Nothing is
    stored or computed twice, and what it makes can be committed there and pushed back as a branch.
    """
    folder = prepare(name, changes or [])
    say(f"recipe: {name} runs in {folder}; look there for models/ and metrics/")
    os.chdir(folder)
    told = {RECIPE: name, CHANGES: shlex.join(changes or [])}
    process = subprocess.Popen([sys.executable, "-m", "tuneline", "repro"], env=os.environ | told)
    # A terminal sends Ctrl-C to both; Python would kill the run before training has saved its step.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    status = process.wait()
    if status:
        raise typer.Exit(status)


def prepare(name: str, changes: list[str]) -> Path:
    """Bring runs/<name> up to date with this project; returns it. Raises ValueError for an unknown recipe or key."""
    recipe = RECIPES / f"{name}.yaml"
    if not recipe.is_file():
        known = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
        raise ValueError(f"RECIPE is {name!r}, expected one of {known or 'recipes/, in the root of the project'}")
    folder = RUNS / name
    if not (folder / ".git").is_dir():
        RUNS.mkdir(exist_ok=True)
        git("clone", "--quiet", ".", str(folder))
    copy_tree(folder)
    write_params(folder / "params.yaml", recipe)
    override(folder / "params.yaml", changes)
    bring_bases(folder)
    share_cache(folder)
    return folder


def write_params(target: Path, recipe: Path) -> None:
    """Write the project's parameters with the recipe's values in their place, comments kept."""
    yaml = YAML()
    yaml.width = 2**16
    params = yaml.load(PARAMS)
    merge(params, read_yaml(recipe), recipe)
    yaml.dump(params, target)


def merge(params: dict[str, Any], values: dict[str, Any], recipe: Path) -> None:
    """Put a recipe's values into parameters, key by key.

    Raises ValueError for a section or key that the parameters do not have.
    """
    given = [(section, key) for section, keys in values.items() for key in keys]
    unknown = [f"{section}.{key}" for section, key in given if key not in params.get(section, {})]
    if unknown:
        raise ValueError(f"{recipe}: {', '.join(unknown)} is not in {PARAMS}, expected keys of its sections")
    for section, key in given:
        params[section][key] = values[section][key]


def copy_tree(folder: Path) -> None:
    """The working tree's files as they are now, and raw data; never dvc.lock, which is the copy's own."""
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    raw = (str(path) for path in RAW.rglob("*") if path.is_file() and not fetched(path))
    wanted = {name for name in (*listed, *raw) if name and name != "dvc.lock" and Path(name).is_file()}
    for name in git("-C", str(folder), "ls-files", "-z").split("\0"):
        if name and name not in wanted and name != "dvc.lock":
            (folder / name).unlink(missing_ok=True)
    for name in sorted(wanted):
        target = folder / name
        if target.is_file() and not target.is_symlink() and same(Path(name), target):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        shutil.copy2(name, target)


def same(one: Path, other: Path) -> bool:
    """By size and time, as `shutil.copy2` leaves them."""
    a, b = one.stat(), other.stat()
    return (a.st_size, a.st_mtime_ns) == (b.st_size, b.st_mtime_ns)


def fetched(path: Path) -> bool:
    """Whether a raw file is what the `fetch` stage brought, which the copy fetches for itself."""
    return path.relative_to(RAW).parts[0] == "lawbench"


def override(params: Path, changes: list[str]) -> None:
    """Set keys with DVC's own reading of `-S`; a key that is not there is an error, not a new key."""
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import apply_overrides

    try:
        apply_overrides(params, changes)
    except DvcException as error:
        raise ValueError(f"{' '.join(changes)}: {error.__cause__ or error}; expected section.key=value") from None


def bring_bases(folder: Path) -> None:
    """Link the folder of local bases, which git does not hold."""
    bases, link = Path("bases"), folder / "bases"
    if bases.is_dir() and not link.exists():
        link.symlink_to(bases.resolve(), target_is_directory=True)


def share_cache(folder: Path) -> None:
    """Let the copy use this project's DVC settings and cache."""
    from dvc.repo import Repo

    with Repo(".") as project:
        cache = project.cache.local_cache_dir
    # Both are of this machine, and not in git.
    for local in filter(Path.is_file, (Path(".dvc/config.local"), SCRIPTS)):
        shutil.copyfile(local, folder / local)
    dvc = [sys.executable, "-m", "dvc", "config", "--local", "cache.dir", cache]
    subprocess.run(dvc, cwd=folder, check=True, capture_output=True)
