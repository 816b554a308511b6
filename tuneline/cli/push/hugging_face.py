"""The Hugging Face Hub, or a mirror of it (HF_ENDPOINT), as what a release is pushed to: huggingface_hub's own client."""

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from typing import Any

from tuneline.cli.push.contents import ReleaseFile
from tuneline.cli.push.failures import Place, explaining
from tuneline.cli.push.remote import Repository, Stored

MESSAGE = "Release"


class HuggingFace:
    """A model repository there. Raises ValueError where no token is set."""

    kept = frozenset({".gitattributes"})

    def __init__(self, repo: str, endpoint: str | None = None) -> None:
        from huggingface_hub import HfApi, get_token

        self.repo = repo
        self.api = HfApi(endpoint=endpoint, library_name="tuneline")
        self.place = "the Hugging Face Hub" if self.api.endpoint == "https://huggingface.co" else self.api.endpoint
        if not get_token():
            raise ValueError(
                f"no token for {self.place}: run `hf auth login`, or set HF_TOKEN, with one that may write"
            )

    @property
    def address(self) -> str:
        return f"{self.api.endpoint}/{self.repo}"

    def create(self, *, public: bool) -> None:
        """Private even for a public release, which is published when it is complete."""
        with self._explained():
            self.api.create_repo(self.repo, private=True, exist_ok=True)

    def state(self) -> Repository:
        from huggingface_hub.hf_api import RepoFile

        with self._explained():
            info = self.api.model_info(self.repo)
            tree = self.api.list_repo_tree(self.repo, recursive=True, revision=info.sha) if info.sha else ()
            files = {one.path: _stored(one) for one in tree if isinstance(one, RepoFile)}
        return Repository(files, public=not info.private, head=info.sha)

    def upload(self, files: Sequence[ReleaseFile]) -> None:
        """Nothing: the client uploads large files with the commit, and sends each again where that fails."""

    def commit(self, files: Sequence[ReleaseFile], removed: Collection[str], head: str | None) -> None:
        from huggingface_hub import CommitOperationDelete

        operations = [*(self._addition(file) for file in files), *(CommitOperationDelete(name) for name in removed)]
        with self._explained():
            self.api.create_commit(self.repo, operations, commit_message=MESSAGE, parent_commit=head)

    def publish(self) -> None:
        with self._explained():
            self.api.update_repo_settings(self.repo, private=False)

    def _addition(self, file: ReleaseFile) -> Any:
        from huggingface_hub import CommitOperationAdd

        addition = CommitOperationAdd(file.name, file.path)
        # What was compared with SHA256SUMS: a file that changes meanwhile is refused by the hub.
        addition.upload_info.sha256 = bytes.fromhex(file.sha256)
        return addition

    def _explained(self) -> AbstractContextManager[None]:
        login = f"`hf auth login` or HF_TOKEN with a write token ({self.api.endpoint}/settings/tokens)"
        return explaining(Place(self.place, self.repo, login, "HF_ENDPOINT"))


def _stored(file: Any) -> Stored:
    return Stored(file.size, file.lfs.sha256 if file.lfs else None, None if file.lfs else file.blob_id)
