"""A release is pushed whole, in one commit, to a stand-in of either hub, or not at all; what must not leave stays."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.helpers.model_hub import CUT, READER, TOKEN, Hub, Repo, serving
from tests.helpers.paths import ROOT
from tuneline.cli.push import remote as pushing
from tuneline.cli.push.destination import destination, push_release
from tuneline.cli.push.hugging_face import HuggingFace
from tuneline.cli.push.terms import add_notice
from tuneline.cli.release import main as release_command
from tuneline.runtime.hashing import file_sha256, write_sums

REPO = "clinic/triage"
GEMMA = "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms.\n"
QUESTION = "孩子发烧三天，今天早上开始咳嗽，晚上咳得更厉害，应该挂哪个科？"
PUSHED_IN_A_PROCESS = """
import sys
from pathlib import Path
from tuneline.cli.push.contents import release_files
from tuneline.cli.push.hugging_face import HuggingFace
from tuneline.cli.push.terms import add_notice
from tuneline.cli.release import main as release_command
from tuneline.cli.push.remote import push
push(release_files(Path(sys.argv[2])), HuggingFace("clinic/triage", sys.argv[1]), public=False, replace=False)
"""


def record(question: str, answer: str, *, system: str = "", **more) -> dict:
    """A row as `convert` writes it."""
    said = [("system", system)] if system else []
    said += [("user", question), ("assistant", answer)]
    messages = [{"role": role, "content": content} for role, content in said]
    return {"id": "a:1", "source": "a", "origin": "a.csv:1", "task": "qa", "messages": messages} | more


def write_rows(name: str, *rows: dict) -> None:
    path = Path(f"data/processed/{name}.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def release(tmp_path, monkeypatch) -> Path:
    """A project's release, in the working directory, with some of the project beside it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma3_text"}))
    (folder / "README.md").write_text("---\nlanguage: zh\n---\n# A model\n", encoding="utf-8")
    (folder / "NOTICE").write_text(GEMMA)
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        (folder / name).write_bytes(name.encode() * 200)
    write_sums(folder)
    for name in ("train", "heldout"):
        write_rows(name, record(QUESTION, "儿科", task="label"))
    (tmp_path / "reviews").mkdir()
    (tmp_path / "reviews/wang-fang.jsonl").write_text("")
    return folder


