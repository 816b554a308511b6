"""What several tests share is made once, and anew after a try that failed or was cut short."""

import subprocess

import pytest

from tests.helpers.first_run import made_once


def done(code: int) -> subprocess.CompletedProcess:
    return subprocess.CompletedProcess([], code, "said", "")


def test_a_second_try_begins_with_an_empty_folder_and_a_third_makes_nothing(tmp_path):
    folder, tries = tmp_path / "shared", []

    def make() -> subprocess.CompletedProcess:
        tries.append(1)
        assert list(folder.iterdir()) == []
        (folder / "project").mkdir()
        return done(1 if len(tries) == 1 else 0)

    with pytest.raises(AssertionError):
        made_once(folder, make)
    for _ in range(2):
        ran = made_once(folder, make)
        assert (ran.folder, ran.stdout, len(tries)) == (folder / "project", "said", 2)


def test_what_was_said_stands_whole_or_not_at_all(tmp_path, monkeypatch):
    folder = tmp_path / "shared"

    def cut(path, text):
        with path.open("w") as file:
            file.write(text[: len(text) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.write_text", cut)
        with pytest.raises(KeyboardInterrupt):
            made_once(folder, lambda: done(0))
    assert made_once(folder, lambda: done(0)).stdout == "said"
