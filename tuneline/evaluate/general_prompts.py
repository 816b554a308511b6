"""Forgetting: general prompts that no training set of ours is about, answered by base and tuned model.

A written answer to each is scored under both models: where its NLL rises, the tuned model knows less of what training was
not about. The models' own answers are shown beside each other and not scored: those of a base that was only pretrained
are loops, of which nothing can be forgotten.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from tuneline.evaluate.config import Evaluate
from tuneline.evaluate.prompts.own import read_own_prompts
from tuneline.formats.records import Message

if TYPE_CHECKING:
    from tuneline.evaluate.predict import Model


class GeneralPrompt(NamedTuple):
    question: str
    answer: str
    """A good answer, of which the NLL is measured."""


PROMPTS = {
    "sort": GeneralPrompt(
        "用 Python 写一个函数，把一个整数列表从小到大排序，不使用内置的排序函数。",
        "def sort_numbers(numbers):\n    result = []\n    for number in numbers:\n        place = 0\n"
        "        while place < len(result) and result[place] < number:\n            place += 1\n"
        "        result.insert(place, number)\n    return result",
    ),
    "poem": GeneralPrompt(
        "写一首关于秋天的四句短诗。",
        "秋风吹过旧篱笆，\n黄叶轻轻落满阶。\n雁影南飞云渐远，\n一轮明月照归人。",
    ),
    "arithmetic": GeneralPrompt(
        "小明有 37 个苹果，送给同学 15 个，又买来 8 个。现在他有几个苹果？写出算式。",
        "37 - 15 + 8 = 30，小明现在有 30 个苹果。",
    ),
    "to_english": GeneralPrompt(
        "把这句话翻译成英文：今天的会议改到明天下午三点。",
        "Today's meeting has been moved to three o'clock tomorrow afternoon.",
    ),
    "to_chinese": GeneralPrompt(
        "Translate into Chinese: The library is closed on public holidays.",
        "图书馆在公共假期闭馆。",
    ),
    "summary": GeneralPrompt(
        "用一句话概括：昨夜一场大雨使河水上涨，村民连夜加固堤坝，到清晨水位开始回落，没有人受伤。",
        "大雨使河水上涨，村民连夜加固堤坝，清晨水位回落，无人受伤。",
    ),
    "capital": GeneralPrompt(
        "澳大利亚的首都是哪座城市？",
        "澳大利亚的首都是堪培拉。",
    ),
    "explain": GeneralPrompt(
        "用小学生能听懂的话解释：为什么天空是蓝色的？",
        "太阳光里有很多种颜色。光穿过空气时，蓝色的光最容易被空气弹向四面八方，所以我们抬头看，到处都是蓝色。",
    ),
    "email": GeneralPrompt(
        "替我写一封简短的邮件，向老师请一天病假。",
        "王老师：\n您好！我今天发烧了，想请一天病假，明天再到校上课。落下的功课我会补上。\n学生 李明",
    ),
    "recipe": GeneralPrompt(
        "番茄炒蛋怎么做？请分步骤写。",
        "1. 番茄切块，鸡蛋打散，加少许盐。\n2. 热锅放油，把鸡蛋炒到凝固，盛出。\n"
        "3. 放入番茄，炒出汁。\n4. 倒回鸡蛋，加盐和一点糖，翻匀出锅。",
    ),
    "compare": GeneralPrompt(
        "比较骑自行车和开车上班的优点与缺点，各写两条。",
        "骑自行车的优点：锻炼身体，不花油钱。缺点：怕下雨，走不了太远。\n开车的优点：舒适，能带很多东西。缺点：容易堵车，停车要花钱。",
    ),
    "sentiment": GeneralPrompt(
        "判断这条评论是好评还是差评：等了一个小时，菜还是凉的。",
        "差评。",
    ),
    "json": GeneralPrompt(
        "把“张伟，28 岁，住在成都”写成 JSON，键用 name、age、city。",
        '{"name": "张伟", "age": 28, "city": "成都"}',
    ),
    "next": GeneralPrompt(
        "接着往下数三个数：2，4，8，16，",
        "32，64，128",
    ),
    "idiom": GeneralPrompt(
        "“画蛇添足”是什么意思？用它造一个句子。",
        "“画蛇添足”比喻做多余的事，反而把事情弄坏。例如：这篇文章已经写得很完整了，再加一段就是画蛇添足。",
    ),
    "english": GeneralPrompt(
        "Explain in two sentences what a database index is for.",
        "A database index lets the database find rows by the value of a column without reading the whole table. "
        "It makes queries faster, at the cost of extra space and slower writes.",
    ),
    "logic": GeneralPrompt(
        "所有的猫都怕水，咪咪是猫。咪咪怕水吗？为什么？",
        "怕。所有的猫都怕水，而咪咪是猫，所以咪咪也怕水。",
    ),
    "plan": GeneralPrompt(
        "给一个周末去北京两天的人安排一份行程。",
        "第一天：上午参观故宫，下午登景山看全景，晚上逛王府井。\n第二天：上午去八达岭长城，下午游颐和园，傍晚返程。",
    ),
    "regex": GeneralPrompt(
        "Write a regular expression that matches a date such as 2024-05-31.",
        "\\d{4}-\\d{2}-\\d{2}",
    ),
    "refuse": GeneralPrompt(
        "你能看到我电脑里的文件吗？",
        "不能。我只能看到你在对话里发给我的内容，看不到你电脑里的文件。",
    ),
}


TOKENS = 96
"""Longest answer, whatever the task's own answers are like."""


