"""What is installed is what was locked, by hash; what a model was made with is written down when it is handed out."""

import json
import re
import shutil
from datetime import UTC, datetime
from importlib.metadata import PathDistribution, distribution, distributions, version

import pytest
from packaging.requirements import Requirement
from setuptools import build_meta

from tests.helpers.paths import ROOT
from tuneline.export.sbom import SBOM, dependencies, licences_of, write_sbom
from tuneline.runtime.hashing import SUMS, file_sha256

LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
UNHASHED = (ROOT / "requirements-unhashed.lock").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
BUILT = ["antlr4-python3-runtime", "deepspeed", "jieba", "rouge-score", "torch"]
"""torch's wheels differ by machine; of the others the index has no wheel, and one that is built has a hash of its own."""
PIN = r"[a-z0-9.-]+(\[[a-z,-]+\])?==[\w.]+( ; .*)?"


def entries() -> list[list[str]]:
    """Lines of each requirement of the lock: the pin, and its hashes."""
    return [entry.split(" \\\n") for entry in re.split(r"\n(?=\S)", LOCK.rstrip())]


def test_the_lock_pins_everything_by_hash_and_names_no_index():
    for pin, *hashes in entries():
        assert re.fullmatch(PIN, pin), pin
        assert hashes, pin
        assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", line) for line in hashes), pin
    direct = re.findall(r'^\s+"([A-Za-z-]+)>=', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    pinned = {pin.partition("==")[0].partition("[")[0] for pin, *_ in entries()}
    assert {name.lower() for name in direct} - pinned == {"deepspeed", "jieba", "rouge-score", "torch"}


def test_what_differs_by_machine_or_is_built_here_is_pinned_by_version_alone():
    assert [line.partition("==")[0] for line in UNHASHED.splitlines()] == BUILT
    assert all(re.fullmatch(r"[a-z0-9-]+==[\d.]+", line) for line in UNHASHED.splitlines())
    assert f"\nUNHASHED := {'|'.join(BUILT)}\n" in MAKEFILE
    assert not {pin.partition("==")[0] for pin, *_ in entries()} & set(BUILT)
    # Its CUDA packages come with the CUDA build, each pinned by it.
    assert not re.search(r"(?m)^(torch|triton|nvidia-cu|cuda-)", LOCK)


def test_every_environment_is_made_with_hashes():
    installs = [line for line in MAKEFILE.splitlines() if "-r requirements.lock" in line and "INSTALL" in line]
    assert len(installs) == 2
    assert all("--no-deps --require-hashes" in line for line in installs)
    assert len(re.findall(r"(?m)INSTALL\).* -r requirements-unhashed\.lock", MAKEFILE)) == 2


def test_licences_and_known_vulnerabilities_are_asked_for_by_pinned_tools():
    for target, tool in (("licences", "pip-licenses"), ("audit", "pip-audit")):
        recipe = MAKEFILE.partition(f"\n{target}: ")[2].partition("\n\n")[0]
        assert re.search(rf"uv tool run --quiet {tool}==\d+\.\d+\.\d+ ", recipe)


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_all_that_is_needed_is_in_the_lock(python):
    """Whatever Python this one is."""
    place = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    pins = [Requirement(pin) for pin, *_ in entries()]
    locked = {pin.name for pin in pins if pin.marker is None or pin.marker.evaluate(place)}
    found = [distribution("tuneline"), *dependencies("tuneline")]
    asked = [Requirement(text) for library in found for text in library.requires or []]
    needed = {
        re.sub(r"[-_.]+", "-", one.name).lower() for one in asked if one.marker is None or one.marker.evaluate(place)
    }
    cuda = {name for name in needed if re.match(r"(triton|cuda-|nvidia-)", name)}
    assert needed - locked - cuda == set(BUILT)
    assert ("audioop-lts" in needed) == (python == "3.13")
    assert len(needed) > 100


@pytest.fixture
def bill(tmp_path) -> dict:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    # Of the model that is copied; a release writes them anew once the bill is there.
    (tmp_path / SUMS).write_text("of the model that was copied")
    made = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    write_sbom(tmp_path, "release", "0123abc", made)
    first = (tmp_path / SBOM).read_bytes()
    write_sbom(tmp_path, "release", "0123abc", made)
    assert (tmp_path / SBOM).read_bytes() == first
    bill = json.loads(first)
    (weights,) = bill["metadata"]["component"]["components"]
    assert weights["name"] == "model.safetensors"
    assert weights["hashes"] == [{"alg": "SHA-256", "content": file_sha256(tmp_path / "model.safetensors")}]
    return bill


def test_the_bill_of_materials_is_cyclonedx(bill):
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bill)) is None
    assert bill["metadata"]["component"]["type"] == "machine-learning-model"
    assert bill["metadata"]["component"]["version"] == "0123abc"
    # The licence is that of the code that made the model; the model's terms are its base's.
    assert "licenses" not in bill["metadata"]["component"]
    (tool,) = bill["metadata"]["tools"]["components"]
    assert (tool["type"], tool["name"], tool["version"]) == ("application", "tuneline", version("tuneline"))


def test_it_names_every_library_with_version_and_licence(bill):
    found = {component["name"]: component for component in bill["components"]}
    assert found["transformers"]["version"] == version("transformers")
    assert found["torch"]["purl"] == f"pkg:pypi/torch@{version('torch').partition('+')[0]}"
    assert found["pydantic"]["licenses"] == [{"license": {"id": "MIT"}}]
    without = [name for name, component in found.items() if "licenses" not in component]
    # Their metadata say nothing.
    assert len(without) < len(found) / 10, without
    # What tests need is not what made the model.
    assert "pytest" in {one.metadata["Name"] for one in distributions()}
    assert "pytest" not in found
    needs = {entry["ref"]: entry.get("dependsOn", []) for entry in bill["dependencies"]}
    assert f"torch@{version('torch')}" in needs["release"]
    assert set(needs["release"]) == {component["bom-ref"] for component in bill["components"]}


def test_the_project_has_the_licence_that_its_files_say(tmp_path, monkeypatch):
    """Out of its metadata as they are built from pyproject.toml today, whatever an earlier set-up has installed."""
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["setup.py"])
    built = tmp_path / "built"
    built.mkdir()
    metadata = PathDistribution(built / build_meta.prepare_metadata_for_build_wheel(str(built)))
    assert metadata.metadata["License-Expression"] == "Apache-2.0"
    assert metadata.metadata.get_all("License-File") == ["LICENSE", "NOTICE"]
    assert [one.id for one in licences_of(metadata)] == ["Apache-2.0"]


def test_a_bill_without_the_project_installed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tuneline.export.sbom.PROJECT", "no-such-project")
    with pytest.raises(ValueError, match="no-such-project is not installed.* run `make setup`"):
        write_sbom(tmp_path, "release", "0123abc", datetime(2026, 1, 2, tzinfo=UTC))
    assert not (tmp_path / SBOM).exists()
