"""Published chat templates against apply_chat_template: ids compared on random conversations, and forged turns counted.

    python -m benchmarks.chat_templates [--conversations 10000] [--templates qwen3 gemma3 …]

The templates are those that the package trl ships (trl/chat_templates, those for training left out), each with a small
byte-level BPE tokenizer that splits text as Qwen's does and has the template's markers as added tokens: `<think>` and
what belongs to tools ordinary, the others special. Each conversation has one to four exchanges, with a system prompt or
without, with thoughts in none, some or all of its answers. Its training row, and one of its generation prompts with thinking
on and off, are compared with what transformers gives; then markers are put into all texts, and control tokens are counted.
"""

import random
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import argument_parser, show, table

MARKER = re.compile(r"<[|｜]?/?[\w▁]+[|｜]?>|\[/?[A-Za-z_]+\]")
NOT_SPECIAL = re.compile("think|tool|arg_|function|/|｜User｜|｜Assistant｜")
"""Markers that published tokenizers have added without calling them special."""
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""How Qwen's tokenizers split text."""
CORPUS = "感冒了怎么办？多休息、多喝温水。 Hello world, user assistant system model\n\n   return x\nuser\nassistant\n 1234 3.14"
PIECES = (
    "感冒了", "怎么办？", "多休息。", "Hello", " world", "\n", "\n\n", " ", "  ", "1234", "3.14", "，", "😀", "é",
    "def f(x):\n    return x", "a", "½", "\t", "user", "assistant\n", "'s", "://", "<b>", "&amp;", "{{ x }}", "%", "<|",
    " think",
)  # fmt: skip
COLUMNS = ("template", "outcome", "conversations", "ids equal", "forged turns", "what it does of its own")


class Outcome(NamedTuple):
    name: str
    outcome: str
    """kept, followed with a rule, or refused."""
    conversations: int
    equal: int
    """Conversations whose training row and generation prompts have the ids that transformers gives."""
    forged: int
    """Control tokens that texts became."""
    says: str
    """Rules, or the sentence of the refusal."""


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--conversations", type=int, default=10_000)
    parser.add_argument("--templates", nargs="*", help="by name; all without")
    options = parser.parse_args()
    rows: list[Outcome] = []
    names = options.templates or sorted(published())
    show(table(COLUMNS, _kept(rows, (measure(name, options.conversations) for name in names))))
    counts = Counter(row.outcome for row in rows)
    show([f"{counts['kept']} kept, {counts['rule']} followed with a rule, {counts['refused']} refused"])


def _kept(rows: list[Outcome], measured: Iterator[Outcome]) -> Iterator[Outcome]:
    """Each row as soon as it is there, and in the list, too."""
    for row in measured:
        rows.append(row)
        yield row


@cache
def published() -> dict[str, str]:
    """Templates of the package trl by name; none where it is not installed."""
    spec = find_spec("trl")
    folder = Path(spec.origin).parent / "chat_templates" if spec and spec.origin else Path("nowhere")
    paths = [path for path in folder.glob("*.jinja") if not path.stem.endswith("_training")]
    return {path.stem: path.read_text(encoding="utf-8") for path in paths}


def measure(name: str, conversations: int) -> Outcome:
    """One template's outcome on so many random conversations."""
    from tuneline.models.chat_format import load_prompter
    from tuneline.models.template_check import template_rules

    tokenizer = template_tokenizer(published()[name])
    try:
        prompter = load_prompter(tokenizer)
    except ValueError as error:
        return Outcome(name, "refused", 0, 0, 0, str(error))
    draw = random.Random(17)  # noqa: S311
    equal = forged = 0
    for _ in range(conversations):
        messages = conversation(draw)
        equal += not differences(prompter, tokenizer, messages, draw)
        forged += forged_tokens(prompter, tokenizer, messages, draw)
    rules = template_rules(prompter)  # type: ignore[arg-type]
    return Outcome(
        name, "rule" if rules else "kept", conversations, equal, forged, "; ".join(rules).replace("|", r"\|")
    )


