"""An adapter from elsewhere in the pipeline, and training that goes on from a revision's, as a user of DVC does both."""

import json
from pathlib import Path

import pytest

from tests.helpers.commands import dvc, git, python
from tests.helpers.foreign_adapters import LORA, VERSIONS, plain_tensors, write_adapter
from tests.helpers.pipeline import load, ran, set_param

pytestmark = [pytest.mark.story, pytest.mark.matrix]


def tuneline(project: Path, *arguments: str) -> str:
    result = python(project, "-m", "tuneline", *arguments)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_an_imported_adapter_is_evaluated_and_exported_and_a_revisions_is_gone_on_from(project):
    dvc(project, "repro")
    git(project, "add", "-A")
    git(project, "commit", "-q", "-m", "Trained")
    trained = git(project, "rev-parse", "HEAD").strip()
    before = load(project, "metrics/eval.json")
    # From elsewhere, for the terminal as it is.
    write_adapter(project / "theirs", LORA | VERSIONS["0.4"], plain_tensors(project / "models/base"))
    said = json.loads(
        tuneline(project, "chat", "--model", "./theirs", "--prompt", "感冒怎么办", "--max-new-tokens", "4", "--json")
    )
    assert said["model"] == "./theirs"
    # And in the pipeline: what follows train goes on from it, and nothing else runs.
    assert "now run `dvc commit --force train`, then `dvc repro`" in tuneline(project, "import-adapter", "./theirs")
    dvc(project, "commit", "--force", "train")
    assert sorted(ran(dvc(project, "repro"))) == ["evaluate", "export", "report"]
    assert ran(dvc(project, "repro")) == []
    assert load(project, "metrics/eval.json") != before
    assert load(project, "models/merged/lineage.json")["imported"]["name"] == "theirs"
    assert "an adapter from elsewhere, `theirs`" in (project / "models/merged/README.md").read_text(encoding="utf-8")
    assert "加上别处训练的适配器（theirs）" in (project / "metrics/report.html").read_text(encoding="utf-8").replace(
        " ", ""
    )
    git(project, "add", "-A", "--", ":!theirs")
    git(project, "commit", "-q", "-m", "Imported")
    # Training goes on from the first commit's adapter, which is in DVC's cache alone now.
    set_param(project, "train", init=f"rev:{trained}")
    result = dvc(project, "repro")
    assert sorted(ran(result)) == ["code", "evaluate", "export", "report", "train"]
    lineage = load(project, "models/adapter/lineage.json")
    assert lineage["init"]["from"] == f"rev:{trained}"
    assert lineage["init"]["lineage"]["params"]["lora"]["r"] == 4
    assert "imported" not in lineage
    assert ran(dvc(project, "repro")) == []
    # A name may come to mean another adapter, so it needs the hash.
    set_param(project, "train", init="rev:HEAD~1")
    failed = python(project, "-m", "dvc", "repro", "train")
    assert failed.returncode != 0
    assert f"whose sha256 is {lineage['init']['sha256']}, and train.init_sha256 is None" in failed.stderr
    set_param(project, "train", init="rev:HEAD~1", init_sha256=lineage["init"]["sha256"])
    assert "train" in ran(dvc(project, "repro", "train"))
    assert load(project, "models/adapter/lineage.json")["init"]["sha256"] == lineage["init"]["sha256"]