@pytest.fixture(params=["hf", "modelscope"])
def hub(request, monkeypatch):
    """A stand-in, and by `hub.remote(REPO)` what pushes to it."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    made = Hub()
    with serving(made) as address:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
        monkeypatch.setattr(pushing, "WAIT", 0.0)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("MODELSCOPE_API_TOKEN", TOKEN)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", address)
        made.hugging_face = request.param == "hf"
        if made.hugging_face:
            made.remote = lambda repo: HuggingFace(repo, address)
        else:
            pytest.importorskip("modelscope_hub")
            made.remote = lambda repo: destination(f"modelscope:{repo}")
        yield made


def push(folder: Path, hub: Hub, *, public: bool = False, replace: bool = False) -> str:
    return push_release(folder, hub.remote(REPO), public=public, replace=replace)


def held(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_release_is_pushed_whole_in_one_commit_and_private(release, hub, capsys):
    said = push(release, hub)
    repo = hub.repos[REPO]
    assert held(release).items() <= repo.files.items()
    assert (repo.private, repo.commits, hub.uploads()) == (True, 2, 2)
    assert said.startswith("6 files, 0.0 MB are at http://127.0.0.1:") and said.endswith("compared one by one; private")
    assert "Gemma Terms of Use bind whoever gets it" in capsys.readouterr().err
    hub.asked.clear()
    assert push(release, hub).endswith("holds this release already; private")
    assert (repo.commits, hub.uploads()) == (2, 0)


def test_public_is_asked_and_comes_last(release, hub, monkeypatch):
    monkeypatch.setattr("typer.confirm", lambda question, err: False)
    with pytest.raises(ValueError, match="not pushed: --public was not confirmed"):
        push(release, hub, public=True)
    assert hub.repos == {}
    monkeypatch.setattr("typer.confirm", lambda question, err: "Everybody will see 6 files" in question)
    hub.faults = lambda method, path: 400 if "/commit/" in path else None
    with pytest.raises(ValueError, match=r"refused clinic/triage \(status 400"):
        push(release, hub, public=True)
    assert "config.json" not in hub.repos[REPO].files
    if hub.hugging_face:
        assert hub.repos[REPO].private, "an unfinished repository was public"
    hub.faults = lambda method, path: None
    assert push(release, hub, public=True).endswith("; public")
    assert not hub.repos[REPO].private
    with pytest.raises(ValueError, match=r"clinic/triage is public on .*: say --public"):
        push(release, hub)


def test_what_else_is_there_is_not_overwritten_unasked(release, hub):
    push(release, hub)
    (release / "model-00002-of-00002.safetensors").unlink()
    (release / "config.json").write_text(json.dumps({"model_type": "gemma3_text", "new": 1}))
    write_sums(release)
    before = dict(hub.repos[REPO].files)
    with pytest.raises(
        ValueError, match=r"holds something else \(first SHA256SUMS\): name another repository, or say --replace"
    ):
        push(release, hub)
    assert hub.repos[REPO].files == before
    push(release, hub, replace=True)
    assert held(release).items() <= hub.repos[REPO].files.items()
    assert "model-00002-of-00002.safetensors" not in hub.repos[REPO].files
    assert hub.repos[REPO].commits == 3


def test_failures_of_a_moment_pass(release, hub):
    left = {"commit": 2, "blobs": 2}

    def faults(method: str, path: str) -> int | None:
        kind = next((kind for kind in left if f"/{kind}/" in path), None)
        if kind is None or not left[kind]:
            return None
        left[kind] -= 1
        return 503 if left[kind] else CUT

    hub.faults = faults
    push(release, hub)
    assert (held(release).items() <= hub.repos[REPO].files.items(), hub.repos[REPO].commits) == (True, 2)


def test_every_request_may_fail_twice(release, hub):
    failed: dict[tuple[str, str], int] = {}

    def faults(method: str, path: str) -> int | None:
        request = (method, path.partition("?")[0])
        failed[request] = failed.get(request, 0) + 1
        return 503 if failed[request] <= 2 else None

    hub.faults = faults
    push(release, hub)
    assert held(release).items() <= hub.repos[REPO].files.items()
    assert (hub.repos[REPO].commits, len(failed) >= 6) == (2, True)


def test_a_hub_that_is_down_is_asked_six_times(release, hub, monkeypatch):
    waited: list[float] = []
    monkeypatch.setattr(pushing, "WAIT", 2.0)
    # The clients have waits of their own.
    monkeypatch.setattr(pushing, "time", SimpleNamespace(sleep=waited.append))
    down: list[str] = []

    def faults(method: str, path: str) -> int | None:
        down.extend([path] if "/commit/" in path else [])
        return 503 if down else None

    hub.faults = faults
    with pytest.raises(ConnectionError, match="run the same command again"):
        push(release, hub)
    assert waited == [2, 4, 8, 16, 32]


def test_a_commit_whose_answer_is_lost_is_not_made_twice(release, hub):
    answer, lost = hub.answer, []

    def forgetful(method: str, path: str, token: str, content: bytes):
        found = answer(method, path, token, content)
        if "/commit/" in path and not lost:
            lost.append(path)
            return found._replace(status=CUT)
        return found

    hub.answer = forgetful
    push(release, hub)
    assert (len(lost), hub.repos[REPO].commits) == (1, 2)


def test_a_hub_that_keeps_failing_is_named_and_shows_nothing(release, hub):
    hub.faults = lambda method, path: 502 if "/commit/" in path else None
    with pytest.raises(ConnectionError, match=r"fails at the moment \(status 502.*run the same command again later"):
        push(release, hub)
    assert "config.json" not in hub.repos[REPO].files
    hub.faults = lambda method, path: None
    hub.asked.clear()
    push(release, hub)
    assert (hub.uploads(), hub.repos[REPO].commits) == (0, 2)


@pytest.mark.parametrize(
    ("token", "status", "expected"),
    [
        ("wrong", None, "does not accept the token: `(hf auth|modelscope) login` or "),
        (READER, None, "this token may not write to clinic/triage on "),
        (TOKEN, 413, r"has no more room for clinic/triage \("),
        (TOKEN, CUT, r"can't be reached \(.*run the same command again, which goes on"),
    ],
)
def test_refusals_say_what_to_do(release, hub, monkeypatch, token, status, expected):
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", token)
    hub.repos[REPO] = Repo(private=True)
    hub.faults = lambda method, path: status if "/commit/" in path else None
    with pytest.raises((ValueError, ConnectionError), match=expected):
        push(release, hub)
    assert hub.repos[REPO].files == {}


def test_a_file_that_the_hub_keeps_otherwise_is_told(release, hub):
    hub.spoilt = {"config.json"}
    with pytest.raises(
        ValueError, match=r"lists other files than were pushed: config.json has 6 bytes, expected 29; push again"
    ):
        push(release, hub)


def test_someone_elses_commit_in_between_is_not_lost(release, hub):
    if not hub.hugging_face:
        pytest.skip("ModelScope's commits have no parent to compare")
    hub.repos[REPO] = Repo(private=True)

    def faults(method: str, path: str) -> None:
        hub.repos[REPO].commits += "/commit/" in path

    hub.faults = faults
    with pytest.raises(ValueError, match="was changed by someone else meanwhile: look at it, then push again"):
        push(release, hub)


@pytest.mark.parametrize("hub", ["hf"], indirect=True)
def test_a_push_that_is_killed_goes_on(release, hub):
    """It dies with the first file up and the second on its way."""
    second, killed = threading.Event(), threading.Event()

    stuck = file_sha256(release / "model-00002-of-00002.safetensors")

    def faults(method: str, path: str) -> int | None:
        if not path.endswith(stuck):
            return None
        while not hub.blobs:
            killed.wait(0.02)
        second.set()
        killed.wait(20)
        return CUT

    hub.faults = faults
    env = os.environ | {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", PUSHED_IN_A_PROCESS, hub.address, str(release)], env=env) as process:
        assert second.wait(60)
        process.send_signal(signal.SIGKILL)
    killed.set()
    assert (len(hub.blobs), hub.repos[REPO].commits) == (1, 1)
    assert hub.repos[REPO].files.keys() == {".gitattributes"}
    hub.faults = lambda method, path: None
    hub.asked.clear()
    push(release, hub)
    assert (hub.uploads(), hub.repos[REPO].commits) == (1, 2)


class Nowhere:
    """A remote that must not be reached."""

    repo, place = REPO, "nowhere"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "README.md",
            f"# A model\n\nSo hat: {QUESTION}\n",
            r"README.md holds text of row 1 of data/processed/train.jsonl",
        ),
        ("README.md", "# A model\n\nChecked by wang-fang.\n", r"README.md names a rater of reviews/"),
        ("lineage.json", json.dumps({"base": "/home/fang/bases/glm"}), "lineage.json names a folder of this machine"),
        ("config.json", json.dumps({"a": "hf_" + "a" * 34}), "config.json holds a key"),
        ("train.jsonl", "{}\n", "train.jsonl is no file of a model, so it is not pushed: take it out of the folder"),
        ("NOTICE", "Apache-2.0\n", "made of a Gemma model, whose terms must go with it, and no notice here says so"),
        ("NOTICE", f"{GEMMA}CC BY-NC-ND 4.0\n", "the base's terms say 'CC BY-NC-ND'"),
    ],
)
def test_what_must_not_leave_stays(release, name, text, expected):
    (release / name).write_text(text, encoding="utf-8")
    write_sums(release)
    with pytest.raises(ValueError, match=expected):
        push_release(release, Nowhere(), public=False, replace=False)


def test_a_folder_that_is_not_as_its_sums_say_is_not_pushed(release):
    (release / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"is not the release that was made: config.json has changed"):
        push_release(release, Nowhere(), public=False, replace=False)


def test_where_to_is_checked_at_once(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(
        ValueError, match=r"no token for .*: run `hf auth login`, or set HF_TOKEN, with one that may write"
    ):
        destination("clinic/triage")
    with pytest.raises(ValueError, match="--push is 'triage', expected owner/name, or modelscope:owner/name"):
        destination("triage")
    with pytest.raises(ValueError, match="expected --push owner/name beside them"):
        release_command(public=True)
    monkeypatch.setitem(sys.modules, "modelscope_hub", None)
    with pytest.raises(ValueError, match="ModelScope's library is not installed: uv pip install modelscope-hub"):
        destination("modelscope:clinic/triage")


def test_a_notice_whose_words_are_known_is_added_once(release):
    (release / "NOTICE").write_text("Quantised by us.\n")
    add_notice(release)
    add_notice(release)
    text = (release / "NOTICE").read_text()
    assert text.startswith("Quantised by us.\nGemma is provided under and subject to the Gemma Terms of Use found at")
    assert text.count("Gemma Terms of Use") == 1
