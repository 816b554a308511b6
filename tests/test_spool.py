"""The spool, whose parts lie in the files of several processes, and the index that they share."""

import numpy as np
import pytest

from tuneline.data.leaks.lookup import Lookup
from tuneline.data.leaks.rarity import RareGrams
from tuneline.data.spool import BOTH, INSTRUCTION, KEYS, QUESTION, Part, Spool, compared_texts, write_part


def test_rows_are_read_across_the_borders_of_parts(tmp_path, monkeypatch):
    texts = [f"\t{'问' * row}\t\t答{row}\n".encode() for row in range(9)]
    records = [f'{{"id":"{"x" * (9 - row)}"}}\n'.encode() for row in range(9)]
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool/left").write_text("by a run that was killed")
    with Spool(tmp_path / "spool") as spool:
        assert not [*spool.folder.iterdir()]
        for process, begin, end in ((1, 0, 4), (2, 4, 5), (1, 5, 5), (2, 5, 9)):
            monkeypatch.setattr("os.getpid", lambda process=process: process)
            part = write_part(spool.folder, b"".join(texts[begin:end]), b"".join(records[begin:end]))
            assert part.process == process
            spool.add(part, end - begin)
        keys = np.zeros(9, dtype=KEYS)
        keys["texts"], keys["record"] = [*map(len, texts)], [*map(len, records)]
        spool.finish(keys)
        for begin in range(10):
            for end in range(begin, 10):
                assert spool.records(begin, end) == b"".join(records[begin:end])
                assert spool.text_lines(begin, end) == b"".join(texts[begin:end])
        assert spool.record(4) == records[4]
        assert spool.texts(7, BOTH) == ("问" * 7, [], ["答7"])
    assert not spool.folder.exists()


def test_a_part_names_its_first_bytes(tmp_path):
    first, second = (write_part(tmp_path, b"12\n", b"1234\n") for _ in range(2))
    assert first == Part(first.process, 0, 0)
    assert second == Part(first.process, 3, 5)


@pytest.mark.parametrize(("part", "question"), [(BOTH, "译 早"), (INSTRUCTION, "译"), (QUESTION, "早")])
def test_the_part_of_a_question_that_is_compared(part, question):
    lines = "译\t早\t\t\n\t晚\t甲\x1f乙\t丙\x1f丁\n".encode()
    assert [*compared_texts(lines, [part, part])] == [(question, [], []), ("晚", ["甲", "乙"], ["丙", "丁"])]


def test_what_is_common_is_no_longer_looked_for_by_those_who_share_the_index(tmp_path):
    grams = RareGrams(["甲乙丙丁戊己"], limit=2)
    grams.lookup.share(tmp_path / "index")
    other = Lookup.shared(tmp_path / "index")
    rows = ["甲乙丙丁" for _ in range(4)] + ["丁戊己甲乙丙丁戊己"]
    found = other.look_up(rows, np.arange(5))
    assert found.equal == {}
    # Of a common one so many that it is seen to be common.
    assert len(found.pairs) == 3 + 2
    grams.add(found.pairs)
    # The one that four rows hold is gone, the two of the last row stay.
    assert len(other.look_up(rows, np.arange(5)).pairs) == 2
    assert other.look_up(["甲乙，丙丁戊己"], np.arange(1)).equal == {0: 0}
