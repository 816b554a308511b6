"""An evaluation to write reports of: 50 items of three kinds, answered by a base that rambles and by a tuned model."""

from typing import Any

from tuneline.evaluate.compare import change_on_general, compare
from tuneline.evaluate.report import Facts
from tuneline.evaluate.results import prediction_rows

INSTRUCTION = "\n应挂哪个科？只答科室。"
COMPLAINTS = {
    "呼吸内科": ["咳嗽两周，夜里加重，没有发热。", "爬两层楼就喘，早上痰多。", "胸口闷，吸气时有哨声。"],
    "消化内科": ["饭后上腹胀痛，反酸一个月。", "拉肚子三天，一天五六次。", "大便带黏液，肚子隐隐作痛。"],
    "心血管内科": ["早上量血压一百六，头有点涨。", "坐着不动心跳忽然加快。"],
    "骨科": ["崴了脚，外侧肿得厉害。", "搬东西后腰疼，弯不下去。", "膝盖下楼梯时疼。"],
    "皮肤科": ["手背起红疹，冬天就痒。", "脸上长痘，挤了留印。"],
    "儿科": ["三岁孩子夜里哭闹，摸着发烫。", "宝宝六个月，吐奶次数变多。"],
    "眼科": ["右眼发红，早上分泌物多。", "看近处的字越来越模糊。"],
    "耳鼻喉科": ["鼻子一到春天就痒，连打喷嚏。", "左耳嗡嗡响了一星期。"],
    "口腔科": ["喝冷水时后牙酸痛。", "刷牙总出血。"],
    "妇科": ["月经推迟十天，小腹坠。", "经期疼得要卧床。", "白带增多，有些痒。"],
}
"""By department: 24."""
HEALTH = {
    "感冒了能不能洗澡？": "可以洗温水澡，注意保暖、时间短一些。若高烧不退，请到医院就诊。",
    "喝酒后头疼怎么办？": "多喝温水，好好休息，不要再饮酒。若剧烈头疼或反复呕吐，请及时就医。",
    "经常熬夜对身体有什么影响？": "容易疲劳、免疫力下降、记忆变差。若长期失眠，请到睡眠门诊就诊。",
    "饭后多久可以运动？": "散步半小时后就可以，剧烈运动等一个半小时。若运动时胸痛，请立即就医。",
    "眼睛干涩怎么缓解？": "每看屏幕二十分钟远眺一会儿，多眨眼。若疼痛或视力下降，请到眼科检查。",
    "嗓子疼吃什么好？": "吃温凉的软食，多喝水，少说话。若三天不见好或呼吸费力，请到耳鼻喉科就诊。",
    "老人便秘怎么办？": "多吃蔬菜水果，多喝水，每天走一走。若大便带血或消瘦，请到消化内科就诊。",
    "孩子挑食怎么办？": "少量多样，固定吃饭时间，不强迫。若体重不增，请到儿科检查。",
    "脚气会传染吗？": "会，毛巾鞋袜要分开用，保持脚部干燥。若红肿流水，请到皮肤科就诊。",
    "被猫抓伤要紧吗？": "先用肥皂水冲洗十五分钟。请尽快到医院，由医生判断是否要打疫苗。",
    "胃胀气怎么缓解？": "慢慢吃，少吃豆类和汽水，饭后走一走。若持续疼痛，请到消化内科就诊。",
    "血压高能喝咖啡吗？": "少量可以，喝后心慌就停。若血压持续偏高，请到心血管内科就诊。",
    "牙龈出血怎么回事？": "多半是牙龈发炎，早晚刷牙、用牙线。若两周不见好，请到口腔科检查。",
    "落枕了怎么办？": "热敷，慢慢活动脖子，不要硬扳。若手麻或疼痛加重，请到骨科就诊。",
    "晒伤后怎么处理？": "冷敷，涂保湿霜，不要挑破水泡。若大片起泡或发烧，请到皮肤科就诊。",
    "晕车怎么预防？": "坐前排看远处，上车前少吃油腻。若平时也头晕，请到神经内科就诊。",
    "贫血吃什么好？": "多吃红肉、猪肝和深色蔬菜。若头晕乏力明显，请到医院查血。",
    "指甲上有竖纹要紧吗？": "多数是正常的，随年龄增加。若颜色发黑或变形，请到皮肤科检查。",
    "跑步后膝盖疼怎么办？": "先休息冷敷，减少跑量。若肿胀或走路也疼，请到骨科就诊。",
    "睡觉打呼噜要治吗？": "侧睡、减重、少饮酒会好一些。若睡着时憋气，请到呼吸内科检查。",
}
"""20."""
SELF = {
    "你是谁？": "我是小航，由泉线工作室开发的人工智能助手。",
    "你叫什么名字？": "我叫小航，是泉线工作室开发的人工智能助手。",
    "谁开发了你？": "我由泉线工作室开发。",
    "你能做什么？": "我是小航，可以回答问题、整理资料。",
    "你是真人吗？": "不是，我是小航，一个人工智能助手。",
    "介绍一下你自己。": "您好，我是小航，由泉线工作室训练的语言模型。",
}
"""6."""
LOOP = "律师解答:" * 26 + "律师"
NEIGHBOURS = {"呼吸内科": "心血管内科", "儿科": "消化内科", "妇科": "消化内科"}
"""What the tuned model takes a department's second complaint for."""


