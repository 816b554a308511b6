"""Resume state: only a whole, untouched checkpoint of exactly this run is ever used."""

import stat
from pathlib import Path

import pytest

from tuneline.runtime.params import load
from tuneline.train.checkpoints import newest_complete, scratch_folder, write_manifest
from tuneline.train.lineage import fingerprint, lineage_of
from tuneline.train.sections import load_config


def checkpoint(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    (path / "global_step").mkdir(parents=True)
    for name in ("adapter.safetensors", "rng_state.pth", "global_step/optim.pt"):
        (path / name).write_bytes(f"{name} {step}".encode() * 10)
    write_manifest(path)
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


def test_anything_that_determines_the_result_changes_the_fingerprint(workspace, monkeypatch):
    def found(processes: int = 1, code: str = "a", device: str = "cpu") -> str:
        lineage = lineage_of(load_config(load), Path("tokens"), Path(), {"tuneline/train/run.py": code})
        return fingerprint(lineage, processes, {"device": device})

    Path("tokens").write_text("a")
    Path("SHA256SUMS").write_text("a")
    first = found()
    assert found() == first
    assert len({first, found(processes=2), found(code="b"), found(device="cuda")}) == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert found() != first
    monkeypatch.delenv("OMP_NUM_THREADS")
    first = found()
    workspace(lora={"r": 3})
    assert found() != first
    workspace(lora={"r": 16})
    assert found() == first
    for name in ("tokens", "SHA256SUMS"):
        Path(name).write_text("b")
        assert found() != first
        Path(name).write_text("a")


def test_the_folder_is_private(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNELINE_SCRATCH", str(tmp_path))
    with scratch_folder("a" * 64) as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not folder.exists()


def test_the_folder_stays_when_its_run_did_not_come_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNELINE_SCRATCH", str(tmp_path))
    with pytest.raises(KeyError), scratch_folder("a" * 64):
        raise KeyError
    (folder,) = (tmp_path / "train").iterdir()
    monkeypatch.setattr("tuneline.runtime.cache.os.getuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(ValueError, match="belongs to another user"), scratch_folder("a" * 64):
        pass
