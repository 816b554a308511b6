"""What DeepSpeed's launcher is told, checked against the launcher's own parser."""

from pathlib import Path

import pytest

from tuneline.launch import arguments, count_processes
from tuneline.sections.deepspeed import DeepSpeed


def section(**values) -> DeepSpeed:
    return DeepSpeed.model_validate(
        {"zero_stage": 1, "offload": "none", "processes": "auto", "hostfile": None} | values
    )


def parsed(params: DeepSpeed):
    from deepspeed.launcher.runner import parse_args

    processes = count_processes(params, 4)
    return parse_args(arguments(params, processes, ["--scratch", "x"]))


def test_one_machine_without_a_gpu_has_one_process():
    args = parsed(section())
    assert (args.num_gpus, args.module, args.user_script, args.user_args) == (
        1,
        True,
        "tuneline.training",
        ["--scratch", "x"],
    )
    assert args.no_local_rank
    assert not Path(args.hostfile).exists()
    assert 0 < args.master_port < 65536


def test_processes_are_as_many_as_asked():
    assert parsed(section(processes=3)).num_gpus == 3
    assert count_processes(section(processes="2"), 4) == 2


def test_auto_takes_as_many_gpus_as_divide_the_step(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert count_processes(section(), 4) == 2
    assert count_processes(section(), 6) == 3
    with pytest.raises(ValueError, match="deepspeed.processes is 4, expected at most the 3 GPUs"):
        count_processes(section(processes=4), 4)


def test_chosen_gpus_stay_chosen(monkeypatch):
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3,1")
    assert "localhost:5,3" in arguments(section(), 2, [])
    # The launcher takes numbers only; and without a GPU the choice is about nothing.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-3f1c")
    assert "--include" not in arguments(section(), 1, [])
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
