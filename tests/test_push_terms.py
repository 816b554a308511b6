"""Terms that forbid derivatives are told from those that do not, wherever a base says them."""

import json
from pathlib import Path

import pytest

from tuneline.cli.push.contents import release_files
from tuneline.cli.push.terms import add_notice, check_terms, forbidden
from tuneline.cli.release import check_present
from tuneline.runtime.hashing import write_sums

BASE = """\
base:
  source: {source}
  revision: {revision}
  sha256: null
  dtype: bfloat16
  max_perplexity_zh: 100
  max_perplexity_en: 20
"""


@pytest.mark.parametrize(
    "text",
    [
        "Creative Commons Attribution-NonCommercial-NoDerivatives 4.0 International",
        "Creative Commons Attribution-NoDerivs 3.0 Unported",
        "Attribution-NonCommercial-NoDerivs 2.5 China Mainland",
        "Attribution-Noncommercial-No Derivative Works 3.0 United States",
        "No Derivative Works. You may not alter, transform, or build upon this work.",
        "You may not alter, transform or build upon this work.",
        "No Derivatives — If you remix the material, you may not distribute the modified material.",
        "no\nderivatives",
        "CC BY-ND 4.0",
        "CC BY-NC-ND 4.0",
        "cc-by-nc-nd-4.0",
        "CC-BY-ND-3.0",
        "CC BY NC ND",
        "https://creativecommons.org/licenses/by-nc-nd/4.0/",
        "http://creativecommons.org/licenses/by-nd/3.0/legalcode",
        "署名-非商业性使用-禁止演绎 4.0 国际",
        "本模型不得演绎",
        "CC BY 4.0, not CC BY-ND. Weights: CC BY-NC-ND 4.0",
        "Not for commercial use: CC BY-NC-ND 4.0",
    ],
)
def test_terms_that_forbid_derivatives(text):
    assert forbidden(f"The weights are under\n{text}.\n")


@pytest.mark.parametrize(
    "text",
    [
        "cc by 4.0; not CC BY-ND",
        "CC BY-SA 4.0, unlike CC BY-NC-ND 4.0",
        "This is CC BY, and not licensed under CC BY-ND",
        "采用 CC BY 4.0，而非 CC BY-ND",
        "https://creativecommons.org/licenses/by-nc/4.0/",
        "https://creativecommons.org/licenses/by-nc-sa/4.0/",
        "cc-by-nc-4.0",
        "Apache License 2.0: You may reproduce and distribute copies of the Work or Derivative Works thereof",
        "Derivative Works shall not include works that remain separable from the Work",
        "You own the derivative works and modifications of the Llama Materials that are made by you",
        "MIT License",
        "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms",
        "standby, nd. and by Andy; no derived data",
    ],
)
def test_terms_that_do_not(text):
    assert forbidden(f"The weights are under\n{text}.\n") == ""


@pytest.fixture
def release(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "LICENSE").write_text("MIT License\n")
    return folder


def check(folder: Path) -> str:
    write_sums(folder)
    return check_terms(release_files(folder))


@pytest.mark.parametrize(
    "front",
    [
        "license: cc-by-nc-nd-4.0",
        "language: zh\nlicense: other\nlicense_name: cc-by-nd-3.0",
        "license: other\nlicense_link: https://creativecommons.org/licenses/by-nd/4.0/",
        "license:\n- mit\n- cc-by-nd-4.0\nlanguage: zh",
    ],
)
@pytest.mark.parametrize("place", ["release", "models/base", "bases/mine"])
def test_a_card_that_forbids_derivatives_stops_the_push(release, front, place):
    card = Path(place, "README.md")
    card.parent.mkdir(parents=True, exist_ok=True)
    card.write_text(f"---\n{front}\n---\n# A base\n", encoding="utf-8")
    Path("params.yaml").write_text(BASE.format(source="./bases/mine", revision="null"))
    with pytest.raises(
        ValueError, match=r"the base's terms say '.*nd.*' \(.*README.md\): a tuned model is a derivative"
    ):
        check(release)


def test_a_card_of_the_hubs_cache_is_read(release, monkeypatch, tmp_path):
    card = tmp_path / "cached.md"
    card.write_text("---\nlicense: cc-by-nd-4.0\n---\n")
    Path("params.yaml").write_text(BASE.format(source="clinic/base", revision="a" * 40))
    asked = []

    def cached(repo: str, name: str, *, revision: str) -> str:
        asked.append((repo, name, revision))
        return str(card)

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", cached)
    with pytest.raises(ValueError, match="the base's terms say 'cc-by-nd'"):
        check(release)
    assert asked == [("clinic/base", "README.md", "a" * 40)]


def test_what_a_card_tells_of_other_licences_does_not_stop_it(release):
    text = "---\nlicense: apache-2.0\ntags:\n- by-nd\n---\n# A base\n\nIts data were CC BY-ND, and were left out.\n"
    (release / "README.md").write_text(text)
    Path("params.yaml").write_text(BASE.format(source="gemma-3-270m", revision="null"))
    assert check(release) == ""


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ('{"model_type": ["gemma3"]}', r"config.json: model_type is \['gemma3'\], expected a name"),
        ("{}", "config.json: model_type is None, expected a name"),
        ("[]", "config.json holds list, expected an object"),
        ("{", "config.json is no JSON"),
    ],
)
@pytest.mark.parametrize("checked", [check, add_notice])
def test_a_config_that_is_none_is_named(release, checked, config, expected):
    (release / "config.json").write_text(config)
    with pytest.raises(ValueError, match=expected):
        checked(release)


@pytest.mark.parametrize(("text", "expected"), [("[]", "holds list, expected an object"), ("{", "is no JSON")])
def test_a_lineage_that_is_none_is_named(release, monkeypatch, text, expected):
    monkeypatch.setattr("tuneline.cli.release.problems", lambda folder: [])
    (release / "release.json").write_text(text)
    with pytest.raises(ValueError, match=rf"release.json {expected}"):
        check_present(release, gguf=False)
