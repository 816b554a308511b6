"""The files of a release as they are pushed: names, sizes and sha256, as SHA256SUMS has them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from tuneline.formats.closed_folder import open_entries
from tuneline.formats.notices import NAMES
from tuneline.runtime.hashing import SUMS, file_sha256, read_sums, sum_mismatches

KINDS = (
    "*.safetensors", "*.gguf", "*.jinja", "*.model", "*.tiktoken", "Modelfile", "README.md", SUMS,
    "config.json", "configuration.json", "generation_config.json", "lineage.json", "release.json", "sbom.cdx.json",
    "*.safetensors.index.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.json", "vocab.json", "vocab.txt", "merges.txt", "tekken.json", "names.json", "preprocessor_config.json",
    "processor_config.json", "image_processor_config.json", "video_preprocessor_config.json",
)  # fmt: skip
"""Names that a release has; rows, tables, scripts and settings of a user have others."""
TEXTS = (".md", ".txt", "")
"""Endings of notices and licences, which have names of their own."""


@dataclass(frozen=True)
class ReleaseFile:
    name: str
    """Within the folder, with slashes."""
    path: Path
    size: int
    """Bytes."""
    sha256: str

    def git_blob(self) -> str:
        """The hash that git gives the content: what hubs list of small files."""
        content = self.path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def release_files(folder: Path) -> list[ReleaseFile]:
    """Every file that leaves, sorted by name. Raises ValueError unless the folder is exactly what SHA256SUMS lists."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder, expected a release: run `tuneline release --to {folder}`")
    if found := list(open_entries(folder)) or list(sum_mismatches(folder)):
        raise ValueError(f"{folder} is not the release that was made: {'; '.join(found[:5])}; make it again")
    digests = read_sums(folder) | {SUMS: file_sha256(folder / SUMS)}
    if strange := sorted(name for name in digests if not _is_known(Path(name))):
        raise ValueError(f"{folder / strange[0]} is no file of a model, so it is not pushed: take it out of the folder")
    return [_file(folder, name, digests[name]) for name in sorted(digests)]


def total(files: Sequence[ReleaseFile]) -> str:
    """Their number and size, in words."""
    return f"{len(files)} files, {sum(file.size for file in files) / 1e6:,.1f} MB"


def _is_known(path: Path) -> bool:
    # A licence's name may hold a version (LICENSE-2.0).
    is_text = path.suffix.lower() in TEXTS or path.suffix[1:].isdecimal()
    return any(fnmatch(path.name, kind) for kind in (*KINDS, *(NAMES if is_text else ())))


def _file(folder: Path, name: str, digest: str) -> ReleaseFile:
    path = folder / name
    return ReleaseFile(name, path, path.stat().st_size, digest)
