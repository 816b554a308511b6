"""What a hub's failure is taken for: one that passes, one to mend, or a bug of ours; and that no key is shown."""

from types import SimpleNamespace

import pytest

from tuneline.cli.push.failures import Place, explained

PLACE = Place("the hub", "clinic/triage", "log in", "HUB_ENDPOINT")


class HubError(Exception):
    """As a client raises it."""

    def __init__(self, status: int | None, said: str) -> None:
        super().__init__(said)
        self.server_message = said
        self.response = SimpleNamespace(status_code=status)


class OfflineModeIsEnabled(Exception):  # noqa: N818
    """As huggingface_hub calls it."""


@pytest.mark.parametrize("status", [408, 425, 429, 500, 501, 502, 503, 504, 520, 522, 599])
def test_what_passes_is_a_connection_error(status):
    found = explained(HubError(status, "planted"), PLACE)
    assert isinstance(found, ConnectionError)
    assert f"fails at the moment (status {status}: planted)" in str(found)


@pytest.mark.parametrize(
    ("status", "said", "kind", "expected"),
    [
        (403, "rate limited, limit exceeded", ConnectionError, "fails at the moment"),
        (403, "You have exceeded the rate limit of your quota", ConnectionError, "fails at the moment"),
        (403, "Forbidden: maximum depth exceeded", ValueError, "may not write"),
        (403, "Private repository storage limit reached", ValueError, "no more room"),
        (403, "You have exceeded your private storage", ValueError, "no more room"),
        (400, "Storage quota exceeded", ValueError, "no more room"),
        (400, "仓库容量不足", ValueError, "no more room"),
        (400, "the name holds a space", ValueError, "refused"),
        (402, "", ValueError, "no more room"),
        (507, "", ValueError, "no more room"),
        (422, "planted", ValueError, "refused"),
    ],
)
def test_room_rate_and_rights_are_told_apart(status, said, kind, expected):
    found = explained(HubError(status, said), PLACE)
    assert isinstance(found, kind)
    assert expected in str(found)


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError("the read operation timed out"),
        ConnectionResetError("reset by peer"),
        RuntimeError("Xet upload failed"),
        OSError("error of the xet client: no session"),
    ],
)
def test_what_broke_off_is_a_connection_error(error):
    assert type(explained(error, PLACE)) is ConnectionError


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("no model foxet"),
        KeyError("xet"),
        ValueError("xet is no option"),
        OSError("xetmodel is no file"),
        FileNotFoundError(2, "No such file or directory", "models/xet/config.json"),
        PermissionError(13, "Permission denied"),
    ],
)
def test_others_stay_what_they_are(error):
    assert explained(error, PLACE) is error


def test_a_hub_that_is_not_to_be_asked_is_not_asked_again():
    found = explained(OfflineModeIsEnabled("offline"), PLACE)
    assert isinstance(found, ValueError)
    assert "set HF_HUB_OFFLINE=0" in str(found)


@pytest.mark.parametrize("key", ["hf_" + "aB3" * 10, "sk-" + "a1" * 12, "ms-01234567-89ab-cdef-0123-456789abcdef"])
@pytest.mark.parametrize("status", [400, 503, None])
def test_a_hubs_words_are_shown_without_keys(key, status):
    error = HubError(status, f"bad header: Bearer {key} at {'x' * 400}")
    wrapped = ConnectionError() if status is None else error
    wrapped.__cause__ = error if status is None else None
    said = str(explained(wrapped, PLACE))
    assert "bad header: Bearer *** at" in said
    assert key not in said
