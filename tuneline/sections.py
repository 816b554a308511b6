"""All sections of params.yaml: the stage `code` reads them all, so that no mistake waits for its stage."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from tuneline.data.config import Data
from tuneline.evaluate.config import Evaluate
from tuneline.export.config import Export
from tuneline.fetch.config import Fetch
from tuneline.models.config import Base
from tuneline.runtime.params import PARAMS, S, Section, read_params, section_name
from tuneline.tokenize.config import Tokenize
from tuneline.train.sections import Load, TrainingConfig, check_method_options, load_config, needs_rows

SECTIONS: tuple[type[Section], ...] = (Fetch, Base, Data, Tokenize, Evaluate, Export)
"""Those that are not training's."""


def check_sections(load: Load) -> None:
    """Raises ValueError with everything that is wrong in any section, and for a section that nothing reads."""
    wrong: list[str] = []
    known: set[str] = set()

    def checked(section: type[S]) -> S | None:
        known.add(section_name(section))
        with noted(wrong):
            return load(section)
        return None

    loaded = {section: checked(section) for section in SECTIONS}
    config = load_config(checked)  # type: ignore[arg-type]
    wrong += [
        f"section {name!r} is read by no stage, expected one of {', '.join(sorted(known))}"
        for name in read_params()
        if name not in known
    ]
    if not wrong:
        check_together(config, cast("Data", loaded[Data]), wrong)
    if wrong:
        raise ValueError(f"{PARAMS}: {'; '.join(wrong)}")


@contextmanager
def noted(wrong: list[str]) -> Iterator[None]:
    """Add the message of a ValueError to what is wrong."""
    try:
        yield
    except ValueError as error:
        wrong.append(str(error).removeprefix(f"{PARAMS}: "))


def check_together(config: TrainingConfig, data: Data, wrong: list[str]) -> None:
    """Add what values of several sections make impossible together, whatever the base, the rows and the machine."""
    train = config.train
    with noted(wrong):
        check_method_options(config.method, train)
    if train.init is None and train.init_sha256 is not None:
        wrong.append("train.init_sha256 is set and train.init is null: set both, or neither")
    if train.replay is not None and not data.arrivals.grows:
        wrong.append(f"train.replay is {train.replay:g}, expected null where no source of data.sources has `since`")
    if not train.eval_fraction and data.validation_source is None:
        wrong += needs_rows(train)
    if train.eval_fraction and data.validation_source is not None:
        wrong.append(
            f"train.eval_fraction is {train.eval_fraction:g}, expected 0: data.validation_source gives the rows to validate on"
        )
