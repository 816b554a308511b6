"""Terms of the base that a release is made of: what must go along with it, and what they forbid."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tuneline.cli.push.contents import ReleaseFile
from tuneline.formats.closed_folder import plain_files
from tuneline.formats.json_object import json_object
from tuneline.formats.notices import NAMES
from tuneline.models.config import Base
from tuneline.models.loading import BASE
from tuneline.runtime.params import load
from tuneline.runtime.params.user_path import user_path

NO_DERIVATIVES = re.compile(
    r"(?P<denied>(?:\bnot|\bunlike|\bthan|\binstead of|\bexcept|不是|并非|而非)\s*(?:(?:an?|the|under|licensed)\s+)*)?"
    r"(?P<said>\b(?:cc[- _]?)?by(?:[- _]nc)?[- _]nd\b|\bno[- ]?deriv(?:ative)?s?\b(?:[- ]works?)?"
    r"|may not alter, transform,? or build upon|[禁不](?:止|得|允许)演绎)",
    re.IGNORECASE,
)
"""As Creative Commons' texts, names and addresses say it; licences that deny it (`CC BY 4.0, not CC BY-ND`) are others."""
FRONT = re.compile(r"\A\ufeff?---\s*\n(.*?)\n---\s*$", re.DOTALL | re.MULTILINE)
"""A card's YAML."""
LICENCE = re.compile(r"(?m)^license(?:_name|_link)?:.*(?:\n[ \t-]+.*)*")


class Terms(NamedTuple):
    """Of a family of bases that are known to have some."""

    family: str
    model_types: frozenset[str]
    """Of config.json."""
    needed: str
    """Regular expression of what a notice or licence in the release must say."""
    remedy: str
    told: str
    """What whoever gets the model should know."""
    notice: str = ""
    """Where the terms say how their notice reads."""


KNOWN = (
    Terms(
        "Gemma",
        frozenset({"gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n", "gemma3n_text", "recurrent_gemma"}),
        r"Gemma Terms of Use|ai\.google\.dev/gemma/terms",
        "a NOTICE that names the Gemma Terms of Use (ai.google.dev/gemma/terms)",
        "made of Gemma: the Gemma Terms of Use bind whoever gets it; NOTICE, which goes along, says so",
        "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms\n",
    ),
    Terms(
        "GLM",
        frozenset({"chatglm", "glm", "glm4"}),
        r"(?i)licen[cs]e|许可|协议",
        "the base's own licence file (MODEL_LICENSE or LICENSE)",
        "made of a GLM model: its licence, which goes along, may ask for a registration before commercial use",
    ),
)


def add_notice(folder: Path) -> None:
    """Put the notice into a release that its base's terms ask for, where they say how it reads and none came with the base."""
    terms = _terms(folder / "config.json")
    if terms and terms.notice and not re.search(terms.needed, _text(plain_files(folder, *NAMES))):
        with (folder / "NOTICE").open("a", encoding="utf-8") as file:
            file.write(terms.notice)


def check_terms(files: Sequence[ReleaseFile]) -> str:
    """What to say about the base's terms. Raises ValueError where they forbid handing it out like this."""
    notices = [file.path for file in files if any(file.path.match(pattern) for pattern in NAMES)]
    text = _text(notices)
    for name, said in [*((path.name, _text([path])) for path in notices), *_cards(files, Path())]:
        if found := forbidden(said):
            raise ValueError(
                f"the base's terms say {found!r} ({name}): a tuned model is a derivative, and may not be passed on; ask "
                "whoever published the base"
            )
    terms = next((_terms(file.path) for file in files if file.name == "config.json"), None)
    if terms is None:
        return "" if notices else "no licence came with the base: see that it allows you to pass on a model made of it"
    if not re.search(terms.needed, text):
        raise ValueError(
            f"this model is made of a {terms.family} model, whose terms must go with it, and no notice here says so: put "
            f"{terms.remedy} beside the base's weights, run `dvc repro`, and make the release again"
        )
    return terms.told


def forbidden(text: str) -> str:
    """The words of terms that forbid derivatives; empty where there are none."""
    return next((one["said"] for one in NO_DERIVATIVES.finditer(" ".join(text.split())) if not one["denied"]), "")


def _cards(files: Sequence[ReleaseFile], project: Path) -> Iterator[tuple[str, str]]:
    """(file, what it says of the licence) of the cards of the release and of its base, as far as they are here."""
    cards = [file.path for file in files if file.name == "README.md"] + [project / BASE / "README.md"]
    if (project / "params.yaml").is_file():
        base = load(Base, project / "params.yaml")
        cards += _source_cards(base.source, base.revision)
    for card in cards:
        if card.is_file() and (front := FRONT.search(_text([card]))):
            yield str(card), "\n".join(LICENCE.findall(front[1]))


def _source_cards(source: str, revision: str | None) -> list[Path]:
    """The card in the base's folder, or that of a hub id where the hub's cache has it."""
    if source.startswith((".", "/", "~")):
        return [user_path(source) / "README.md"]
    if "/" not in source:
        return []
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source, "README.md", revision=revision)
    return [Path(found)] if isinstance(found, str) else []


def _terms(config: Path) -> Terms | None:
    """Those of the family that a model's config.json names. Raises ValueError for one that is no object."""
    model_type = json_object(config).get("model_type")
    if not isinstance(model_type, str):
        raise ValueError(f"{config}: model_type is {model_type!r}, expected a name such as 'gemma3_text'")
    return next((one for one in KNOWN if model_type in one.model_types), None)


def _text(notices: Iterable[Path]) -> str:
    return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in notices)
