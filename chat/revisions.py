"""Adapters of other git revisions and DVC experiments, brought here through DVC without checking anything out."""

import json
import shutil
import tempfile
from pathlib import Path

import yaml

from tuneline.models.loading import ADAPTER, BASE
from tuneline.train.checkpoints import private_folder


def fetch_adapter(revision: str) -> Path:
    """The folder of that revision's adapter, kept by content under $TUNELINE_SCRATCH or ~/.cache/tuneline.

    Raises ValueError when the revision is unknown, its adapter is in no cache or remote, or it was trained on another base.
    """
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from scmrepo.exceptions import SCMError

    try:
        files = DVCFileSystem(".", rev=revision)
        content = yaml.safe_load(files.read_text("dvc.lock"))["stages"]["train"]["outs"]
        (digest,) = (out["md5"] for out in content if out["path"] == ADAPTER.as_posix())
        folder = private_folder("adapters") / str(digest).partition(".")[0]
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent) as partial:
                files.get(ADAPTER.as_posix(), f"{partial}/adapter", recursive=True)
                shutil.move(f"{partial}/adapter", folder)
    except (DvcException, SCMError, OSError, KeyError) as error:
        raise ValueError(
            f"rev:{revision}: its adapter can't be had ({' '.join(str(error).split())}): expected a commit, branch, tag or "
            "experiment whose `train` has run, and its data in DVC's cache or remote (`dvc pull`)"
        ) from None
    check_base(folder, f"rev:{revision}")
    return folder


def check_base(adapter: Path, name: str) -> None:
    """Raises ValueError when the adapter was trained on another base than lies here."""
    from tuneline.runtime.hashing import SUMS, file_sha256

    lineage = json.loads((adapter / "lineage.json").read_text(encoding="utf-8"))
    theirs, ours = lineage.get("inputs", {}).get(f"{BASE.as_posix()}/{SUMS}"), file_sha256(BASE / SUMS)
    if theirs != ours:
        raise ValueError(
            f"{name} was trained on another base ({str(theirs)[:12]}…) than {BASE} holds ({ours[:12]}…): "
            "`git checkout` that revision and run `dvc checkout` there"
        )
