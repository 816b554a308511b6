"""Servers of a base whose template has a switch for thoughts: right ones, and one that refuses to be told."""

import pytest
import torch
from typer.testing import CliRunner

from tests.helpers.chat_templates import HYBRID
from tests.helpers.fake_server import Said, fake_server
from tests.helpers.model_server import ModelServer
from tests.helpers.served_project import at, make_project, served
from tuneline.cli.app import app
from tuneline.models.loading import load_adapter, load_model, load_tokenizer


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("hybrid"), "chatml", HYBRID)


@pytest.fixture(scope="module")
def parts(project):
    network = load_adapter(load_model(project / "models/base", torch.float32), project / "models/adapter")
    return network, load_tokenizer(project / "models/base")


@pytest.mark.parametrize("tells", ["all", "counts"])
def test_no_false_alarm(project, parts, tells):
    right = ModelServer(*parts, tells=tells)

    def told(asked):
        # Ours as any server's: fields that it does not know are left out, and said to be.
        return Said(400, {"detail": "unknown: seed"}) if "seed" in (asked.body or {}) else right(asked)

    with fake_server(told) as url:
        status, values = served(project, url)
    assert (status, values["outcome"], values["findings"], values["answers"]["equal"]) == (0, "equal", [], 12)
    assert values["prompts"] == ({"shown": True, "equal": 12} if tells == "all" else {"shown": False, "equal": None})
    assert values["server"]["left_out"] == ["seed"]


def test_thoughts_that_cant_be_switched_are_no_answer(project, parts):
    right = ModelServer(*parts)

    def refusing(asked):
        if "chat_template_kwargs" in (asked.body or {}):
            return Said(400, {"detail": "unexpected field chat_template_kwargs"})
        return right(asked)

    with fake_server(refusing) as url, at(project):
        result = CliRunner().invoke(app, ["served", "--url", url])
    assert result.exit_code == 2 and "unexpected field chat_template_kwargs" in result.stderr.replace("\n", " ")
