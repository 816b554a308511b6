"""Servers of a tiny tuned model, right ones and wrong ones, asked over real connections."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from tests.helpers.commands import dvc, git, git_init
from tests.helpers.fake_server import NOTHING, Said, completion, fake_server, models
from tests.helpers.model_server import Faults, ModelServer
from tests.helpers.served_project import at, make_project, of_few_bits, rows_of, served
from tests.helpers.tiny_models import make_tokenizer
from tuneline.cli.app import app

BEGIN, SUFFIX = "<|begin_of_text|>", 6
FEW_BITS = {"few bits": 1 / 6, "fewer bits": 1 / 2}
"""Share of the answers that rounding changes, at the least."""
OUTSIDE = {"adapter_scale", "other_adapter", "quantized_weights", "generation_defaults"}
"""What no server that tells nothing of its weights can be told from."""


@pytest.fixture(scope="module")
def served_project(tmp_path_factory):
    """Read only; trained here, since random models differ in every answer and nothing is nearly right."""
    begin = make_tokenizer("llama3").convert_tokens_to_ids(BEGIN)
    wrong = [lambda ids: [begin, *ids], lambda ids: ids[:-SUFFIX]]
    return make_project(tmp_path_factory.mktemp("served"), wrong_prompts=wrong)


@pytest.fixture(scope="module")
def networks(served_project):
    """Tuned, base, another adapter, the adapter at half of its scale, 4-bit weights, and bfloat16; each loaded once."""
    import torch

    from tuneline.models.loading import load_adapter, load_model

    def load(adapter="adapter", dtype=torch.float32):
        model = load_model(served_project / "models/base", dtype)
        return load_adapter(model, served_project / "models" / adapter) if adapter else model

    half = load()
    for layer in half.modules():
        if isinstance(getattr(layer, "scaling", None), dict):
            layer.scaling = {name: scale / 2 for name, scale in layer.scaling.items()}
    narrow = load().merge_and_unload().to(torch.bfloat16)
    few_bits = {
        name: of_few_bits(lambda: load().merge_and_unload(), served_project, share) for name, share in FEW_BITS.items()
    }
    known = {"tuned": load(), "base": load(None), "other": load("other"), "half": half, **few_bits}
    return known | {"bfloat16": narrow}


@pytest.fixture(scope="module")
def tokenizer(served_project):
    from tuneline.models.loading import load_tokenizer

    return load_tokenizer(served_project / "models/base")


def ask(folder, network, tokenizer, faults=None, tells="all", options=()) -> tuple[int, dict]:
    with fake_server(ModelServer(network, tokenizer, faults, tells=tells)) as url:
        return served(folder, f"{url}/v1", *options)


def faults_of(values: dict) -> list[set[str]]:
    return [set(finding["faults"]) for finding in values["findings"]]


@pytest.mark.parametrize("tells", ["all", "counts", "nothing"])
@pytest.mark.parametrize("name", ["tuned", "bfloat16"])
def test_no_false_alarm(served_project, networks, tokenizer, name, tells):
    status, values = ask(served_project, networks[name], tokenizer, tells=tells)
    assert (status, values["findings"]) == (0, [])
    assert values["answers"]["equal"] == values["items"] == 12 or name == "bfloat16"
    assert values["outcome"] in (("equal",) if name == "tuned" else ("equal", "near"))
    if tells == "all":
        assert values["prompts"] == {"shown": True, "equal": 12} and abs(values["nll"]["delta"]) < 0.01
        assert values["server"]["server"] == "vllm" and values["server"]["version"] == "0.32.0"


def planted(name: str, tokenizer) -> tuple[str, Faults]:
    """(network, faults) of each of the eight."""
    begin = tokenizer.convert_tokens_to_ids(BEGIN)
    return {
        "second_bos": ("tuned", Faults(prompt=lambda ids: [begin, *ids])),
        "default_system_prompt": ("tuned", Faults(system=True)),
        "no_generation_prompt": ("tuned", Faults(prompt=lambda ids: ids[:-SUFFIX])),
        "missing_stop": ("tuned", Faults(stop_ids=())),
        "adapter_scale": ("half", Faults()),
        "adapter_not_loaded": ("base", Faults()),
        "other_adapter": ("other", Faults()),
        "quantized_weights": ("few bits", Faults()),
    }[name]


EIGHT = [
    "second_bos", "default_system_prompt", "no_generation_prompt", "missing_stop", "adapter_scale", "adapter_not_loaded",
    "other_adapter", "quantized_weights",
]  # fmt: skip


@pytest.mark.parametrize("fault", EIGHT)
def test_each_planted_fault_is_named_where_the_server_tells_prompts_and_likelihoods(
    served_project, networks, tokenizer, fault
):
    network, faults = planted(fault, tokenizer)
    status, values = ask(served_project, networks[network], tokenizer, faults)
    assert (status, values["outcome"], faults_of(values)) == (1, "fault", [{fault}])
    if fault == "second_bos":
        assert "12 of 12 prompts, the first at token 2" in values["findings"][0]["sentence"]
    if fault == "adapter_scale":
        assert "with the adapter at 0.50 of its scale" in values["findings"][0]["sentence"]


@pytest.mark.parametrize("fault", [fault for fault in EIGHT if fault not in ("other_adapter", "quantized_weights")])
def test_most_are_named_by_counts_of_tokens_and_answers_alone(served_project, networks, tokenizer, fault):
    network, faults = planted(fault, tokenizer)
    status, values = ask(served_project, networks[network], tokenizer, faults, "counts")
    assert (status, values["outcome"], faults_of(values)) == (1, "fault", [{fault}])


@pytest.mark.parametrize("fault", ["second_bos", "no_generation_prompt", "missing_stop", "adapter_not_loaded"])
def test_some_are_named_by_answers_alone(served_project, networks, tokenizer, fault):
    network, faults = planted(fault, tokenizer)
    assert faults_of(ask(served_project, networks[network], tokenizer, faults, "nothing")[1]) == [{fault}]


@pytest.mark.parametrize("fault", ["other_adapter", "quantized_weights"])
def test_what_cant_be_told_from_outside_is_said_to_be_one_of_several(served_project, networks, tokenizer, fault):
    network, faults = planted(fault, tokenizer)
    network = network.replace("few bits", "fewer bits")
    for tells, least in (("counts", OUTSIDE), ("nothing", OUTSIDE | {"default_system_prompt", "other_template"})):
        status, values = ask(served_project, networks[network], tokenizer, faults, tells)
        (left,) = faults_of(values)
        assert (status, values["outcome"]) == (1, "different") and least - {"adapter_scale"} <= left and fault in left
        assert values["findings"][0]["sentence"].startswith("Can't be told from outside")


@pytest.mark.parametrize("fault", ["second_bos", "adapter_scale"])
def test_without_the_models_at_hand_it_does_not_guess(served_project, networks, tokenizer, fault):
    network, faults = planted(fault, tokenizer)
    (left,) = faults_of(ask(served_project, networks[network], tokenizer, faults, "counts", ["--no-trial"])[1])
    assert left == ({"second_bos", "whitespace"} if fault == "second_bos" else OUTSIDE)


@pytest.mark.parametrize(
    ("faults", "name"),
    [
        (Faults(sample=True), "sampling"),
        (Faults(limit=4), "max_tokens"),
        (Faults(penalty=4.0), "generation_defaults"),
        (Faults(prompt=lambda ids: ids[1:]), "no_bos"),
        (Faults(prompt=lambda ids: ids[:-1]), "whitespace"),
        (Faults(prompt=lambda ids: ids[-12:]), "truncated_prompt"),
    ],
)
def test_other_faults_are_named_too(served_project, networks, tokenizer, faults, name):
    assert faults_of(ask(served_project, networks["tuned"], tokenizer, faults)[1]) == [{name}]


def test_another_revisions_adapter_is_found_by_its_predictions(
    served_project, networks, tokenizer, tmp_path, monkeypatch
):
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    project = tmp_path / "project"
    shutil.copytree(served_project, project)
    (project / ".gitignore").write_text("/models\n/source\n/other_predictions.jsonl\n/metrics/served.*\n")
    (project / "dvc.yaml").write_text(
        "stages:\n  evaluate:\n    cmd: cp answers.jsonl metrics/predictions.jsonl\n    deps: [answers.jsonl]\n"
        "    outs: [metrics/predictions.jsonl]\n"
    )
    git_init(project)
    dvc(project, "init", "-q")
    for source, said in (("other_predictions.jsonl", "Other data"), ("metrics/predictions.jsonl", "Our data")):
        text = (served_project / source).read_text(encoding="utf-8")
        (project / "answers.jsonl").write_text(text, encoding="utf-8")
        dvc(project, "repro", "-q")
        git(project, "add", "-A")
        git(project, "commit", "-q", "-m", said)
    earlier = git(project, "rev-parse", "--short", "HEAD~1").strip()
    for tells in ("all", "nothing"):
        _, values = ask(project, networks["other"], tokenizer, tells=tells)
        assert faults_of(values) == [{"other_adapter"}] and earlier in values["findings"][0]["sentence"]


def test_the_page_shows_the_verdict_and_every_answer_that_differs(served_project, networks, tokenizer):
    ask(served_project, networks["half"], tokenizer)
    text = (served_project / "metrics/served.html").read_text(encoding="utf-8")
    for said in ("The adapter is applied at another scale.", "适配器的缩放系数不同。", "lora-scaled", "s:00", "s:11"):
        assert said in text
    assert "http" not in text.replace("http://127.0.0.1", "")


def test_figures_go_where_they_are_asked_for(served_project, networks, tokenizer, tmp_path):
    (served_project / "metrics/served.json").unlink(missing_ok=True)
    file = tmp_path / "ci.json"
    options = ["--json", str(file), "--items", "3", "--model", "tuned", "--min-equal", "3"]
    status, values = ask(served_project, networks["tuned"], tokenizer, options=options)
    assert (status, values) == (0, {})
    values = json.loads(file.read_text(encoding="utf-8"))
    assert values["items"] == 3 and file.with_suffix(".html").is_file()
    assert values["scores"]["delta"]["rouge_l"]["value"] == 0 and values["scores"]["delta"]["nll_per_token"]["p"] == 1
    assert ask(served_project, networks["tuned"], tokenizer, options=[*options[:-1], "4"])[0] == 1


def test_stdout_has_the_figures_alone(served_project, networks, tokenizer):
    with fake_server(ModelServer(networks["half"], tokenizer)) as url, at(served_project):
        result = CliRunner().invoke(app, ["served", "--url", url, "--json", "-"])
    assert json.loads(result.stdout)["outcome"] == "fault" and "trying the causes" in result.stderr


@pytest.mark.parametrize(
    ("answer", "options", "said"),
    [
        (lambda asked: models("a", "b"), (), "has 2 models (a, b): choose one with --model"),
        (lambda asked: Said(401, {"error": {"message": "no key"}}), (), "wants another API key"),
        (lambda asked: NOTHING, ("--model", "x"), "is the URL right"),
        (
            lambda asked: models("a"),
            ("--api-key-env", "NO_SUCH_KEY"),
            "--api-key-env is NO_SUCH_KEY, and no such variable is set",
        ),
    ],
)
def test_a_server_that_cant_be_asked_is_one_sentence_and_status_2(served_project, answer, options, said):
    with fake_server(answer) as url, at(served_project):
        result = CliRunner().invoke(app, ["served", "--url", url, *options])
    assert result.exit_code == 2 and said in result.stderr.replace("\n", " "), result.stderr
    assert result.stderr.startswith("served: ") and "Traceback" not in result.stderr


def test_a_project_without_predictions_is_one_sentence(served_project, tmp_path):
    shutil.copytree(served_project, tmp_path / "project")
    (tmp_path / "project/metrics/predictions.jsonl").unlink()
    with fake_server(lambda asked: models("a")) as url, at(tmp_path / "project"):
        result = CliRunner().invoke(app, ["served", "--url", url])
    assert result.exit_code == 2 and "run `dvc repro evaluate`" in result.stderr


def test_thoughts_where_the_tuned_model_has_none_are_told(served_project):
    rows = iter(rows_of(served_project / "metrics/predictions.jsonl") * 3)

    def thinking(asked):
        if asked.path.endswith("/models"):
            return models("a")
        if not asked.path.endswith("/chat/completions"):
            return NOTHING
        return completion(f"<think>\n想一想\n</think>\n\n{next(rows)['tuned']}")

    with fake_server(thinking) as url:
        _, values = served(served_project, url, "--concurrency", "1", "--no-trial")
    assert {"thinking"} in faults_of(values)
