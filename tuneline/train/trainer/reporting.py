"""Where training curves are reported: transformers' integrations, and DVCLive by a callback of our own."""

from typing import Any

from tuneline.runtime.hashing import SUMS, hashes
from tuneline.train.lineage import without_folders
from tuneline.train.process_arguments import Paths
from tuneline.train.sections import TrainingConfig

DVCLIVE = "dvclive"


def check_reports(names: list[str]) -> None:
    """Raises ValueError for a name of `train.report_to` that is not known, not installed or can't work here."""
    from transformers.integrations import get_available_reporting_integrations
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    wrong = sorted(set(names) - set(INTEGRATION_TO_CALLBACK))
    if wrong:
        raise ValueError(f"train.report_to holds {wrong}, expected some of {sorted(INTEGRATION_TO_CALLBACK)}")
    missing = sorted(set(names) - set(get_available_reporting_integrations()))
    if missing:
        raise ValueError(f"train.report_to holds {missing}, which is not installed: uv pip install {' '.join(missing)}")
    if DVCLIVE in names and _has_no_commit():
        raise ValueError(
            "train.report_to holds 'dvclive', expected a git repository with a commit for it: make the first one"
        )


def _has_no_commit() -> bool:
    """Whether the folder is in a git repository that is empty yet; DVCLive works in one with commits, and in none."""
    from scmrepo.exceptions import SCMError
    from scmrepo.git import Git

    try:
        repository = Git()
    except SCMError:
        return False
    with repository:
        return bool(repository.no_commits)


def report_callbacks(config: TrainingConfig, paths: Paths) -> list[Any]:
    """Callbacks for what transformers reports wrongly, or not at all."""
    names, callbacks = config.train.report_to, list[Any]()
    if DVCLIVE in names:
        from tuneline.train.trainer.dvclive_callback import DVCLiveCallback

        callbacks.append(DVCLiveCallback())
    if names:
        from tuneline.train.trainer.trackers import TrackedFactsCallback, facts_of, start_runs

        start_runs(names)
        facts = facts_of(without_folders(config.to_params()), hashes([paths.tokens, paths.base / SUMS]))
        callbacks.append(TrackedFactsCallback(facts, names))
    return callbacks
