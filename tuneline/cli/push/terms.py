"""Terms of the base that a release is made of: what must go along with it, and what they forbid."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from tuneline.cli.push.contents import ReleaseFile
from tuneline.formats.closed_folder import plain_files
from tuneline.formats.notices import NAMES

NO_DERIVATIVES = re.compile(r"\bcc[- ]by(?:[- ]nc)?[- ]nd\b|no[- ]?derivatives|禁止演绎", re.IGNORECASE)


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
    if found := NO_DERIVATIVES.search(text):
        raise ValueError(
            f"the base's terms say {found[0]!r} ({', '.join(path.name for path in notices)}): a tuned model is a derivative, "
            "and may not be passed on; ask whoever published the base"
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


def _terms(config: Path) -> Terms | None:
    """Those of the family that a model's config.json names."""
    model_type = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    return next((one for one in KNOWN if model_type in one.model_types), None)


def _text(notices: Iterable[Path]) -> str:
    return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in notices)
