"""The token file: what goes in comes out, and the same rows give the same bytes."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import stages.tokenize
from tests.helpers.stages import run_main
from tuneline.formats.example import Encoded
from tuneline.formats.token_file import Tokens, TokenWriter, write_tokens
from tuneline.models.loading import load_tokenizer

ROWS = [Encoded([5, 6, 7], [-100, 6, 7]), Encoded([9, 8], [-100, 8]), Encoded([1, 2, 3, 4], [-100, -100, -100, 4])]


def test_round_trip(tmp_path):
    path = tmp_path / "tokens.safetensors"
    write_tokens(path, ROWS)
    tokens = Tokens(path)
    assert len(tokens) == 3
    assert tokens.lengths.tolist() == [3, 2, 4]
    assert tokens.supervised_per_row.tolist() == [2, 1, 1]
    for index, row in enumerate(ROWS):
        ids, labels = tokens.row(index)
        assert ids.dtype == labels.dtype == np.int64
        assert (ids.tolist(), labels.tolist()) == (row.input_ids, row.labels)
    write_tokens(tmp_path / "again.safetensors", ROWS)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_a_row_says_which_record_it_is_of_where_that_is_not_its_own_number(tmp_path):
    for numbers, stored in (([0, 1, 2], False), ([0, 0, 3], True)):
        writer = TokenWriter(tmp_path / "tokens")
        for row, number in zip(ROWS, numbers, strict=True):
            writer.add(row, record=number)
        writer.finish()
        tokens = Tokens(tmp_path / "tokens")
        assert (tokens.records.tolist(), b'"records"' in (tmp_path / "tokens").read_bytes()) == (numbers, stored)
        assert tokens.row(2)[0].tolist() == ROWS[2].input_ids


def test_a_missing_file_says_what_makes_it(tmp_path):
    with pytest.raises(ValueError, match="dvc repro tokenize"):
        Tokens(tmp_path / "tokens.safetensors")


def record(number: int, messages: list[dict]) -> dict:
    return {"id": f"s:{number}", "source": "s", "origin": f"f:{number}", "task": "qa", "messages": messages}


def pair(question: str, answer: str) -> list[dict]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


@pytest.fixture
def ready(workspace, canonical_base):
    """A workspace with a base; call it with the conversations to tokenize and changes to the section."""
    shutil.copytree(canonical_base, "models/base")
    Path("data/processed").mkdir()
    Path("metrics").mkdir()

    def tokenize(conversations: list, rejects: tuple = (), removed: tuple = (), **changes) -> dict:
        rows = [record(number, messages) for number, messages in enumerate(conversations)]
        for name, entries in (("train", rows), ("rejects", rejects), ("removed", removed)):
            Path(f"data/processed/{name}.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        total = dict.fromkeys(("items", "train", "heldout", "duplicates", "leaks", "rejected", "conflicts"), len(rows))
        more = {"reasons": {"broken_json": 2}, "repairs": {"trim": 1}, "placeholders": {"{{name}}": 3}, "files": 2}
        more |= {"formats": {"json": 2}, "skipped": ["s/README.md"], "leaks_kept": 0, "weight": 2.5}
        more |= {"encodings": {"a.json": "utf-8", "b.json": "big5"}, "markup": {"[INST]": 4}, "same_answers": {"无": 7}}
        more |= {"answers": {"cut_off": 5}, "scored_earlier": 6, "nothing_asked": 8, "beyond_limit": 9}
        more |= {"unused": {"images": 2, "meta.<b>": 1}, "noticed": {"masked_answers": 2}}
        Path("metrics/convert_details.json").write_text(json.dumps({"sources": {"s": total | more}, "total": total}))
        workspace(tokenize=changes)
        run_main(stages.tokenize)
        return json.loads(Path("metrics/tokenize.json").read_text())

    return tokenize


THREE = [pair("问", text) for text in ("好", "很好", "长" * 300)]


def test_the_stage_counts_what_it_leaves_out(ready):
    summary = ready(THREE, max_tokens=60)
    assert (summary["rows"], summary["overlong"], summary["answers_lost"]) == (2, 1, 1)
    tokens = Tokens(Path("data/processed/tokens.safetensors"))
    assert summary["tokens"] == tokens.lengths.sum()
    assert summary["supervised_tokens"] == tokens.supervised_per_row.sum()
    before = [Path(name).read_bytes() for name in ("data/processed/tokens.safetensors", "metrics/data.html")]
    run_main(stages.tokenize)
    assert [Path(n).read_bytes() for n in ("data/processed/tokens.safetensors", "metrics/data.html")] == before


def test_nothing_left_to_train_on_is_an_error(ready):
    with pytest.raises(ValueError, match=r"tokenize.max_tokens is 5 and the shortest of 3 rows has"):
        ready(THREE, max_tokens=5)
    assert not Path("data/processed/tokens.safetensors").exists()


def test_a_record_that_cannot_be_trained_on_is_named(ready):
    with pytest.raises(ValueError, match=r"record s:1 \(f:1\): message 1 is a system prompt"):
        ready([pair("问", "好"), [*pair("问", "好"), {"role": "system", "content": "x"}, *pair("问", "好")][1:]])


def test_prompts_have_a_limit_of_their_own(ready):
    conversations = [pair("问" * 100, "好"), pair("问", "好" * 100)]
    assert ready(conversations, max_tokens=500, max_prompt_tokens=60)["rows"] == 1


@pytest.mark.parametrize("policy", ["truncate_prompt", "split_turns"])
def test_long_rows_become_rows_that_fit(ready, policy, canonical_base):
    dialogue = [message for number in range(6) for message in pair(f"问{number}" * 20, f"答{number}" * 5)]
    summary = ready([dialogue, pair("问" * 200, "好")], max_tokens=150, overlong=policy)
    tokens = Tokens(Path("data/processed/tokens.safetensors"))
    assert tokens.lengths.max() <= 150
    tokenizer = load_tokenizer(canonical_base)
    supervised = [tokenizer.decode([int(i) for i in tokens.row(n)[1] if i != -100]) for n in range(len(tokens))]
    text = "".join(supervised)
    if policy == "split_turns":
        assert (summary["split"], summary["overlong"], summary["answers_lost"]) == (1, 1, 1)
        assert all(text.count(f"答{number}" * 5) == 1 for number in range(6)), "each answer whole, and in one row"
        assert len(tokens) == summary["rows"] > 1
        assert not tokens.records.any(), "all are parts of the first record"
    else:
        assert (summary["truncated"], summary["overlong"], summary["rows"]) == (2, 0, 2)
        assert "答5" * 5 in supervised[0]
        assert summary["answers_lost"] == 6 - text.count("答" * 1) // 5


def test_splitting_and_learning_only_the_last_answer_exclude_each_other(ready):
    with pytest.raises(ValueError, match="mask all_answers with overlong split_turns"):
        ready(THREE, overlong="split_turns", mask="last_answer")


@pytest.mark.parametrize("overlong", ["drop", "truncate_prompt", "split_turns"])
def test_masked_answers_are_in_no_policys_way(ready, overlong):
    """A dialogue of which the first answers are masked is cut as any other, and a part with nothing to learn is none."""
    masked = [{"role": "user", "content": "问" * 20}, {"role": "assistant", "content": "坏" * 20, "learn": False}]
    summary = ready(
        [[*masked, *masked, *pair("问" * 20, "好" * 20)], pair("问", "好")], max_tokens=200, overlong=overlong
    )
    rows = {"drop": (1, 1), "truncate_prompt": (2, 0), "split_turns": (2, 0)}
    assert (summary["rows"], summary["answers_lost"]) == rows[overlong]
    tokens = Tokens(Path("data/processed/tokens.safetensors"))
    _, labels = tokens.row(int(np.argmax(tokens.lengths)))
    assert overlong == "drop" or 0 < (labels != -100).sum() < len(labels) / 2


@pytest.mark.parametrize("overlong", ["truncate_prompt", "split_turns"])
@pytest.mark.parametrize("reasoning", ["learn", "mask", "drop"])
def test_a_part_fits_with_its_thoughts(ready, overlong, reasoning):
    thinking = pair("问" * 20, "好")
    thinking[-1]["reasoning"] = "想" * 30
    dialogue = [*pair("问", "坏"), *thinking]
    whole = ready([dialogue], max_tokens=1000, reasoning=reasoning)["longest"]
    summary = ready([dialogue], max_tokens=whole - 1, overlong=overlong, reasoning=reasoning)
    assert (summary["rows"], summary["longest"] < whole) == (1 + (overlong == "split_turns"), True)


def test_a_record_with_calls_is_refused_where_the_prompt_has_none(ready):
    call = {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {}}]}
    with pytest.raises(ValueError, match=r"record s:1 \(f:1\): .*own for gemma, which has no tools.*data.exclude"):
        ready([pair("问", "好"), [{"role": "user", "content": "问"}, call]], max_tokens=60)


def test_the_report_shows_what_became_of_the_data(ready):
    reject = {"source": "s", "origin": "f:9", "reason": "broken_json", "raw": "<b>{broken", "sha256": ""}
    leak = {"id": "s:7", "source": "s", "origin": "f:7", "why": "contains", "of": "s:8", "similarity": 0.75}
    removed = (
        leak | {"question": "相似的问题", "heldout": "留出的问题"},
        {"id": "s:6", "source": "s", "origin": "f:6", "why": "duplicate"},
    )
    ready(THREE, (reject,), removed, max_tokens=60)
    page = Path("metrics/data.html").read_text(encoding="utf-8")
    for text in ("&lt;start_of_turn&gt;", "s:1", "broken_json", "&lt;b&gt;{broken", "相似的问题", "留出的问题", "0.75"):
        assert text in page
    plain = re.sub("<[^>]*>", "", re.sub('<span class="zh".*?</span>', "", page))
    assert re.search(r"images\s*2 \(67%\)\s*s\s*meta.&lt;b&gt;\s*1 \(33%\)", plain)
    for text in (
        "dialogues with answers that are marked as not to be learnt: in the prompt, and masked: 2",
        "trim: 1",
        "unfilled {{name}}: 3",
        "skipped: s/README.md",
    ):
        assert text in plain
    assert "http://" not in page
    assert "https://" not in page
    assert page.count("<script") == 1, "what switches the language"
    listed = page[page.index('<ul class="checks">') :]
    (unchecked,) = [one for one in listed[: listed.index("</ul>")].split("<li>") if "Not checked: who wrote" in one]
    assert ">?</b>" in unchecked
    assert "soft" not in unchecked
    assert page.count("Not checked: who wrote") == 1
    tiles = page[page.index('<div class="tiles">') : page.index('<ul class="checks">')]
    assert tiles.count("<b>") == 6
    assert "%" not in tiles, "which share of the tokens is learnt stands below, with the tokens"
    assert "supervised fraction" in page
    for jargon in ("掩码", "放不下的回答", "每轮的行数"):
        assert jargon not in page
