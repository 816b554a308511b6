"""ModelScope as what a release is pushed to: the HTTP client of modelscope-hub, which an extra of ours installs."""

import base64
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any

from tuneline.cli.push.contents import ReleaseFile
from tuneline.cli.push.failures import Place, explaining
from tuneline.cli.push.remote import Repository, Stored, retried

INLINE = 1 << 20
"""Bytes up to which a file is part of the commit itself; the hub takes 5 MB."""
INLINE_NAMES = frozenset({"README.md", "configuration.json"})
"""What the hub reads itself."""
PUBLIC = 5
"""The hub's number for it."""


class ModelScope:
    """A model repository there. Raises ValueError without its library or a token."""

    place = "ModelScope"
    kept = frozenset({".gitattributes", ".gitignore", "configuration.json"})

    def __init__(self, repo: str) -> None:
        try:
            from modelscope_hub import HubApi
            from modelscope_hub.config import HubConfig
        except ImportError:
            raise ValueError("ModelScope's library is not installed: uv pip install modelscope-hub") from None
        config = HubConfig()
        if not config.token:
            raise ValueError("no token for ModelScope: run `modelscope login`, or set MODELSCOPE_API_TOKEN")
        self.repo = repo
        self.endpoint = str(config.endpoint).rstrip("/")
        self.api: Any = HubApi(config)

    @property
    def address(self) -> str:
        return f"{self.endpoint}/models/{self.repo}"

    def create(self, *, public: bool) -> None:
        """Who may see it is chosen here: later it can only be changed on its page. An empty one shows nothing yet."""
        from modelscope_hub.errors import AlreadyExistsError

        with self._explained(), suppress(AlreadyExistsError):
            self.api.create_repo(self.repo, "model", visibility="public" if public else "private", license="other")

    def state(self) -> Repository:
        with self._explained():
            info = self.api.legacy.get_repo_info(self.repo, "model")
            listed = self.api.list_repo_files(self.repo, "model")
        files = {one.path: Stored(one.size, one.sha256) for one in listed if one.type != "tree"}
        return Repository(files, public=info.get("Visibility", PUBLIC) == PUBLIC, head=None)

    def upload(self, files: Sequence[ReleaseFile]) -> None:
        """Large files one by one, those that the hub has already not again."""
        large = [file for file in files if not _is_inline(file)]
        if not large:
            return
        client, blobs = self.api.legacy, [{"oid": one.sha256, "size": one.size} for one in large]
        # Asked for all at once: one of which nothing is said is there already.
        wanted = retried(partial(self._ask, client.validate_blobs, self.repo, "model", blobs))
        for file in large:
            if address := wanted.get(file.sha256):
                retried(partial(self._send, file, address))

    def commit(self, files: Sequence[ReleaseFile], removed: Collection[str], head: str | None) -> None:
        actions = [*(_addition(file) for file in files), *(_deletion(name) for name in removed)]
        self._ask(self.api.legacy.create_commit, self.repo, "model", actions, "Release")

    def publish(self) -> None:
        raise ValueError(f"{self.repo} was made private, and is complete: make it public on {self.address}")

    def _send(self, file: ReleaseFile, address: str) -> None:
        with file.path.open("rb") as stream:
            self._ask(self.api.legacy.upload_blob, address, stream, file.size)

    def _ask(self, request: Callable[..., Any], *arguments: Any) -> Any:
        with self._explained():
            return request(*arguments)

    def _explained(self) -> AbstractContextManager[None]:
        login = "`modelscope login` or MODELSCOPE_API_TOKEN with one of your account's"
        return explaining(Place(self.place, self.repo, login, "MODELSCOPE_ENDPOINT"))


def _is_inline(file: ReleaseFile) -> bool:
    return file.name in INLINE_NAMES or (file.size <= INLINE and file.path.suffix not in (".safetensors", ".gguf"))


def _addition(file: ReleaseFile) -> dict[str, Any]:
    if not _is_inline(file):
        return _action("create", file.name, size=file.size, type="lfs", sha256=file.sha256)
    content = base64.b64encode(file.path.read_bytes()).decode()
    return _action("create", file.name, size=file.size, content=content, encoding="base64")


def _deletion(name: str) -> dict[str, Any]:
    return _action("delete", name)


def _action(action: str, path: str, **values: Any) -> dict[str, Any]:
    """What the hub's commit does with a file: all keys, always."""
    return {
        "action": action,
        "path": path,
        "type": "normal",
        "size": 0,
        "sha256": "",
        "content": "",
        "encoding": "",
    } | values