def prompts_of(params: Evaluate) -> Mapping[str, GeneralPrompt]:
    """The prompts by id: PROMPTS, or those of evaluate.general. Raises what read_own_prompts does."""
    if params.general is None:
        return PROMPTS
    return {name: GeneralPrompt(*texts) for name, texts in read_own_prompts(params.general).items()}


def question_of(prompt: GeneralPrompt) -> list[Message]:
    return [{"role": "user", "content": prompt.question}]


class General(TypedDict):
    """One line of base_general.jsonl and general.jsonl."""

    id: str
    question: str
    prediction: str
    stopped_at_eos: bool
    """Whether the model ended its answer with a stop token."""
    nll: float | None
    """Of the written answer in nats, without its end token, which a base that was only pretrained has not learnt; None where a
    server answered that can't say."""
    tokens: int


def predict_general(model: "Model", params: Evaluate, label: str, names: Sequence[str] | None = None) -> list[General]:
    """The model's answers to the general prompts, or those of these names, and the NLL of the written ones."""
    from tuneline.evaluate.predict import generate, prompter_of
    from tuneline.models.likelihood import answer_nlls

    prompter = prompter_of(model.tokenizer)
    prompts = prompts_of(params)
    names = list(prompts) if names is None else names
    chosen = [prompts[name] for name in names]
    questions = [question_of(prompt) for prompt in chosen]
    own = params.model_copy(update={"max_new_tokens": TOKENS})
    generated, _ = generate(model, prompter, questions, own, f"{label}: general")
    rows = [
        prompter.training_row([*question, {"role": "assistant", "content": prompt.answer}], "last_answer")
        for prompt, question in zip(chosen, questions, strict=True)
    ]
    nlls = answer_nlls(model.network, rows, [output.batch for output in generated], f"{label}: general NLL")
    lines: list[General] = []
    for name, prompt, output, with_end in zip(names, chosen, generated, nlls, strict=True):
        nll = with_end[:-1]
        lines.append(
            {
                "id": name,
                "question": prompt.question,
                "prediction": output.text,
                "stopped_at_eos": output.stopped_at_eos,
                "nll": round(float(nll.double().sum()), 6),
                "tokens": len(nll),
            }
        )
    return lines


def read_general(path: Path, params: Evaluate) -> list[General]:
    """The base's lines that predict_base wrote. Raises ValueError where they are of other prompts than are asked now."""
    from tuneline.evaluate.predict import read_answers

    prompts, before = prompts_of(params), read_answers(path)
    if [(line["id"], line["question"]) for line in before] != [(name, one.question) for name, one in prompts.items()]:
        raise ValueError(
            f"{path} holds answers to {len(before)} other general prompts than the {len(prompts)} of evaluate.general "
            f"({params.general or 'null'}): run `dvc repro predict_base`"
        )
    return before