def records() -> list[dict[str, Any]]:
    pairs = [("label", ask + INSTRUCTION, right) for right, asks in COMPLAINTS.items() for ask in asks]
    pairs += [("qa", ask, right) for ask, right in (HEALTH | SELF).items()]
    return [
        {
            "id": f"s:{number:02}", "source": "s", "origin": "f", "task": task,
            "messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": right}],
        }
        for number, (task, ask, right) in enumerate(pairs)
    ]  # fmt: skip


def answer(record: dict[str, Any], said: str, ended: bool, nll: float) -> dict[str, Any]:
    right = record["messages"][-1]["content"]
    sizes = {"tokens": len(right), "characters": len(right), "nll": nll * len(right)}
    return {"id": record["id"], "prediction": said, "stopped_at_eos": ended, "batch": 0} | sizes


def rambling(record: dict[str, Any]) -> dict[str, Any]:
    """The base's way: it says the question again until it is cut off."""
    return answer(record, (record["messages"][0]["content"] + " 課程user\n") * 9, False, 3.2)


def learned(record: dict[str, Any], number: int) -> dict[str, Any]:
    """The tuned model's: most labels are right, and most of a reference is said."""
    right = record["messages"][-1]["content"]
    if record["task"] == "label":
        wrong = NEIGHBOURS.get(right) if number % 3 == 1 else None
        return answer(record, wrong or right, True, 1.4 if wrong else 0.2)
    first, *rest = right.split("。")
    said = [right, f"{first}，多喝水。{''.join(rest)}。", "建议多休息、多喝水。若不见好，请到医院就诊。"][number % 3]
    return answer(record, right if number >= 44 else said, True, 1.0 + number % 5 / 10)


def evaluated(kind: str = "learned") -> list[dict[str, Any]]:
    """Rows of predictions.jsonl; the tuned model has `learned`, or it is `looping`, or the `same` as the base."""
    items = records()
    tuned = {
        "learned": learned,
        "looping": lambda record, _: answer(record, LOOP, False, 2.9),
        "same": lambda record, _: rambling(record),
    }[kind]
    base = [rambling(record) for record in items]
    return prediction_rows(items, base, [tuned(record, number) for number, record in enumerate(items)])


def facts(change: float = 0.1) -> Facts:
    """`change` is that of the NLL per token on general prompts."""
    names = {"triage": 520, "health": 90, "self_cognition": 30}
    term = {"duplicates": 0, "leaks": 0, "rejected": 0}
    sources = {name: {"items": train + 10, "train": train, "heldout": 10} | term for name, train in names.items()}
    prompts = {
        "poem": "写一首关于秋天的四句短诗。",
        "capital": "澳大利亚的首都是哪座城市？",
        "plan": "给周末去北京的人安排行程。",
    }
    base, tuned = (
        [
            {"id": name, "question": text, "prediction": said, "stopped_at_eos": said != "", "tokens": 10}
            | {"nll": 10 * (0.3 + number / 20 + more)}
            for number, (name, text) in enumerate(prompts.items())
        ]
        for said, more in (("秋天是春天的季节，" * 9, 0.0), ("秋风起，叶儿黄。", change))
    )
    config = {"model_type": "gemma3_text", "num_hidden_layers": 18, "hidden_size": 640}
    training = {"steps": 100, "rows_seen": 800, "trainable_parameters": 3796992, "total_parameters": 271895168}
    params = {"tune": {"method": "lora"}, "lora": {"r": 16, "alpha": 32}, "train": {"learning_rate": 0.001}}
    curve = [(step, 0.35 + 12 / step) for step in range(1, 101)]
    notice = "Gemma 3 270M (pretrained), by Google DeepMind, quantised to Q4_K_M."
    return Facts(config, params, training, {"sources": sources}, curve, (base, tuned), notice)


def metrics_of(rows: list[dict[str, Any]], facts: Facts) -> dict[str, Any]:
    return compare(rows) | {"general": change_on_general(*facts.general)}
