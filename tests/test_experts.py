"""Bases whose experts files hold apart and memory together: names, merging, what LoRA adapts, packing; and refusals."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file, save_file

import stages.export
import tuneline.export.folder
import tuneline.models.conversion.saving
from tests.helpers.methods import method, perturb_trained
from tests.helpers.published import WITH_EXPERTS, publish
from tests.helpers.stages import run_main
from tests.helpers.tiny_models import base_section
from tests.helpers.workspace import CHATS, shipped_sections, write_metrics, write_records
from tuneline.base.canonicalize import canonicalize
from tuneline.export import merge, verify
from tuneline.export.layerwise_fp32 import upcast
from tuneline.models.adapters.importing import read_fitting
from tuneline.models.config import Base
from tuneline.models.conversion.file_names import file_shapes, groups, skeleton
from tuneline.models.conversion.saving import save_model
from tuneline.models.loading import load_adapter, load_model
from tuneline.models.packed_attention import NAME
from tuneline.models.packing import keeps_rows_apart, packing_is_exact
from tuneline.runtime.hashing import file_sha256, write_sums
from tuneline.train import methods
from tuneline.train.fused_experts import FusedExperts
from tuneline.train.fused_lora import patch_lora_layers
from tuneline.train.lora import adapted
from tuneline.train.loss_forward import install_loss_forward
from tuneline.train.sizing.step_memory import measure_step

BASE, MERGED, ADAPTER = Path("models/base"), Path("models/merged"), Path("models/adapter")
IDS = torch.arange(5, 29)[None]
NATIVE = [name for name, family in WITH_EXPERTS.items() if family.parts is None]
FAMILIES = [
    pytest.param(name, marks=() if name in ("GLM-4.5-Air", "Mixtral") else pytest.mark.matrix) for name in NATIVE
]


def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    return {name: tuple(one.shape) for name, one in load_file(folder / "model.safetensors").items()}


def make_base(family: str, folder: Path, dtype: str) -> Path:
    """What `base` writes of a published checkpoint, into models/base of the working directory."""
    source = publish(family, folder / "source")
    path = source / "model.safetensors"
    tensors = load_file(path)
    for name, one in tensors.items():
        if name.endswith("e_score_correction_bias"):
            # As published ones are: no bfloat16 number, and large enough to decide.
            tensors[name] = 0.3 + 0.1 * torch.rand_like(one)
    save_file(tensors, path, metadata={"format": "pt"})
    canonicalize(source, None, Base.model_validate(base_section(source) | {"dtype": dtype}), BASE)
    write_sums(BASE)
    return source


def make_adapter(folder: Path, chosen) -> None:
    """A random adapter, and all that `export` reads beside it."""
    model = methods.prepare(load_model(BASE, torch.float32), chosen)
    perturb_trained(model, 3)
    methods.save(model, chosen, ADAPTER)
    sections = shipped_sections() | {one: getattr(chosen, one).model_dump() for one in chosen._fields}
    inputs = {"models/base/SHA256SUMS": file_sha256(BASE / "SHA256SUMS")}
    (ADAPTER / "lineage.json").write_text(json.dumps({"params": sections, "inputs": inputs}))
    Path("data/processed").mkdir(parents=True)
    Path("metrics").mkdir()
    write_records(folder, CHATS[:3])
    write_metrics(folder)


def lora(**values):
    return method("lora", lora={"r": 4, "dropout": 0.0} | values)


@pytest.fixture
def project(workspace):
    """Make a project before `export`: project(family, dtype, method)."""

    def made(family: str, dtype: str = "bfloat16", chosen=None) -> Path:
        folder = workspace(export={"dtype": dtype, "max_delta_nll": 0.05})
        # A base is tried by a step, and some tests compute without gradients.
        with torch.inference_mode(False):
            source = make_base(family, folder, dtype)
        make_adapter(folder, lora() if chosen is None else chosen)
        return source

    return made


@pytest.mark.parametrize("family", NATIVE)
def test_files_are_named_as_the_published_ones(tmp_path, family):
    source = publish(family, tmp_path)
    extra = set(WITH_EXPERTS[family].extra)
    published = {name: shape for name, shape in shapes(source).items() if name not in extra}
    assert file_shapes(source) == published
    assert [name for group in groups(skeleton(source)) for name in group.files if not set(group.memory)] == []


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_what_is_exported_is_what_was_trained_under_the_published_names(project, family, dtype):
    source = project(family, dtype)
    run_main(stages.export)
    report = json.loads(Path("metrics/export.json").read_text())
    # Rounded weights may choose another expert here and there.
    assert report["delta_nll"] < 0.01
    assert dtype == "bfloat16" or report["max_logit_difference"] < 2e-5
    assert verify.problems(MERGED) == []
    extra = set(WITH_EXPERTS[family].extra)
    assert shapes(MERGED) == {name: shape for name, shape in shapes(source).items() if name not in extra}
    given, ours = load_file(source / "model.safetensors"), load_file(MERGED / "model.safetensors")
    moved = [name for name in ours if not torch.allclose(given[name], ours[name].float(), rtol=0.01)]
    changed = {name.rpartition(".")[0].rpartition(".")[2] for name in moved}
    assert not {"input_layernorm", "embed_tokens", "gate", "router", "wg", "moe_statics"} & changed
    for name, one in ours.items():
        if name.endswith("e_score_correction_bias"):
            assert one.dtype == torch.float32
            assert torch.equal(one, given[name])


@pytest.mark.parametrize("chosen", [method("freeze", freeze={"layers": 1, "patterns": ["*.0.mlp.*"]}), method("full")])
def test_experts_that_were_trained_themselves_are_merged(project, chosen):
    project("GLM-4.5-Air", chosen=chosen)
    run_main(stages.export)
    assert verify.problems(MERGED) == []


def test_experts_that_were_published_in_one_tensor_stay_so(workspace):
    folder = workspace(export={"dtype": "bfloat16", "max_delta_nll": 0.05})
    source = publish("Qwen3-MoE", folder / "apart")
    model = transformers.AutoModelForCausalLM.from_pretrained(source)
    model.save_pretrained(folder / "source", save_original_format=False)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(source / name, folder / "source")
    params = Base.model_validate(base_section(folder / "source"))
    canonicalize(folder / "source", None, params, BASE)
    write_sums(BASE)
    make_adapter(folder, lora())
    run_main(stages.export)
    assert verify.problems(MERGED) == []
    assert "model.layers.1.mlp.experts.gate_up_proj" in shapes(MERGED)
    assert shapes(MERGED) == shapes(folder / "source")


def perturb(folder: Path, name: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors[name][0, 0] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_an_expert_that_changed_on_its_way_to_the_disk_is_named(project, monkeypatch):
    project("GLM-4.5-Air")
    check = tuneline.export.folder.file_mismatches

    def on_a_bad_disk(model, folder):
        perturb(folder, "model.layers.1.mlp.experts.2.up_proj.weight")
        return check(model, folder)

    monkeypatch.setattr(tuneline.export.folder, "file_mismatches", on_a_bad_disk)
    with pytest.raises(
        ValueError, match=r"1 tensors differ, first model.layers.1.mlp.experts.2.up_proj.weight; is the disk"
    ):
        run_main(stages.export)


def test_an_expert_that_is_not_base_plus_adapter_is_named(project, monkeypatch):
    project("GLM-4.5-Air")
    merged = tuneline.export.folder.merged

    def with_a_fault(model, dtype):
        plain = merged(model, dtype)
        with torch.no_grad():
            plain.get_parameter("model.layers.1.mlp.experts.down_proj")[3] *= 1.1
        return plain

    monkeypatch.setattr(tuneline.export.folder, "merged", with_a_fault)
    with pytest.raises(ValueError, match=r"1 tensors are off, first model.layers.1.mlp.experts.3.down_proj.weight"):
        run_main(stages.export)


def test_names_that_no_file_should_have_are_not_laid_to_the_disk(project, monkeypatch):
    project("Qwen3-MoE")
    monkeypatch.setattr(
        tuneline.export.folder,
        "save_model",
        lambda model, folder, _: model.save_pretrained(folder, save_original_format=False),
    )
    with pytest.raises(
        ValueError, match=r"not have the names of a Qwen3MoeForCausalLM's: 28 are missing or too many, .*disk has no"
    ):
        run_main(stages.export)


def test_a_folder_that_lacks_an_expert_is_not_whole(project):
    project("Qwen3-MoE")
    run_main(stages.export)
    tensors = load_file(MERGED / "model.safetensors")
    del tensors["model.layers.0.mlp.experts.1.up_proj.weight"]
    save_file(tensors, MERGED / "model.safetensors", metadata={"format": "pt"})
    write_sums(MERGED)
    assert verify.problems(MERGED) == ["model.safetensors: model.layers.0.mlp.experts.1.up_proj.weight is missing"]


@pytest.mark.parametrize(
    ("lacking", "count"),
    [("model.layers.1.mlp.experts.2.up_proj.", 1), ("model.layers.0.mlp.experts.3.", 3), ("model.norm.", 1)],
)
def test_a_checkpoint_that_lacks_tensors_is_refused(workspace, lacking, count):
    folder = workspace()
    source = publish("Qwen3-MoE", folder / "source")
    tensors = load_file(source / "model.safetensors")
    left = {name: one for name, one in tensors.items() if not name.startswith(lacking)}
    save_file(left, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"its files lack {count} tensors of a Qwen3MoeForCausalLM, first {lacking}"):
        canonicalize(source, None, Base.model_validate(base_section(source)), BASE)


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_plain_peft_loads_the_adapter(project, family):
    project(family, "float32")
    ours = load_adapter(load_model(BASE, torch.float32), ADAPTER)(input_ids=IDS).logits
    base = transformers.AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    before = base(input_ids=IDS).logits
    theirs = PeftModel.from_pretrained(base, ADAPTER)(input_ids=IDS).logits
    assert torch.equal(ours, theirs)
    assert float((theirs - before).abs().max()) > 0.01


@torch.inference_mode()
def test_float32_a_layer_at_a_time_is_float32(project):
    project("GLM-4.5-Air")
    narrow = merge.load_tuned(BASE, ADAPTER, torch.bfloat16)
    before = narrow(input_ids=IDS).logits
    with upcast(narrow):
        ours = narrow(input_ids=IDS).logits
    wide = load_adapter(load_model(BASE, torch.float32), ADAPTER)
    assert torch.equal(ours, wide(input_ids=IDS).logits)
    assert torch.equal(narrow(input_ids=IDS).logits, before)


ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
LATENT = {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"}
EXPERTS = {"experts.gate_up_proj", "experts.down_proj"}


def dense(*modules: str) -> set[str]:
    return {f"{module}.{name}.weight" for module in modules for name in ("gate_proj", "up_proj", "down_proj")}


ALL = {
    "Qwen3-MoE": (ATTENTION, EXPERTS),
    "GLM-4.5-Air": (ATTENTION, EXPERTS | dense("mlp", "shared_experts")),
    "GLM-4.7-Flash": (LATENT, EXPERTS | dense("mlp", "shared_experts")),
    "DeepSeek-V3": (LATENT, EXPERTS | dense("mlp", "shared_experts")),
    "ERNIE 4.5 MoE": (ATTENTION, EXPERTS | dense("mlp", "shared_experts")),
    "Granite MoE": (ATTENTION, EXPERTS),
    "Mixtral": (ATTENTION, EXPERTS),
    "gpt-oss": (ATTENTION, EXPERTS),
    "Hunyuan MoE": (ATTENTION, EXPERTS | dense("shared_mlp")),
    "LFM2 MoE": ({"q_proj", "k_proj", "v_proj", "out_proj", "in_proj", "w1", "w2", "w3"}, EXPERTS),
}


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A family's model without weights, by name."""
    root = tmp_path_factory.mktemp("bare")
    return lambda name: skeleton(publish(name, root / name))


