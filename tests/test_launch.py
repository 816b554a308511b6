"""What DeepSpeed's launcher is told, checked against the launcher's own parser."""

import base64
import json

import pytest

from tests.helpers.commands import git, git_init
from tests.helpers.deepspeed_launcher import started_environments
from tests.helpers.sections import deepspeed_section as section
from tuneline.train import deepspeed_config
from tuneline.train.config.deepspeed import DeepSpeed
from tuneline.train.launch import count_processes, launcher_arguments
from tuneline.train.trainer.reporting import check_reports


def parsed(params: DeepSpeed, monkeypatch):
    """What the parser of DeepSpeed's launcher makes of it."""
    from deepspeed.launcher import launch

    arguments = launcher_arguments(params, count_processes(params, 4), ["--scratch", "x"])
    monkeypatch.setattr("sys.argv", ["deepspeed", *arguments])
    return launch.parse_args()


def world(args) -> dict[str, list[str]]:
    return json.loads(base64.urlsafe_b64decode(args.world_info))


def test_one_machine_without_a_gpu_has_one_process(monkeypatch):
    args = parsed(section(), monkeypatch)
    assert (args.training_script, args.training_script_args) == ("tuneline.train.run", ["--scratch", "x"])
    assert args.no_local_rank
    assert args.module
    assert world(args) == {"localhost": ["0"]}
    assert 0 < args.master_port < 65536


def test_processes_are_as_many_as_asked(monkeypatch):
    assert world(parsed(section(processes=3), monkeypatch)) == {"localhost": ["0", "1", "2"]}
    assert count_processes(section(processes=2), 4) == 2


def test_auto_takes_as_many_gpus_as_divide_the_step(monkeypatch):
    monkeypatch.setattr("tuneline.train.launch.usable_gpus", lambda: 3)
    assert count_processes(section(), 4) == 2
    assert count_processes(section(), 6) == 3
    with pytest.raises(ValueError, match="deepspeed.processes is 4, expected at most the 3 GPUs"):
        count_processes(section(processes=4), 4)


@pytest.mark.parametrize(
    ("visible", "count", "expected"),
    [
        (None, 8, ["0", "1", "2", "3"]),
        ("1", 1, ["1"]),
        ("0,1", 2, ["0", "1"]),
        ("4,5,6,7", 4, ["4", "5", "6", "7"]),
        (" 5, 3 ,1", 3, ["5", "3"]),
        ("GPU-3f1c,GPU-88aa", 2, ["GPU-3f1c", "GPU-88aa"]),
        ("MIG-6b2f", 1, ["MIG-6b2f"]),
        ("7", 0, ["0"]),
    ],
)
def test_each_process_gets_the_device_that_was_chosen(monkeypatch, visible, count, expected):
    """By DeepSpeed's own launcher, which starts nothing here."""
    from deepspeed.launcher import launch

    started = started_environments(monkeypatch)
    monkeypatch.setattr("tuneline.train.launch.usable_gpus", lambda: count)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    parsed(section(), monkeypatch)
    launch.main()
    assert [env["CUDA_VISIBLE_DEVICES"] for env in started] == [",".join(expected)] * len(expected)
    assert [(env["RANK"], env["LOCAL_RANK"], env["WORLD_SIZE"]) for env in started] == [
        (str(rank), str(rank), str(len(expected))) for rank in range(len(expected))
    ]


def test_a_hostfile_counts_its_slots(tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("alpha slots=4\nbeta slots=2\n")
    assert count_processes(section(hostfile=str(hosts)), 4) == 6
    assert count_processes(section(hostfile=str(hosts), processes=1), 4) == 2
    assert count_processes(section(hostfile=str(hosts), processes=1, launcher="torchrun"), 4) == 2
    with pytest.raises(ValueError, match=r"has slots {'alpha': 4, 'beta': 2}, expected the same number for each host"):
        count_processes(section(hostfile=str(hosts), launcher="torchrun"), 4)


def test_a_missing_hostfile_is_named():
    with pytest.raises(ValueError, match="deepspeed.hostfile is './none', expected a file of lines `host slots=n`"):
        count_processes(section(hostfile="./none"), 4)


def test_a_given_port_is_kept(monkeypatch):
    assert parsed(section(master_port=29999), monkeypatch).master_port == 29999


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


def test_dvclive_needs_a_commit_where_there_is_git(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_reports(["dvclive"])
    git_init(tmp_path)
    with pytest.raises(ValueError, match=r"train.report_to holds 'dvclive', expected a git repository with a commit"):
        check_reports(["dvclive"])
    check_reports([])
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "First")
    check_reports(["dvclive"])
