"""Personal data and tags of HTML: what is found in texts, what is not, and what a person is told."""

import pytest

from tests.helpers.reading import lines, read, write
from tuneline.data.accounting import SourceCounts
from tuneline.data.cleaning import TAGS
from tuneline.data.notices.personal_data import EMAIL, IDENTITY, MOBILE, personal_data
from tuneline.data.remarks import remarks

NUMBER = "11010519491231002X"
"""The example of GB 11643-1999."""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("我的电话是13800138000，请回电", [MOBILE]),
        ("微信同号 138-0013-8000", [MOBILE]),
        ("+86 138 0013 8000", [MOBILE]),
        ("8613800138000", [MOBILE]),
        (f"身份证号：{NUMBER}。", [IDENTITY]),
        (f"身份证{NUMBER.lower()}，手机13800138000", [MOBILE, IDENTITY]),
        ("联系 zhang.san+icu@mail.hospital.com.cn 即可", [EMAIL]),
        # Wrong check digit, and a month that does not exist.
        ("110105194912310021", []),
        ("11010519491331002X", []),
        # Numbers of other things: a hotline, an order, a share, a date with a time, a mobile number with a digit too many.
        ("请拨打12345或120，热线 400-820-8820，座机010-12345678", []),
        ("订单 913800138000123456", []),
        ("概率为0.13800138000", []),
        ("2024-01-01 13:80:01", []),
        ("138001380001", []),
        ("@张三 看一下", []),
        ("", []),
    ],
)
def test_what_is_personal(text, found):
    assert list(personal_data(text)) == found


def test_a_record_counts_once_whatever_turn_it_is_in(tmp_path):
    personal = {"query": "我叫张三，13800138000", "response": "请加 a@b.cn 或13800138001"}
    rows = [personal, {"query": "感冒怎么办", "response": "多休息"}, personal]
    result = read(write(tmp_path / "a.jsonl", lines(*rows)))
    assert result.counts.noticed == {MOBILE: 2, EMAIL: 2}
    assert any("13800138001" in message["content"] for record in result.records for message in record["messages"])


def test_tags_of_html_are_counted_until_they_are_taken_out(tmp_path):
    rows = [{"query": f"<p>第{number}位病人发烧</p>", "response": "多喝水<br/>"} for number in range(3)]
    rows.append({"query": "血压<140，心率>60 正常吗", "response": "正常"})
    path = write(tmp_path / "a.jsonl", lines(*rows))
    counts = read(path).counts
    assert counts.noticed == {TAGS: 3}
    assert remarks("a", vars(counts))[0].endswith(
        "holds tags of HTML (3 items): html_tags in data.repairs takes them out"
    )
    assert read(path, {"repairs": ["trim", "html_tags"]}).counts.noticed == {}


def test_a_person_is_told():
    row = vars(SourceCounts()) | {"noticed": {EMAIL: 1, MOBILE: 1200}}
    assert remarks("visits", row) == [
        "convert: visits holds personal data, which a model may repeat: mobile numbers (1200 items), "
        "email addresses (1 items); names of people are not searched for"
    ]
