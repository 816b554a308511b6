"""Bill of materials of a model that is handed out, as CycloneDX 1.6: the model's files and the libraries that made it.

https://cyclonedx.org/docs/1.6/json/. The same model and libraries give the same bytes.
"""

import re
from datetime import datetime
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import NAMESPACE_URL, uuid5

from tuneline.runtime.hashing import SUMS, file_sha256, files

if TYPE_CHECKING:
    from cyclonedx.model.component import Component
    from cyclonedx.model.license import License

SBOM = "sbom.cdx.json"
PROJECT = "tuneline"


def write_sbom(folder: Path, name: str, commit: str, made: datetime) -> None:
    """Write it into the model's folder, over every other file of it; `made` is when the commit was.

    The project stands there as the tool that made the model, with the licence of its code: the model's own terms are those of
    its base. The checksums are not among the files: they are written after it, over it too.
    """
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.tool import ToolRepository
    from cyclonedx.output.json import JsonV1Dot6

    model = Component(
        name=name, type=ComponentType.MACHINE_LEARNING_MODEL, version=commit, bom_ref=name,
        components=[_file(folder, path) for path in files(folder) if path.name not in (SBOM, SUMS)],
    )  # fmt: skip
    libraries = [_library(found) for found in dependencies(PROJECT)]
    tools = ToolRepository(components=[_maker(_project(PROJECT))])
    metadata = BomMetaData(component=model, timestamp=made, tools=tools)
    bom = Bom(components=libraries, metadata=metadata, serial_number=uuid5(NAMESPACE_URL, f"{name}@{commit}"))
    bom.register_dependency(model, libraries)
    (folder / SBOM).write_text(JsonV1Dot6(bom).output_as_string(indent=1) + "\n", encoding="utf-8")


def dependencies(name: str) -> list[Distribution]:
    """Installed libraries that a project needs, and that those need, by name; none of its extras.

    Raises ValueError for a project that is not installed: nothing says what it needs.
    """
    found: dict[str, Distribution] = {}
    waiting = _required(_project(name))
    while waiting:
        one = _normal(waiting.pop())
        if one not in found and (library := _installed(one)) is not None:
            found[one] = library
            waiting += _required(library)
    return [found[one] for one in sorted(found)]


def _project(name: str) -> Distribution:
    project = _installed(name)
    if project is None:
        raise ValueError(
            f"{name} is not installed, expected it to be, since that says which libraries it needs: run `make setup`"
        )
    return project


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        # Of another machine or Python.
        return None


def _required(library: Distribution) -> list[str]:
    from packaging.requirements import Requirement

    requirements = [Requirement(text) for text in library.requires or []]
    return [one.name for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})]


def _normal(name: str) -> str:
    """https://packaging.python.org/en/latest/specifications/name-normalization/."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _maker(project: Distribution) -> "Component":
    from cyclonedx.model.component import Component, ComponentType

    name = _normal(project.metadata["Name"])
    # No package URL: the project is on no index.
    return Component(
        name=name, version=project.version, type=ComponentType.APPLICATION, bom_ref=f"{name}@{project.version}",
        licenses=licences_of(project),
    )  # fmt: skip


def _library(library: Distribution) -> "Component":
    from cyclonedx.model.component import Component
    from packageurl import PackageURL

    name = _normal(library.metadata["Name"])
    # A local build's tag (torch's +cpu) is of no release.
    purl = PackageURL("pypi", None, name, library.version.partition("+")[0])
    return Component(
        name=name,
        version=library.version,
        purl=purl,
        bom_ref=f"{name}@{library.version}",
        licenses=licences_of(library),
    )


def licences_of(library: Distribution) -> "list[License]":
    """What the library's metadata say: an SPDX expression, else classifiers, else the first line of a text."""
    from cyclonedx.factory.license import LicenseFactory

    metadata = library.metadata
    if expressions := metadata.get_all("License-Expression"):
        return [LicenseFactory().make_from_string(expressions[0])]
    classifiers = [text for text in metadata.get_all("Classifier") or [] if text.startswith("License :: ")]
    names = [text.rpartition(" :: ")[2] for text in classifiers if text != "License :: OSI Approved"]
    text = next(iter(metadata.get_all("License") or []), "").strip().partition("\n")[0]
    return [LicenseFactory().make_with_name(one) for one in names or ([text] if text else [])]


def _file(folder: Path, path: Path) -> "Component":
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    name = path.relative_to(folder).as_posix()
    digest = HashType(alg=HashAlgorithm.SHA_256, content=file_sha256(path))
    return Component(name=name, type=ComponentType.FILE, hashes=[digest], bom_ref=f"file:{name}")
