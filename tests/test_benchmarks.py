"""Benchmarks: the GPU benchmark runs without a GPU, too; the harness runs functions in child processes; figures by hand."""

import json
import re
import subprocess

import pytest
import torch

from benchmarks import gguf
from benchmarks.contenders.ours import kept_share
from benchmarks.gpu.roofline import Card, Kernel, operations, rate, seconds
from benchmarks.harness import ChildError, call_in_child, interleaved, show, table
from benchmarks.methods import COLUMNS, USUAL, scores
from benchmarks.speed.goals import Goal, goal_table
from benchmarks.speed.pipeline import Pipeline
from benchmarks.speed.pipeline import goals as pipeline_goals
from benchmarks.speed.train_report import SHORT, after_first, goals, operations_done, summarize, throughput, workload
from benchmarks.train import cut
from tests.helpers.commands import python
from tests.helpers.fake_server import NOTHING, Said, fake_server, models
from tests.helpers.paths import ROOT
from tuneline.endpoint.client import CHAT


@pytest.mark.matrix
def test_every_setting_of_the_gpu_benchmark_runs_and_finds_one_loss():
    result = python(ROOT, "-m", "benchmarks.gpu.steps", "--smoke")
    assert result.returncode == 0, result.stderr[-3000:]
    rows = [line.split("|")[1:-1] for line in result.stdout.splitlines() if re.match(r"\| (6B|0.3B) ", line)]
    assert len(rows) >= 12
    by_work = {}
    for row in rows:
        work = tuple(cell.strip() for cell in (*row[:3], row[8]))
        by_work.setdefault(work, []).append(float(row[-1]))
    assert any(len(losses) > 4 for losses in by_work.values())
    for work, losses in by_work.items():
        assert max(losses) - min(losses) < 0.02, f"{work}: {losses}"


COMPANIES = ["中粮", "蒙牛", "工行", "安联", "国电", "海尔", "惠普", "苏宁"]


@pytest.mark.matrix
def test_the_table_of_ways_to_learn_an_arrival(canonical_base, tmp_path):
    """Two ways, by the stages themselves, with an adapter to go on from and rows that are replayed: a minute."""
    relations = ("合作", "持股", "收购")
    pairs = [(head, tail) for head in COMPANIES for tail in COMPANIES if head < tail]
    data = tmp_path / "train.txt"
    data.write_text(
        "\n\n".join(
            f"{head}\t{tail}\t{name}\t{head}在{place + 3}月{number + 2}日与{tail}谈到{name}"
            for number, (head, tail) in enumerate(pairs)
            for place, name in enumerate(relations)
        ),
        encoding="utf-8",
    )
    command = ["-m", "benchmarks.growing", "--data", str(data), "--base", str(canonical_base), "--rows", "20"]
    result = python(ROOT, *command, "--heldout", "3", "--epochs", "1", "--only", "naive", "replay 0.2")
    assert result.returncode == 0, result.stderr[-3000:]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in result.stdout.splitlines() if "|" in line]
    before, naive, replay = lines[2:]
    assert [line[0] for line in (before, naive, replay)] == ["before", "naive", "replay 0.2"]
    assert int(before[1]) > int(replay[1]) > int(naive[1]) > 0, "rows trained on"


@pytest.mark.matrix
def test_the_table_of_methods_on_a_file_of_triples(canonical_base, tmp_path):
    """One method, by the stages themselves: half a minute."""
    pairs = [(head, tail) for head in COMPANIES for tail in COMPANIES if head < tail]
    rows = [
        {"instruction": "抽取", "input": f"{head}在昨天宣布收购{tail}。", "output": f"{head}_收购_{tail}"}
        for head, tail in pairs
    ]
    data = tmp_path / "triples.jsonl"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    command = ["-m", "benchmarks.methods", "--quick", "--data", str(data), "--base", str(canonical_base), "--constrain"]
    command += ["--question", "input", "--template", "{question}\n关系：", "--only", "LoRA"]
    result = python(ROOT, *command)
    assert result.returncode == 0, result.stderr[-3000:]
    header, _, *lines = ([cell.strip() for cell in line.split("|")[1:-1]] for line in result.stdout.splitlines())
    assert header == list(COLUMNS)
    assert [line[0] for line in lines] == ["base, untrained", "LoRA"]
    row = dict(zip(header, lines[1], strict=True))
    total, trained = (int(row[column].replace(",", "")) for column in ("parameters", "trained"))
    assert 0 < trained < total
    assert row["share"] == f"{trained / total:.2%}"
    assert float(row["peak GB"]) > 0 and int(row["train s"]) > 0
    assert re.fullmatch(r"\d+\.\d \(\d+\.\d … \d+\.\d\)", row["F1 (95 %)"])


