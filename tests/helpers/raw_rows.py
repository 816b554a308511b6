"""Rows of raw files: one question with its answer, an array, a file of XML, and every kind of dialogue."""

PAIR = {"query": "感冒怎么办", "response": "多休息"}
ARRAY = [{"instruction": f"问{n}", "input": "", "output": f"答{n}"} for n in range(6)]
MEDQUAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<Document id="1"><Focus>x</Focus><QAPairs><QAPair pid="1">'
    "<Question qid='1-1'>What is X ?</Question><Answer>Key Points\n   - a &lt; b</Answer></QAPair>"
    "<QAPair pid='2'><Question>What helps ?</Question><Answer/></QAPair></QAPairs></Document>"
)
DIALOGUES = {
    "sharegpt": {"conversations": [{"from": "human", "value": "问"}, {"from": "gpt", "value": "答"}], "system": "你"},
    "openai": {
        "messages": [{"role": r, "content": c} for r, c in (("system", "你"), ("user", "问"), ("assistant", "答"))]
    },
    "chatglm3": {
        "conversations": [{"role": r, "content": c} for r, c in (("system", "你"), ("user", "问"), ("assistant", "答"))]
    },
    "emollm": {"conversation": [{"system": "你", "input": "问", "output": "答"}]},
    "parts": {
        "messages": [
            {"role": "system", "content": "你"},
            {"role": "user", "content": [{"type": "text", "value": "问"}], "loss_weight": 0.0},
            {"role": "assistant", "content": [{"type": "text", "text": "答"}], "loss_weight": 1.0},
        ]
    },
    "swift": {"system": "你", "conversation": [{"human": "问", "assistant": "答"}]},
    "chatlaw": {"meta_instruction": "你", "chat": [{"咨询者": "问", "ChatLAW": "答"}]},
    "qiaoban": {"system": "你", "dialog": [{"speaker": "孩子", "text": "问"}, {"speaker": "智能助手", "text": "答"}]},
    "smile": [{"role": r, "content": c} for r, c in (("system", "你"), ("client", "问"), ("counselor", "答"))],
}
