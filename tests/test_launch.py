"""What DeepSpeed's launcher is told, checked against the launcher's own parser."""

from pathlib import Path

import pytest

from tuneline.train import deepspeed_config
from tuneline.train.config.deepspeed import DeepSpeed
from tuneline.train.launch import count_processes, launcher_arguments
from tuneline.train.trainer.reporting import check_reports


def section(**values) -> DeepSpeed:
    return DeepSpeed.model_validate(
        {"zero_stage": 1, "offload": "none", "processes": "auto", "hostfile": None, "master_port": None, "config": {}}
        | values
    )


def parsed(params: DeepSpeed):
    from deepspeed.launcher.runner import parse_args

    processes = count_processes(params, 4)
    return parse_args(launcher_arguments(params, processes, ["--scratch", "x"]))


def test_one_machine_without_a_gpu_has_one_process():
    args = parsed(section())
    assert (args.num_gpus, args.module, args.user_script, args.user_args) == (
        1,
        True,
        "tuneline.train.run",
        ["--scratch", "x"],
    )
    assert args.no_local_rank
    assert not Path(args.hostfile).exists()
    assert 0 < args.master_port < 65536


def test_processes_are_as_many_as_asked():
    assert parsed(section(processes=3)).num_gpus == 3
    assert count_processes(section(processes=2), 4) == 2


def test_auto_takes_as_many_gpus_as_divide_the_step(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert count_processes(section(), 4) == 2
    assert count_processes(section(), 6) == 3
    with pytest.raises(ValueError, match="deepspeed.processes is 4, expected at most the 3 GPUs"):
        count_processes(section(processes=4), 4)


def test_chosen_gpus_stay_chosen(monkeypatch):
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3,1")
    assert "localhost:5,3" in launcher_arguments(section(), 2, [])
    # The launcher takes numbers only; and without a GPU the choice is about nothing.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-3f1c")
    assert "--include" not in launcher_arguments(section(), 1, [])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    assert parsed(section(processes=3)).num_gpus == 3


def test_a_hostfile_counts_its_slots(tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("alpha slots=4\nbeta slots=2\n")
    params = section(hostfile=str(hosts))
    assert count_processes(params, 4) == 6
    assert parsed(params).hostfile == str(hosts)
    assert parsed(params).num_gpus == -1
    assert count_processes(section(hostfile=str(hosts), processes=1), 4) == 2


def test_a_missing_hostfile_is_named():
    with pytest.raises(ValueError, match="deepspeed.hostfile is './none', expected a file of lines `host slots=n`"):
        count_processes(section(hostfile="./none"), 4)


def test_a_given_port_is_kept():
    assert parsed(section(master_port=29999)).master_port == 29999


def test_what_deepspeed_is_told():
    config = deepspeed_config.deepspeed_config(
        section(zero_stage=3, offload="param", config={"zero_optimization": {"reduce_bucket_size": 1000}})
    )
    assert config["zero_optimization"] == {
        "stage": 3,
        "offload_optimizer": {"device": "cpu"},
        "offload_param": {"device": "cpu"},
        "reduce_bucket_size": 1000,
    }
    assert config["bf16"] == config["fp16"] == {"enabled": False}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"wall_clok": True}, r"deepspeed.config holds \['wall_clok'\], which DeepSpeed does not read"),
        ({"zero_optimization": {"bucket": 5}}, "deepspeed.config is refused by DeepSpeed: bucket: Extra inputs"),
        ({"zero_optimization": {"reduce_bucket_size": "big"}}, "reduce_bucket_size: Input should be a valid integer"),
    ],
)
def test_a_mistake_in_deepspeeds_own_options_is_found_before_training(config, message):
    with pytest.raises(ValueError, match=message):
        deepspeed_config.check(section(config=config))


def test_deepspeeds_own_options_pass():
    deepspeed_config.check(
        section(config={"wall_clock_breakdown": True, "zero_optimization": {"reduce_bucket_size": 10**6}})
    )


def test_where_curves_are_sent_is_checked():
    with pytest.raises(ValueError, match=r"train.report_to holds \['tensorbord'\], expected some of"):
        check_reports(["tensorbord"])
    with pytest.raises(ValueError, match=r"train.report_to holds \['neptune'\], which is not installed"):
        check_reports(["neptune"])
    check_reports([])