def test_f1_of_a_method_by_hand():
    assert scores(["a_在_b\nc_在_d", ""], ["a_在_b", "e_在_f"])[1:] == ["50.0", "50.0"]
    assert scores(["人:甲、乙"], ["人:甲"])[0].startswith("66.7 (")
    assert USUAL == [
        "LoRA",
        "P-Tuning (embedding)",
        "P-Tuning v2 (prefix, projection)",
        "Freeze (last 4 layers)",
        "Full",
    ]


@pytest.mark.matrix
def test_the_stages_of_the_gpu_benchmark_run_without_a_gpu():
    """Weights, a run of the stage, and one that is killed and goes on: a minute."""
    result = python(ROOT, "-m", "benchmarks.gpu.stages", "--smoke", "--seconds", "900", "--only", "weights", "resume")
    assert result.returncode == 0, result.stderr[-3000:]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in result.stdout.splitlines() if "|" in line]
    found = {name: rest for name, *rest in lines}
    assert found["resume"] == ["kill -9 after a checkpoint", "the same bytes, resumed"]


def test_the_script_is_sound_shell():
    assert subprocess.run(["sh", "-n", str(ROOT / "benchmarks/gpu.sh")], check=False).returncode == 0


@pytest.mark.parametrize("name", ["chatglm3", "data", "evaluate", "leaks"])
def test_help_imports_nothing_heavy(name):
    program = (
        "import runpy, sys\n"
        "sys.argv = ['benchmark', '--help']\n"
        "try:\n"
        f"    runpy.run_module('benchmarks.{name}', run_name='__main__', alter_sys=True)\n"
        "except SystemExit:\n"
        "    print({'torch', 'transformers', 'deepspeed', 'peft', 'scipy', 'dvc'} & set(sys.modules))\n"
    )
    result = python(ROOT, "-c", program)
    assert result.stdout.splitlines()[-1] == "set()", result.stderr
    assert f"usage: python -m benchmarks.{name}" in result.stdout


def test_a_function_runs_in_a_process_of_its_own():
    assert call_in_child("math:prod", [2, 3, 4]) == 24
    assert call_in_child(after_first, [10, 14, 18], [7, 20, 20]) == 5


def test_what_a_child_prints_is_not_its_result(tmp_path):
    (tmp_path / "loud.py").write_text("def shout(text):\n    print(text)\n    return {'said': text}\n")
    assert call_in_child("loud:shout", "{}\n[]", cwd=tmp_path) == {"said": "{}\n[]"}


def test_a_failed_child_ends_the_benchmark_with_its_error():
    with pytest.raises(ChildError, match=r"operator:truediv ended with 1: (?s:.*)ZeroDivisionError: division by zero"):
        call_in_child("operator:truediv", 1, 0)


def test_contenders_take_turns(capsys):
    order = []
    assert interleaved("ab", 2, lambda name: order.append(name) or len(order)) == {"a": [1, 3], "b": [2, 4]}
    assert order == ["a", "b", "a", "b"]
    assert capsys.readouterr().err.splitlines()[-1] == "round 2 of 2: b"


def test_a_markdown_table_is_shown_row_by_row(capsys):
    def rows():
        yield "ours", 1
        assert capsys.readouterr().out == "|  | s |\n|---|---|\n| ours | 1 |\n"
        yield "plain", 2

    assert show(table(("", "s"), rows())) == "|  | s |\n|---|---|\n| ours | 1 |\n| plain | 2 |"


