"""Raw files of the form that each ChatGLM3 recipe asks for."""

import json
import random
from pathlib import Path

ILLS = [
    "感冒",
    "头痛",
    "咳嗽",
    "失眠",
    "发烧",
    "腹泻",
    "胃痛",
    "过敏",
    "便秘",
    "贫血",
    "湿疹",
    "痛风",
    "哮喘",
    "鼻炎",
    "牙痛",
    "扭伤",
]
PAIRS = ["、".join(random.Random(n).sample(ILLS, 4)) for n in range(len(ILLS))]
"""No two alike, so that none leaks."""
CARES = ["多休息", "多喝水", "少熬夜", "早就医"]


def write_lines(path: Path, rows: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def legal(raw: Path) -> None:
    rows = [
        {
            "instruction": f"第{n}条：{ill}时单位能否辞退我？",
            "input": "",
            "output": f"不能。{CARES[n % 4]}，并保留证据。",
        }
        for n, ill in enumerate(PAIRS)
    ]
    (raw / "legal").mkdir(parents=True)
    (raw / "legal/questions.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")


def medical(raw: Path) -> None:
    lines = ["department,title,ask,answer"]
    lines += [f"内科,{ill},我{ill}{n}天了怎么办？,{CARES[n % 4]}，必要时检查。" for n, ill in enumerate(PAIRS)]
    (raw / "medical").mkdir(parents=True)
    (raw / "medical/内科.csv").write_bytes("\n".join(lines).encode("gb18030"))


def demo(raw: Path) -> None:
    rows = [
        {"conversations": [
            {"role": "user", "content": f"类型#{ill}*建议#{CARES[n % 4]}"},
            {"role": "assistant", "content": f"{ill}时请{CARES[n % 4]}。"},
        ]}
        for n, ill in enumerate(PAIRS)
    ]  # fmt: skip
    write_lines(raw / "demo/train.json", rows)


def generation(raw: Path) -> None:
    rows = [
        {"content": f"症状#{ill}*建议#{CARES[n % 4]}", "summary": f"{ill}时请{CARES[n % 4]}。"}
        for n, ill in enumerate(PAIRS)
    ]
    write_lines(raw / "generation/train.json", rows)


def classification(raw: Path) -> None:
    rows = [
        {"context": f"新闻标题：{ill}（{n}）\n类别：", "target": f"news_{'ab'[n % 2]}"} for n, ill in enumerate(PAIRS)
    ]
    write_lines(raw / "classification/train.jsonl", rows)


def psychology(raw: Path) -> None:
    talks = [
        {"conversation": [
            {"system": "你是咨询师。", "input": f"最近总是{ill}，心里很慌。", "output": f"听起来不容易。{CARES[n % 4]}好吗？"},
            {"input": "我试试。", "output": f"好的，从{CARES[(n + 1) % 4]}开始。"},
        ]}
        for n, ill in enumerate(PAIRS)
    ]  # fmt: skip
    (raw / "psychology").mkdir(parents=True)
    (raw / "psychology/data.json").write_text(json.dumps(talks, ensure_ascii=False), encoding="utf-8")


def triples(raw: Path) -> None:
    rows = [
        {
            "instruction": "抽取三元组。",
            "input": f"第{n}号病人因{ill}入院。",
            "output": f"病人{n}_诊断_{ill}" if n % 5 else "",
        }
        for n, ill in enumerate(PAIRS)
    ]
    write_lines(raw / "triples/spo.jsonl", rows)


def dialogues(raw: Path) -> None:
    rows = [
        {"instruction": f"{ill}要吃药吗？", "output": f"先{CARES[n % 4]}。",
         "history": [[f"医生，我{ill}{n}天了。", "请问多大年纪？"]]}
        for n, ill in enumerate(PAIRS)
    ]  # fmt: skip
    write_lines(raw / "dialogues/cmt.jsonl", rows)


RECIPES = {
    "chatglm3-legal-lora": legal,
    "chatglm3-medical-lora": medical,
    "chatglm3-psychology-lora": psychology,
    "chatglm3-triples-lora": triples,
    "chatglm3-triples-freeze": triples,
    "chatglm3-triples-p-tuning": triples,
    "chatglm3-triples-p-tuning-v2": triples,
    "chatglm3-medical-dialogue": dialogues,
    "chatglm3-demo-lora": demo,
    "chatglm3-generation": generation,
    "chatglm3-classification": classification,
}
