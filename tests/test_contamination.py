"""Which rows leak a held-out item, and which only look alike; rarity of n-grams by a plain count."""

import random
from collections import defaultdict

import numpy as np
import pytest

from tuneline.data.leaks.contamination import HeldoutIndex, closest_leaks
from tuneline.data.leaks.grams import GRAM
from tuneline.data.leaks.rarity import RareGrams
from tuneline.data.spool import ComparedTexts
from tuneline.formats.records import normalise

RENT = "我在北京租房合同没有到期房东要我马上搬走怎么办"
EXAM = (
    "张某与李某签订房屋买卖合同，约定张某将其房屋卖给李某，李某支付定金后张某又将房屋卖给王某并办理了过户登记，"
    "李某应当如何主张权利"
)
ENGLISH = "How should lactose intolerance be diagnosed in adults who also take omeprazole every day for years?"
FILLER = [
    f"孩子{a}{b}应该怎么护理"
    for a in ("发烧", "咳嗽", "腹泻", "头痛", "湿疹")
    for b in ("两天了", "好几天", "一直不好")
]


def leaks(heldout: list, rows: list, dialogues: bool = False) -> dict:
    """Row to its leak. An entry is a question, or a question and an answer."""
    opening = ["你好医生我想咨询一下"] if dialogues else []
    texts = [
        ComparedTexts(normalise(question), opening, [normalise(text) for text in answer])
        for question, *answer in ([entry] if isinstance(entry, str) else entry for entry in (*heldout, *rows))
    ]
    items, others = texts[: len(heldout)], texts[len(heldout) :]
    count = len(items)
    index = HeldoutIndex([str(number) for number in range(count)], items, list(range(count)), count, len(texts))
    found = {}
    numbers = np.arange(len(others))
    questions = index.questions.lookup.look_up([row.question for row in others], numbers)
    index.questions.add(questions.pairs)
    answers = [(number, text) for number, row in enumerate(others) for text in row.answers]
    index.answers.add(
        index.answers.lookup.look_up(
            [text for _, text in answers], np.array([number for number, _ in answers], dtype=int)
        ).pairs
    )
    for row, candidates in index.candidates().items():
        found[row] = index.judge(others[row], candidates)
    return closest_leaks(found)


@pytest.mark.parametrize(
    ("question", "row", "why"),
    [
        (RENT, RENT + "？", "equal"),
        (RENT, f"标题：租房纠纷。{RENT}，请问律师", "contains"),
        (f"我是一名学生，{RENT}", RENT, "part"),
        (RENT, "我在南京租房合同没有到期房东要我立刻搬走怎么办", "renamed"),
        (EXAM, EXAM.replace("张某", "赵某").replace("李某", "孙某").replace("王某", "钱某"), "renamed"),
        (EXAM, "，".join(reversed(EXAM.split("，"))), "contains"),
        (ENGLISH, ENGLISH.upper().replace("?", "!"), "equal"),
        (ENGLISH, f"Good morning. {ENGLISH} Thank you.", "contains"),
        (RENT, "交通事故对方全责但是一直不肯赔钱应该怎么办呢", None),
        ("2岁儿童体重12公斤布洛芬混悬液一次应该吃多少毫升", "3岁儿童体重14公斤布洛芬混悬液一次应该吃多少毫升", None),
        ("民法典第五百七十七条规定的内容是什么呢请完整背诵", "民法典第五百八十条规定的内容是什么呢请完整背诵", None),
        ("继发性胃炎有哪些典型症状", "原发性胃炎有哪些典型症状", None),
        ("How to diagnose lactose intolerance?", "How to prevent lactose intolerance?", None),
    ],
)
def test_what_leaks(question, row, why):
    found = leaks([question], [*FILLER, row])
    assert {number: leak.why for number, leak in found.items()} == ({len(FILLER): why} if why else {})
    assert all(0.5 <= leak.similarity <= 1 for leak in found.values())