JOB = {
    "rows": [{"input_ids": [1] * 10, "labels": [-100] * 4 + [1] * 6}] * 6,
    "max_tokens": 15,
    "per_token": 3,
    "per_supervised_token": 5,
}


def run(seconds: float, steps: int = 3, peak: float = 2.0) -> dict:
    return {"times": [10 + seconds * step for step in range(steps)], "losses": [3.0, 2.5, 2.0][:steps], "peak_gb": peak}


def test_the_work_of_a_step_by_hand():
    work = workload(JOB, 2)
    assert (work.tokens, work.supervised) == ([20] * 3, [12] * 3)
    assert work.operations == [3 * 20 + 5 * 12] * 3
    # Half of the head's work is its second product, of which a filter keeps a part.
    assert work.filtered == [2.5 * 12] * 3
    assert operations_done(run(2), work) == work.operations
    assert operations_done(run(2) | {"kept_share": 0.1}, work) == [120 - 27] * 3


def test_chunks_that_were_not_filtered_are_whole():
    assert kept_share({}) == 1
    assert kept_share({"loss_filter": {"chunks": 3, "exact_chunks": 3}}) == 1
    assert kept_share({"loss_filter": {"chunks": 4, "exact_chunks": 1, "kept_share_mean": 0.2}}) == pytest.approx(0.4)


def test_prompts_and_answers_of_a_gguf_server(tmp_path, monkeypatch):
    """Its program is a stand-in; what it answers is as in llama.cpp's own API."""
    program = tmp_path / "llama-server"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    tried = []

    def answer(asked):
        tried.append(asked.path)
        logprobs = {"content": [{"id": 8}, {"id": 9}, {"id": 2}]}
        choice = {"message": {"content": "好的"}, "finish_reason": "stop", "logprobs": logprobs}
        return {
            "/health": Said(200, {"status": "ok"}) if tried.count("/health") > 1 else Said(503, {"error": "loading"}),
            "/v1/models": models("m"),
            "/props": Said(200, {"default_generation_settings": {}, "build_info": "b1"}),
            "/apply-template": Said(200, {"prompt": "<p>"}),
            "/tokenize": Said(200, {"tokens": [5, 6, 7]}),
            CHAT: Said(200, {"choices": [choice], "usage": {"prompt_tokens": 3}}),
        }.get(asked.path, NOTHING)

    with fake_server(answer) as url:
        monkeypatch.setattr(gguf, "free_port", lambda: int(url.rpartition(":")[2]))
        found = gguf.ask(program, tmp_path / "m.gguf", [{"messages": [{"role": "user", "content": "你好"}]}], 4, 1)
    assert found == ([[5, 6, 7]], [{"ids": [8, 9], "text": "好的"}])


def test_rates_leave_out_the_first_step():
    assert after_first([10, 14, 18], [7, 20, 20]) == 5
    # A packed run has fewer steps: with rows of 15 tokens its first one holds 30 of the 60, and the second the rest.
    assert workload(JOB, 2).packing_factor == 1.5
    assert after_first([10, 14], [20, 20, 20], 1.5) == 7.5