@pytest.mark.parametrize("family", ALL)
def test_all_is_attention_experts_and_what_stands_beside_them_but_no_router(bare, family):
    assert adapted(bare(family), lora(target_modules=["all"]).lora) == ALL[family]


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["q_proj", "v_proj"], ({"q_proj", "v_proj"}, set())),
        (["gate_up_proj"], (set(), {"experts.gate_up_proj"})),
        (["gate_proj", "up_proj"], (set(), {"experts.gate_up_proj"} | dense("mlp", "shared_experts") - {
            "mlp.down_proj.weight", "shared_experts.down_proj.weight"})),
        (["q_proj", "down_proj"], ({"q_proj"}, {
            "experts.down_proj", "mlp.down_proj.weight", "shared_experts.down_proj.weight"})),
    ],
)  # fmt: skip
def test_experts_go_by_their_names_in_files(bare, targets, expected):
    assert adapted(bare("GLM-4.5-Air"), lora(target_modules=targets).lora) == expected


# fmt: off
REFUSALS = [
    ("GLM-4.5-Air", {"target_modules": ["up_proj"]}, r"holds \['up_proj'\] and not \['gate_proj'\], expected both or neither"),
    ("Mixtral", {"target_modules": ["w1", "w2"]}, r"holds \['w1'\] and not \['w3'\], expected both or neither"),
    ("Qwen3-MoE", {"target_modules": ["gate"]}, r"holds \['gate'\], expected \[all\] or some of .*'gate_proj', "),
    ("Qwen3-MoE", {"dropout": 0.05}, r"lora.dropout is 0.05, expected 0 where .*: lora.target_modules: \[k_proj, o_proj, "),
    ("Mixtral", {"variant": "dora"}, r"lora.variant is dora, expected lora, rslora or loraplus where experts"),
    ("Mixtral", {"variant": "pissa"}, r"lora.variant is pissa, expected lora"),
    ("Mixtral", {"quantize": "nf4"}, r"lora.quantize is nf4, expected null where experts"),
    ("Qwen3-MoE", {"target_modules": ["down_proj"], "dropout": 0.1}, r"target_modules: \[k_proj, o_proj, q_proj, v_proj\]"),
]
# fmt: on


