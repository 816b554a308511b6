"""All sections of params.yaml: the stage `code` reads them all, so that no mistake waits for its stage."""

from tuneline.data.config import Data
from tuneline.evaluate.config import Evaluate
from tuneline.export.config import Export
from tuneline.fetch.config import Fetch
from tuneline.models.config import Base
from tuneline.runtime.params import PARAMS, Section, read_params, section_name
from tuneline.tokenize.config import Tokenize
from tuneline.train.sections import Load, load_config

SECTIONS: tuple[type[Section], ...] = (Fetch, Base, Data, Tokenize, Evaluate, Export)
"""Those that are not training's."""


def check_sections(load: Load) -> None:
    """Raises ValueError with everything that is wrong in any section, and for a section that nothing reads."""
    wrong: list[str] = []
    known: set[str] = set()

    def checked(section: type[Section]) -> None:
        known.add(section_name(section))
        try:
            load(section)
        except ValueError as error:
            wrong.append(str(error).removeprefix(f"{PARAMS}: "))

    for section in SECTIONS:
        checked(section)
    load_config(checked)  # type: ignore[arg-type]
    wrong += [
        f"section {name!r} is read by no stage, expected one of {', '.join(sorted(known))}"
        for name in read_params()
        if name not in known
    ]
    if wrong:
        raise ValueError(f"{PARAMS}: {'; '.join(wrong)}")
