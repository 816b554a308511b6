"""Forgetting: general prompts that no training set of ours is about, answered by base and tuned model.

The base's own answers are also scored under the tuned model: where their NLL rises, the tuned model has moved away from
what the base would say. A base that was only pretrained answers some of them badly; what counts is the change.
"""

from typing import TYPE_CHECKING, TypedDict

from tuneline.evaluate.config import Evaluate
from tuneline.formats.records import Message

if TYPE_CHECKING:
    from tuneline.evaluate.predict import Model

PROMPTS = {
    "sort": "用 Python 写一个函数，把一个整数列表从小到大排序，不使用内置的排序函数。",
    "poem": "写一首关于秋天的四句短诗。",
    "arithmetic": "小明有 37 个苹果，送给同学 15 个，又买来 8 个。现在他有几个苹果？写出算式。",
    "to_english": "把这句话翻译成英文：今天的会议改到明天下午三点。",
    "to_chinese": "Translate into Chinese: The library is closed on public holidays.",
    "summary": "用一句话概括：昨夜一场大雨使河水上涨，村民连夜加固堤坝，到清晨水位开始回落，没有人受伤。",
    "capital": "澳大利亚的首都是哪座城市？",
    "explain": "用小学生能听懂的话解释：为什么天空是蓝色的？",
    "email": "替我写一封简短的邮件，向老师请一天病假。",
    "recipe": "番茄炒蛋怎么做？请分步骤写。",
    "compare": "比较骑自行车和开车上班的优点与缺点，各写两条。",
    "sentiment": "判断这条评论是好评还是差评：等了一个小时，菜还是凉的。",
    "json": "把“张伟，28 岁，住在成都”写成 JSON，键用 name、age、city。",
    "next": "接着往下数三个数：2，4，8，16，",
    "idiom": "“画蛇添足”是什么意思？用它造一个句子。",
    "english": "Explain in two sentences what a database index is for.",
    "logic": "所有的猫都怕水，咪咪是猫。咪咪怕水吗？为什么？",
    "plan": "给一个周末去北京两天的人安排一份行程。",
    "regex": "Write a regular expression that matches a date such as 2024-05-31.",
    "refuse": "你能看到我电脑里的文件吗？",
}


TOKENS = 96
"""Longest answer, whatever the task's own answers are like."""


class General(TypedDict):
    """One line of base_general.jsonl and general.jsonl."""

    id: str
    question: str
    prediction: str
    stopped_at_eos: bool
    """Whether the model ended its answer with a stop token."""
    nll: float
    """Of the base's answer in nats, with its end token where the base generated one."""
    tokens: int


def predict_general(model: "Model", params: Evaluate, label: str, base: list[General] | None = None) -> list[General]:
    """Answers to PROMPTS; `nll` is that of the `base`'s answers, or without them of the model's own."""
    from tuneline.evaluate.predict import generate
    from tuneline.models.chat_format import Prompter
    from tuneline.models.likelihood import answer_nll

    prompter = Prompter(model.tokenizer)
    questions: list[list[Message]] = [[{"role": "user", "content": text}] for text in PROMPTS.values()]
    own = params.model_copy(update={"max_new_tokens": TOKENS})
    generated, _ = generate(model, prompter, questions, own, f"{label}: general")
    scored = [(output.text, output.stopped_at_eos) for output in generated]
    if base is not None:
        scored = [(line["prediction"], line["stopped_at_eos"]) for line in base]
    lines: list[General] = []
    for (name, question), output, (text, stopped) in zip(PROMPTS.items(), generated, scored, strict=True):
        turns: list[Message] = [{"role": "user", "content": question}, {"role": "assistant", "content": text}]
        nll = answer_nll(model.network, prompter.training_row(turns, "last_answer"))
        # The end of an answer that was cut off is nothing that the base generated.
        nll = nll if stopped or len(nll) == 1 else nll[:-1]
        total = round(float(nll.double().sum()), 6)
        lines.append(
            {
                "id": name,
                "question": question,
                "prediction": output.text,
                "stopped_at_eos": output.stopped_at_eos,
                "nll": total,
                "tokens": len(nll),
            }
        )
    return lines
