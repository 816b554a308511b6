"""Adapters of git revisions and DVC experiments, fetched through DVC's file system without a checkout."""

import json
from pathlib import Path

import yaml

from tuneline.models.loading import ADAPTER, BASE
from tuneline.runtime.atomic import cached_output
from tuneline.runtime.cache import private_folder
from tuneline.runtime.errors import sentence


def fetch_adapter(revision: str) -> Path:
    """Folder of a revision's adapter, cached by content hash under $TUNELINE_SCRATCH or ~/.cache/tuneline.

    Raises ValueError when the revision is unknown, its adapter is in no cache or remote, or it was trained on another base.
    """
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from scmrepo.exceptions import SCMError

    try:
        files = DVCFileSystem(".", rev=revision)
        outs = yaml.safe_load(files.read_text("dvc.lock"))["stages"]["train"]["outs"]
        (digest,) = (out["md5"] for out in outs if out["path"] == ADAPTER.as_posix())
        folder = private_folder("adapters") / str(digest).partition(".")[0]
        if not folder.is_dir():
            with cached_output(folder) as partial:
                if partial:
                    files.get(ADAPTER.as_posix(), str(partial), recursive=True)
    except (DvcException, SCMError, OSError, KeyError) as error:
        raise ValueError(
            f"rev:{revision}: its adapter can't be had ({sentence(error)}): expected a commit, branch, tag or "
            "experiment whose `train` has run, and its data in DVC's cache or remote (`dvc pull`)"
        ) from None
    check_base(folder, f"rev:{revision}")
    return folder


def check_base(adapter: Path, name: str) -> None:
    """Lineage check. Raises ValueError when the adapter was trained on another base than is here."""
    from tuneline.runtime.hashing import SUMS, file_sha256

    lineage = json.loads((adapter / "lineage.json").read_text(encoding="utf-8"))
    theirs, ours = lineage.get("inputs", {}).get(f"{BASE.as_posix()}/{SUMS}"), file_sha256(BASE / SUMS)
    if theirs != ours:
        raise ValueError(
            f"{name} was trained on another base ({str(theirs)[:12]}…) than {BASE} holds ({ours[:12]}…): "
            "`git checkout` that revision and run `dvc checkout` there"
        )
