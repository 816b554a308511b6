"""Where training curves are reported: transformers' integrations, and DVCLive by a callback of our own."""

from typing import Any

from tuneline.train.config.train import Train

DVCLIVE = "dvclive"


def check_reports(names: list[str]) -> None:
    """Raises ValueError for a name of `train.report_to` that transformers does not know, or that is not installed."""
    from transformers.integrations import get_available_reporting_integrations
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    wrong = sorted(set(names) - set(INTEGRATION_TO_CALLBACK))
    if wrong:
        raise ValueError(f"train.report_to holds {wrong}, expected some of {sorted(INTEGRATION_TO_CALLBACK)}")
    missing = sorted(set(names) - set(get_available_reporting_integrations()))
    if missing:
        raise ValueError(f"train.report_to holds {missing}, which is not installed: uv pip install {' '.join(missing)}")


def report_callbacks(params: Train) -> list[Any]:
    """Callbacks for what transformers reports wrongly."""
    if DVCLIVE not in params.report_to:
        return []
    from tuneline.train.trainer.dvclive_callback import DVCLiveCallback

    return [DVCLiveCallback()]
