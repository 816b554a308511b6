"""Markup of other chat templates in text: what is told, what becomes turns, and prose that stays as it is."""

import pytest

from tuneline.data.turns.conversation import Conversation
from tuneline.data.turns.foreign_markup import CONTROL_TOKENS, find_markup, turn_into_turns


def conversation(*texts: str) -> Conversation:
    roles = ("user", "assistant")
    return Conversation("qa", [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)], "", None)


def turns(found: Conversation) -> list[str]:
    return [f"{message['role'][0]} {message['content']}" for message in found.messages]


ALPACA = "Below is an instruction that describes a task.\n\n### Instruction:\n总结\n\n### Input:\n文章\n\n### Response:"
CHATML = "<|im_start|>system\n你是医生<|im_end|>\n<|im_start|>user\n发烧<|im_end|>\n<|im_start|>assistant\n"
MARKED = [
    ("[Round n]", ["[Round 0]\n问：发烧\n答：降温。\n[Round 1]\n问：去医院吗\n答：", "去。"],
     ["u 发烧", "a 降温。", "u 去医院吗", "a 去。"]),
    ("[Round n]", ["[Round 1]\n\n问：发烧\n\n答：", "降温。"], ["u 发烧", "a 降温。"]),
    ("Human: Assistant:", ["Human: 发烧\n\nAssistant: 降温。\n\nHuman: 去医院吗\n\nAssistant: ", "去。"],
     ["u 发烧", "a 降温。", "u 去医院吗", "a 去。"]),
    ("Human: Assistant:", ["Human: 发烧", "Assistant: 降温。"], ["u 发烧", "a 降温。"]),
    ("<s>问：", ["<s>问：\n发烧\n答：\n", "降温。"], ["u 发烧", "a 降温。"]),
    ("问： 答：", ["问：发烧\n答：", "降温。"], ["u 发烧", "a 降温。"]),
    ("[INST]", ["[INST] 发烧 [/INST]", "降温。</s>"], ["u 发烧", "a 降温。"]),
    ("[INST]", ["<s>[INST] <<SYS>>\n你是医生\n<</SYS>>\n\n发烧 [/INST] 降温。 </s><s>[INST] 去医院吗 [/INST]", "去。"],
     ["s 你是医生", "u 发烧", "a 降温。", "u 去医院吗", "a 去。"]),
    ("### Instruction:", [ALPACA, "好。"], ["u 总结\n文章", "a 好。"]),
    ("<|im_start|>", [CHATML, "降温。<|im_end|>"], ["s 你是医生", "u 发烧", "a 降温。"]),
    ("问： 答：", ["问：你好", "答：您好。", "问：发烧", "降温。"], ["u 你好", "a 您好。", "u 发烧", "a 降温。"]),
    ("Question: Answer:", ["Q: 发烧\nA:", "降温。"], ["u 发烧", "a 降温。"]),
    ("问题： 回答：", ["问题：发烧\n回答：", "降温。"], ["u 发烧", "a 降温。"]),
    ("用户： 助手：", ["用户：发烧\n客服：", "降温。"], ["u 发烧", "a 降温。"]),
    ("<user>:", [" <user>: 发烧 <bot>: 降温。 <user>: 去医院吗", "去。"], ["u 发烧", "a 降温。", "u 去医院吗", "a 去。"]),
    ("<|user|>", ["<|user|>\n发烧\n<|assistant|>\n", "降温。"], ["u 发烧", "a 降温。"]),
    ("USER: ASSISTANT:", ["A chat between two. USER: 发烧 ASSISTANT: 降温。</s>USER: 去吗 ASSISTANT:", "去。"],
     ["s A chat between two.", "u 发烧", "a 降温。", "u 去吗", "a 去。"]),
    ("<|start_header_id|>", ["<|start_header_id|>user<|end_header_id|>\n\n发烧<|eot_id|>", "降温。"], ["u 发烧", "a 降温。"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "texts", "expected"), MARKED)
def test_markup_is_told_and_becomes_turns(name, texts, expected):
    found = conversation(*texts)
    assert find_markup(found.messages) == name
    assert turn_into_turns(found)
    assert turns(found) == expected
    assert find_markup(found.messages) is None
    assert found.question


@pytest.mark.parametrize(
    ("texts", "name"),
    [
        (["请翻译：Human: 你好 Assistant: hi", "好"], None),
        (["请总结对话：\nHuman: 你好\nAssistant: hi", "好"], None),
        (["User: root 登录不了怎么办", "重置密码"], None),
        (["甲问：你去吗？乙答：不去。谁去？", "丙"], None),
        (["问：小明有几个苹果", "三个"], None),
        (["<s>删除线</s>怎么写", "用<s>标签</s>"], None),
        (["Markdown 里 ### 标题怎么写", "### 标题\n这样"], None),
        (["[INST] 标记是什么", "一个标记"], CONTROL_TOKENS),
        (["<|im_start|>是什么意思", "一个标记"], CONTROL_TOKENS),
        (["吃药<|assistant|>\n好的<|user|>", "降温。</s><|observation|>sop[gMASK]"], CONTROL_TOKENS),
        (["Question: 选哪个\nA: 苹果\nB: 梨", "A"], None),
        (["写一段对话", "用户：你好\n助手：您好"], None),
        (["写一段对话", "Human: 你好\nAssistant: 您好"], "Human: Assistant:"),
    ],
)
def test_words_in_prose_stay_text(texts, name):
    found = conversation(*texts)
    assert find_markup(found.messages) == name
    assert not turn_into_turns(found)
    assert [message["content"] for message in found.messages] == texts


def test_an_answer_that_is_not_to_be_learnt_stays_one():
    found = conversation("[Round 0]\n问：发烧\n答：", "降温。", "[Round 1]\n问：去医院吗\n答：", "去。")
    found.messages[1]["learn"] = False
    assert turn_into_turns(found)
    assert turns(found) == ["u 发烧", "a 降温。", "u 去医院吗", "a 去。"]
    assert [message.get("learn") for message in found.messages] == [None, False, None, None]


def test_thoughts_stay_before_their_answer():
    found = conversation("[Round 0]\n问：发烧\n答：", "降温。", "[Round 1]\n问：去医院吗\n答：", "去。")
    found.messages[3]["reasoning"] = "想"
    assert turn_into_turns(found)
    assert [message.get("reasoning") for message in found.messages] == [None, None, None, "想"]
    plain = conversation("发烧", "降温。")
    plain.messages[1]["reasoning"] = "想"
    assert not turn_into_turns(plain)