def test_experts_go_by_layers_and_expressions(bare):
    model = bare("GLM-4.5-Air")
    pattern = r".*experts\.(gate_up_proj|up_proj)|.*layers\.0\..*q_proj"
    chosen = adapted(model, lora(target_modules=pattern).lora)
    assert chosen.modules == {"model.layers.0.self_attn.q_proj"}
    assert chosen.parameters == {
        "model.layers.1.mlp.experts.gate_up_proj", "model.layers.1.mlp.shared_experts.up_proj.weight"}  # fmt: skip
    first = adapted(model, lora(layers_to_transform=[0]).lora)
    assert first.parameters == {f"model.layers.0.{end}" for end in dense("mlp")}
    tuned = methods.prepare(model, lora(target_modules=pattern))
    adapted_layers = {name.split(".lora_A")[0] for name, _ in tuned.named_parameters() if "lora_A" in name}
    assert len(adapted_layers) == 3


@pytest.mark.parametrize(("family", "values", "message"), REFUSALS)
def test_what_peft_can_not_do_with_experts_is_refused_in_a_sentence(bare, family, values, message):
    with pytest.raises(ValueError, match=message):
        methods.prepare(bare(family), lora(**values))


def test_attention_alone_may_have_all_that_lora_has(bare):
    tuned = methods.prepare(bare("Mixtral"), lora(target_modules=["q_proj", "v_proj"], dropout=0.1, variant="dora"))
    adapted = {name.split(".")[-4] for name, _ in tuned.named_parameters() if "lora_A" in name}
    assert adapted == {"q_proj", "v_proj"}


