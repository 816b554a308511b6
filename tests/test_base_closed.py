"""A base's, adapter's or merged model's folder is one closed thing: each hostile one is one sentence, or gives the right model."""

import re
import shutil
from pathlib import Path

import pytest

import stages.base
from tests.helpers.hostile_bases import LISTED
from tests.helpers.stages import run_main
from tests.helpers.tiny_models import base_section, canonical
from tuneline.runtime.hashing import file_sha256

ITSELF = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
"""Files of a base that are the model."""


@pytest.fixture(scope="module")
def sound(raw_base, tmp_path_factory) -> dict[str, str]:
    """Hashes of the files that the sound checkpoint becomes."""
    folder = canonical(raw_base, tmp_path_factory.mktemp("sound") / "base", "bfloat16")
    return {name: file_sha256(folder / name) for name in ITSELF}


def section_of(source: Path) -> dict:
    """Section `base` with the folder's hash, where it has one."""
    try:
        return base_section(source)
    except (OSError, ValueError):
        return base_section(source.parent / "none") | {"source": str(source)}


def made(name: str, raw_base: Path, folder: Path) -> Path:
    """The hostile folder, two levels down, as the hub's cache has it."""
    source = folder / "hub/snapshots/0123"
    source.parent.mkdir(parents=True)
    shutil.copytree(raw_base, source)
    LISTED[name].make(source)
    return source


@pytest.mark.parametrize("name", LISTED)
def test_a_hostile_folder_is_one_sentence_or_the_right_base(workspace, raw_base, sound, tmp_path, name):
    source = made(name, raw_base, tmp_path)
    workspace(base=section_of(source))
    expected = LISTED[name].said
    if not expected:
        run_main(stages.base)
        assert {one: file_sha256(Path("models/base") / one) for one in ITSELF} == sound
        for notice in source.glob("NOTICE"):
            assert Path("models/base/NOTICE").read_bytes() == notice.read_bytes()
        return
    with pytest.raises(ValueError, match=expected) as error:
        run_main(stages.base)
    assert re.search(r"base.source|of the base", str(error.value))
    assert len(str(error.value)) < 1500
    assert not Path("models").exists() or not list(Path("models").iterdir())
