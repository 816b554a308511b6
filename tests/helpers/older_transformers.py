"""Read folders by another version of transformers: `python older_transformers.py FOLDER IDS.json`; prints JSON.

Run by that version's Python, with nothing of this project at hand.
"""

import json
import sys
from pathlib import Path


def main() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, given = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template(given["chat"], tokenize=False, add_generation_prompt=True)
    found = {"ids": [tokenizer(one)["input_ids"] for one in given["texts"]], "chat": text}
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32)
    except ValueError as error:
        if "does not recognize this architecture" not in str(error):
            raise
        print(json.dumps(found | {"logits": None}))
        return
    with torch.no_grad():
        found["logits"] = model(input_ids=torch.tensor([given["input"]])).logits[0].tolist()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