def test_packed_rows_are_told_from_rows_that_see_each_other():
    config = transformers.Qwen3MoeConfig(
        vocab_size=300, hidden_size=256, intermediate_size=64, moe_intermediate_size=128, num_hidden_layers=2, num_experts=16,
        num_experts_per_tok=4, num_attention_heads=4, num_key_value_heads=2, head_dim=64,
    )  # fmt: skip
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(config).requires_grad_(False).eval()
    rows = [torch.arange(start, start + 24) for start in (5, 50)]
    assert packing_is_exact(model)
    model.set_attn_implementation(NAME)
    assert keeps_rows_apart(model, rows)
    layer = model.model.layers[0]
    layer.register_forward_hook(lambda module, given, states: states + 0.1 * states.roll(1, 1))
    assert not keeps_rows_apart(model, rows)
    assert not packing_is_exact(model)


@pytest.mark.parametrize("family", ["Mixtral", "ERNIE 4.5 MoE", "gpt-oss"])
def test_a_model_is_saved_as_transformers_saves_it_but_a_tensor_at_a_time(tmp_path, monkeypatch, family):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        publish(family, tmp_path / "source"), dtype=torch.bfloat16
    )
    model.save_pretrained(tmp_path / "theirs")
    converted = []
    take_apart = tuneline.models.conversion.saving.to_files
    monkeypatch.setattr(
        tuneline.models.conversion.saving,
        "to_files",
        lambda model, given: converted.append(set(given)) or take_apart(model, given),
    )
    save_model(model, tmp_path / "ours", 20_000)
    theirs = load_file(tmp_path / "theirs/model.safetensors")
    paths = sorted((tmp_path / "ours").glob("*.safetensors"))
    ours = {name: one for path in paths for name, one in load_file(path).items()}
    assert ours.keys() == theirs.keys()
    assert [
        name for name in ours if ours[name].dtype != theirs[name].dtype or not torch.equal(ours[name], theirs[name])
    ] == []
    for name in ("config.json", "generation_config.json"):
        assert (tmp_path / "ours" / name).read_text() == (tmp_path / "theirs" / name).read_text()
    if family == "gpt-oss":
        # Files hold its experts as memory does.
        assert converted == []
        return
    assert len(paths) > 2
    assert max(map(len, converted)) == 1
    assert len(converted) == len(groups(model))
    index = json.loads((tmp_path / "ours/model.safetensors.index.json").read_text())["weight_map"]
    assert index == {name: path.name for path in paths for name in load_file(path)}


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("family", ["Qwen3-MoE", "Mixtral", "Granite MoE"])
def test_routers_add_to_the_loss_what_they_add_in_transformers(tmp_path, family, asked):
    model = load_model(publish(family, tmp_path), torch.float32)
    before = float(model(input_ids=IDS, labels=IDS).loss)
    model.config.output_router_logits = asked
    own = float(model(input_ids=IDS, labels=IDS).loss)
    assert (own != before) == asked
    install_loss_forward(model)
    assert float(model(input_ids=IDS, labels=IDS)["loss"]) / (IDS.shape[1] - 1) == pytest.approx(own, rel=1e-5)