def template_tokenizer(template: str, kind: str = "bytes", markers: str = "") -> Any:
    """A small tokenizer with the template's markers and more.

    `kind` is bytes; swallowing, the same but that markers take the white space after them; or sentencepiece, with a space
    before each text.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    pieces = kind == "sentencepiece"
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>" if pieces else None))
    alphabet = []
    if pieces:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    else:
        split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
        whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, whole])
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([CORPUS, MARKER.sub(" ", template), "".join(PIECES)], trainer)
    found = sorted(set(MARKER.findall(template + markers)))
    flags = {"normalized": False, "rstrip": kind == "swallowing"}
    tokenizer.add_tokens([AddedToken(m, special=not NOT_SPECIAL.search(m), **flags) for m in found])
    ends = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>"}
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **ends)
    made.chat_template = template
    return made


def conversation(draw: random.Random) -> list[Any]:
    """Random messages of ordinary texts, of which some begin or end with white space, answers end so at most."""
    thinks = draw.choice((0, 0, 0.5, 1))
    messages = [{"role": "system", "content": _text(draw)}] if draw.random() < 0.5 else []
    for _ in range(draw.randint(1, 4)):
        messages.append({"role": "user", "content": _text(draw)})
        messages.append({"role": "assistant", "content": "" if draw.random() < 0.02 else _text(draw).lstrip() or "x"})
        if draw.random() < thinks:
            messages[-1]["reasoning"] = _text(draw).strip()
    return messages


def _text(draw: random.Random) -> str:
    text = "".join(draw.choice(PIECES) for _ in range(draw.randint(1, 8)))
    return (text if text.strip() and draw.random() < 0.3 else text.strip()) or "x"


def differences(prompter: Any, tokenizer: Any, messages: list[Any], draw: random.Random) -> list[str]:
    """In what the ids of a conversation are not those of transformers."""
    thinking = "reasoning" in messages[-1]
    row = prompter.training_row(messages)
    found = [] if row.input_ids == expected_row(prompter, tokenizer, messages, thinking) else ["row"]
    asked = prompter.generation_prompt(messages[:-1], thinking)
    found += [] if row.input_ids[: len(asked)] == asked else ["training begins with the generation prompt"]
    turn = draw.choice([number for number, message in enumerate(messages) if message["role"] == "assistant"])
    history = prompter.renderer.arranged(messages[:turn])
    for way in (True, False):
        same = prompter.generation_prompt(messages[:turn], way) == prompter.renderer.ids(history, True, way)
        found += [] if same else [f"generation prompt, thinking {way}"]
    return found


def expected_row(prompter: Any, tokenizer: Any, messages: list[Any], thinking: bool) -> list[int]:
    """What transformers gives, and after it what ends an answer, where the template does not.

    A template that forgets the thoughts that it asks for is followed by its generation prompt, thoughts and answer as text.
    """
    render, ending = prompter.renderer, prompter.parts.appended
    messages = render.arranged(messages)
    whole = render.render(messages, False, thinking)
    asked = render.render(messages[:-1], True, thinking)
    if render.drops_reasoning:
        before = asked + messages[-1].get("reasoning", "") + "\n</think>\n\n"
        text = before + whole.removeprefix(asked.removesuffix("<think>\n"))
        head = tokenizer(asked, add_special_tokens=False).input_ids
        return [*head, *tokenizer(text[len(asked) :], add_special_tokens=False).input_ids]
    return [*render.ids(messages, False, thinking), *([tokenizer.convert_tokens_to_ids(ending)] if ending else [])]


def forged_tokens(prompter: Any, tokenizer: Any, messages: list[Any], draw: random.Random) -> int:
    """How many more control tokens the conversation has when its texts spell markers; none when it is refused then."""
    markers = sorted(tokenizer.convert_ids_to_tokens(prompter.control))

    def attacked(message: Any) -> Any:
        marked = f"{message['content']}x{draw.choice(markers)}{draw.choice(markers)}assistant\ny"
        return message | {"content": marked}

    plain = [message | {"content": message["content"] + "xy"} for message in messages]
    try:
        rows = [prompter.training_row(way).input_ids for way in (plain, list(map(attacked, messages)))]
    except ValueError:
        # The template does something to a marker in an answer, such as cutting it there: such a record is refused.
        return 0
    counts = [sum(token in prompter.control for token in row) for row in rows]
    return abs(counts[1] - counts[0])


if __name__ == "__main__":
    main()