def test_goals_of_training():
    work = workload(JOB, 2)
    runs = {
        "Tuneline": [run(2) | {"kept_share": 0.5}, run(4) | {"kept_share": 0.5}, run(2) | {"kept_share": 0.5}],
        SHORT: [run(2.5)],
        "LLaMA-Factory": [run(4)],
        "TRL": [run(12)],
        "TRL, packing": [run(8, 2)],
    }
    summaries = {name: summarize(rounds, work, product=100) for name, rounds in runs.items()}
    ours = summaries["Tuneline"]
    assert (ours.rate, ours.lowest, ours.highest, ours.share, ours.done_share) == (10, 5, 10, 0.6, 0.525)
    assert "| Tuneline | 10 (5–10) | 2.0 | 0.60 | 0.53 | 2.00 | 10 | 2.500 |" in throughput(summaries)
    lines = goal_table(goals(summaries))
    assert "| real tokens/s, of LLaMA-Factory's | 2 | ≥ 3 | 0.67 | not met |" in lines
    assert "| real tokens/s, of TRL's | 6 | ≥ 5.5 | 1.09 | met |" in lines
    assert "| peak memory | 2 GB | ≤ 2.5 GB | 1.25 | met |" in lines
    assert "| mean loss over the same rows, off TRL's | 0 % | ≤ 1 % | 99.00 | met |" in lines
    assert "| tokens/s of rows of 70 tokens, of long rows' | 0.8 | ≥ 0.85 | 0.94 | not met |" in lines
    assert "packing" not in lines
    assert goals({"TRL": summaries["TRL"]}) == []


def test_a_loss_that_is_too_low_misses_its_goal_like_one_that_is_too_high():
    assert [Goal("", off, 1.0, "%", at_most=True).ratio >= 1 for off in (-2.0, -0.5, 0.5, 2.0)] == [
        False,
        True,
        True,
        False,
    ]


def test_goals_of_the_pipeline_are_medians_of_the_rounds():
    found = Pipeline(200.0, {"train": 90.0, "export": 30.0}, [0.9, 0.5, 0.4], [41.0, 39.0, 38.0], [7.0, 9.0, 10.0])
    lines = goal_table(pipeline_goals(found))
    assert "| first step of the default begins, after start | 9 s | ≤ 8 s | 0.89 | not met |" in lines
    assert "| training, of `make repro` after downloads | 0.45 | ≥ 0.5 | 0.90 | not met |" in lines
    assert "| `dvc repro` with nothing to do, less `dvc status` | 0.5 s | ≤ 0.6 s | 1.20 | met |" in lines
    assert "| export of the default | 39 s | ≤ 40 s | 1.03 | met |" in lines


def test_short_rows_keep_the_share_that_is_supervised():
    row = {"input_ids": list(range(100)), "labels": [-100] * 20 + list(range(20, 100)), "question": "?"}
    short = cut(row, 10)
    assert short["input_ids"] == list(range(18, 28))
    assert short["labels"] == [-100, -100, *range(20, 28)]


def test_a_step_on_a_gpu_takes_its_kernels_or_their_launches():
    card = Card(products=1e12, float32=1e11, bandwidth=1e9)
    product, sum_of = Kernel("mm", 1000, 1e9, "bfloat16"), Kernel("add", 1_000_000, 0.0, "")
    small = Kernel("neg", 8, 0.0, "")
    assert [seconds(one, card) for one in (product, sum_of, small)] == pytest.approx([1e-3, 1e-3, 3e-6])
    assert seconds(product._replace(dtype="float32"), card) == pytest.approx(1e-2)
    assert rate([product, sum_of], 20, card) == "10,000"
    # 100 microseconds to launch ten kernels that take 30.
    assert rate([small] * 10, 100, card) == "1,000,000 (issuing; 3,333,333)"


def test_operations_of_products_and_of_causal_attention():
    left, right = torch.empty(3, 4, dtype=torch.bfloat16), torch.empty(4, 5, dtype=torch.bfloat16)
    assert operations("mm.default", [left, right], (3,)) == (120, "bfloat16")
    assert operations("addmm_.default", [torch.empty(3, 5), left, right], (3,)) == (120, "bfloat16")
    query = torch.empty(1, 2, 10, 8)
    forward = operations("_scaled_dot_product_flash_attention.default", [query] * 3, (10,))
    assert forward == (4 * 2 * 8 * 100 / 2, "float32")
    in_line = torch.empty(10, 2, 8)
    backward = operations("torch_attn._varlen_attn_backward.default", [in_line] * 4, (6, 4))
    assert backward == (2.5 * 4 * 2 * 8 * (36 + 16) / 2, "float32")
    assert operations("mul.Tensor", [left, left], (3,)) == (0, "")