@pytest.mark.parametrize(("family", "rank"), [*((family, 4) for family in NATIVE), ("Qwen3-MoE", 3)])
def test_fused_lora_of_experts_is_pefts(tmp_path, family, rank):
    model = load_model(publish(family, tmp_path), torch.float32)
    tuned = methods.prepare(model, lora(r=rank)).train()
    torch.manual_seed(5)
    trained = {name: one for name, one in tuned.named_parameters() if one.requires_grad}
    with torch.no_grad():
        for one in trained.values():
            one += 0.05 * torch.randn_like(one)
    made = []
    for _ in range(2):
        output = tuned(input_ids=IDS, labels=IDS)
        gradients = torch.autograd.grad(output.loss, list(trained.values()))
        made.append([output.logits.detach(), *gradients])
        patch_lora_layers(tuned)
    assert sum(isinstance(module.forward, FusedExperts) for module in tuned.modules()) in (1, 2)
    for theirs, ours in zip(*made, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_what_was_trained_on_experts_can_be_imported(project):
    """Tensors of the base that were changed have the names in memory, and an older adapter has a LoRA for each expert."""
    project("Qwen3-MoE", chosen=method("freeze", freeze={"layers": 1, "patterns": []}))
    config, tensors = read_fitting(Path("models/adapter"), Path("models/base"))
    assert config is None and any(".experts." in name for name in tensors)


def test_memory_of_a_step_is_measured(bare):
    step = measure_step(
        bare("GLM-4.5-Air").config,
        lora(),
        lengths=(20, 30),
        supervised=10,
        dtype="float32",
        checkpointing=False,
        packed=True,
    )
    assert step.trained == 4 * methods.counts(methods.prepare(bare("GLM-4.5-Air"), lora()))["trainable_parameters"]