def test_a_template_is_no_leak_however_long():
    opening = "你是一名经验丰富的全科医生，请根据患者的描述给出诊断和治疗建议，回答要专业、准确、简洁。患者描述："
    ending = "请用中文分点作答，说明病因、检查、用药和日常护理，不要超过三百字。"
    rows = [f"{opening}{text}。{ending}" for text in FILLER]
    assert leaks(rows[:3], rows[3:]) == {}


def test_a_few_rows_that_fill_in_the_same_template_are_no_leaks():
    frame = "{}术后的病人出院回家以后应该怎样安排每天的饮食和运动需要多长时间到医院复查一次呢"
    rows = [frame.format(name) for name in ("胆囊", "阑尾", "胃癌", "白内障", "甲状腺", "疝气")]
    assert leaks(rows[:1], [*FILLER, *rows[1:]]) == {}


def test_rows_about_the_same_long_passage_leak():
    passage = "".join(f"{number + 3}月的甲方{word}" for number, word in enumerate(FILLER))
    assert len(passage) > 200
    rows = [f"{passage}。问题：谁应当赔偿", f"{passage}。问题：合同何时解除"]
    (leak,) = leaks(rows[:1], [*(f"{text}吗" for text in FILLER[:2]), rows[1]]).values()
    assert leak.similarity >= 0.9


def test_a_long_answer_leaks_and_a_short_one_does_not():
    long = "先物理降温并多喝温水，体温超过三十八度五时按体重服用退烧药，如果精神差、抽搐或者持续三天不退就要马上去医院"
    for answer, why in ((long, "answer"), ("建议多喝水，注意休息", None)):
        rows = [
            *((text, f"第{number}个回答") for number, text in enumerate(FILLER)),
            ("婴儿体温高怎么处理才好", answer),
        ]
        found = leaks([("宝宝半夜发热", answer)], rows)
        assert [leak.why for leak in found.values()] == ([why] if why else [])


def test_a_farewell_ends_many_dialogues_and_leaks_none():
    farewells = [f"好的，{text}谢谢医生的解答" for text in ("我明白了，", "", "我知道了，", "明白了，")]
    asked = [(text, "回答") for text in (*farewells[1:], *FILLER)]
    assert leaks([(farewells[0], "不客气")], asked, dialogues=True) == {}


def test_rare_grams_are_those_of_a_plain_count():
    generator = random.Random(5)
    texts = ["".join(generator.choices("甲乙丙丁戊", k=generator.randint(0, 30))) for _ in range(300)]
    items, rows = (
        texts[:20],
        texts[20:] + [text[: len(text) // 2] + "乙" + text[len(text) // 2 + 1 :] for text in texts[:20]],
    )
    holders = defaultdict(set)
    for number, row in enumerate(rows):
        for start in range(len(row) - GRAM + 1):
            holders[row[start : start + GRAM]].add(number)
    limit = 4
    index = RareGrams(items, limit)
    for begin in range(0, len(rows), 7):
        numbers = np.arange(begin, min(begin + 7, len(rows)))
        index.add(index.lookup.look_up(rows[begin : begin + 7], numbers).pairs)
    expected = set()
    for number, item in enumerate(items):
        grams = {item[start : start + GRAM] for start in range(len(item) - GRAM + 1)}
        rare = [gram for gram in grams if 0 < len(holders[gram]) <= limit]
        for row in set().union(*(holders[gram] for gram in rare)):
            count = sum(row in holders[gram] for gram in rare)
            if count >= max(min(2, len(grams)), 0.15 * len(grams)):
                expected.add((row, number))
            held = {gram for gram in grams if row in holders[gram]}
            assert index.shared(number, rows[row]) == (len(held), sum(len(holders[gram]) <= limit for gram in held))
    assert set(index.candidates(0.15)) == expected
    assert expected


def test_nothing_to_compare_with_leaks_nothing():
    assert leaks([], FILLER) == {}
    assert leaks([RENT, "你"], []) == {}
