"""Resume state: only a whole, untouched checkpoint of exactly this run is ever used."""

import stat
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from tuneline.train.checkpoints import fingerprint, newest_complete, scratch_folder, seal


def checkpoint(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    (path / "global_step").mkdir(parents=True)
    for name in ("adapter.safetensors", "rng_state.pth", "global_step/optim.pt"):
        (path / name).write_bytes(f"{name} {step}".encode() * 10)
    seal(path)
    return path


def test_the_newest_whole_checkpoint_is_used(tmp_path):
    assert newest_complete(tmp_path) is None
    checkpoint(tmp_path, 2)
    ten = checkpoint(tmp_path, 10)
    assert newest_complete(tmp_path) == ten


@pytest.mark.parametrize("name", ["adapter.safetensors", "rng_state.pth", "global_step/optim.pt", "manifest.json"])
@pytest.mark.parametrize("damage", ["deleted", "truncated", "flipped"])
def test_a_damaged_one_is_skipped_with_a_warning_and_the_older_used(tmp_path, capsys, name, damage):
    older, newer = checkpoint(tmp_path, 2), checkpoint(tmp_path, 4)
    path = newer / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    {
        "deleted": path.unlink,
        "truncated": lambda: path.write_bytes(content[:5]),
        "flipped": lambda: path.write_bytes(content),
    }[damage]()
    assert newest_complete(tmp_path) == older
    assert "checkpoint-4 is not used" in capsys.readouterr().err
    assert not newer.exists()


def test_an_added_file_is_damage_too(tmp_path):
    path = checkpoint(tmp_path, 2)
    (path / "more.pt").write_text("x")
    assert newest_complete(tmp_path) is None


def test_anything_that_determines_the_result_changes_the_fingerprint(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (tmp_path / "tokens").write_text("a")
    inputs, sections = {"tokens": tmp_path / "tokens"}, {"Lora": {"r": 8}}
    first = fingerprint(inputs, sections, 1)
    assert fingerprint(inputs, sections, 1) == first
    assert fingerprint(inputs, {"Lora": {"r": 16}}, 1) != first
    assert fingerprint(inputs, sections, 2) != first
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert fingerprint(inputs, sections, 1) != first
    monkeypatch.undo()
    monkeypatch.chdir(ROOT)
    (tmp_path / "tokens").write_text("b")
    assert fingerprint(inputs, sections, 1) != first


def test_the_folder_is_private(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNELINE_SCRATCH", str(tmp_path))
    folder = scratch_folder("a" * 64)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    monkeypatch.setattr("tuneline.train.checkpoints.os.getuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(ValueError, match="belongs to another user"):
        scratch_folder("a" * 64)
