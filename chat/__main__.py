"""Chat in the terminal with the base, the adapter or the merged model, answers streamed.

    python -m chat
    python -m chat --model adapter --prompt "感冒一般几天能好？"

/reset forgets the conversation, /quit ends. Answers are no medical or legal advice.
"""

import argparse
import sys
from typing import Any

MODELS = ("base", "adapter", "merged")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m chat", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, default="merged")
    parser.add_argument("--prompt", help="ask one question and end")
    parser.add_argument("--max-new-tokens", type=int, default=256)
    options = parser.parse_args()
    try:
        ask = opened(options.model, options.max_new_tokens)
    except (ValueError, OSError) as error:
        sys.exit(f"chat: {' '.join(str(error).split())}")
    if options.prompt is not None:
        ask([{"role": "user", "content": options.prompt}])
        return
    print("模型的回答不构成医疗或法律建议。 Answers are no medical or legal advice.  /reset  /quit")
    converse(ask)


def converse(ask: Any) -> None:
    """Read lines until the end of input or /quit; Ctrl-C stops an answer."""
    messages: list[dict[str, str]] = []
    while True:
        try:
            line = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if line == "/quit":
            return
        if line == "/reset":
            messages = []
        elif line:
            try:
                messages += [{"role": "user", "content": line}]
                messages += [{"role": "assistant", "content": ask(messages)}]
            except KeyboardInterrupt:
                print()
                messages.pop()


def opened(name: str, max_new_tokens: int) -> Any:
    """A function from messages to the answer, which it also prints while it is made."""
    import torch
    from transformers import TextStreamer
    from transformers.utils import logging

    from tuneline.model import ADAPTER, BASE, MERGED, load_adapter, load_merged, load_tokenizer, pick_device, pick_dtype
    from tuneline.prompt import Prompter

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    folder = MERGED if name == "merged" else BASE
    device = pick_device()
    model = load_merged(folder, pick_dtype("auto", device), device)
    if name == "adapter":
        model = load_adapter(model, ADAPTER)
    tokenizer = load_tokenizer(folder)
    prompter = Prompter(tokenizer)
    streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)

    @torch.inference_mode()
    def ask(messages: Any) -> str:
        ids = torch.tensor([prompter.generation_prompt(messages)], device=device)
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=prompter.stop_ids,
            pad_token_id=tokenizer.pad_token_id,
            streamer=streamer,
        )
        return str(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True))

    return ask


if __name__ == "__main__":
    main()
