"""llama.cpp's converter with what it does not read of a merged model: stop ids, the chat template, ChatGLM's pieces.

    python run_converter.py facts.json MODEL --outfile … --outtype …

Run by the converter's own Python, in which nothing of this project is imported. Keys of facts.json: `llama_cpp` (folder),
`template`, `eos` (id or null), `stops` ([[id, text], …] of those that llama.cpp would not end at), `pieces` (a SentencePiece
model, its control words and how they are spelled) or null.
"""

import json
import runpy
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    facts = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    folder = Path(facts["llama_cpp"])
    if (folder / "gguf-py").is_dir():
        sys.path.insert(0, str(folder / "gguf-py"))
    sys.path.insert(0, str(folder))
    run_no_code()
    say_stops(facts)
    if facts["pieces"]:
        give_pieces(facts["pieces"])
    sys.argv = [str(folder / "convert_hf_to_gguf.py"), *sys.argv[2:]]
    runpy.run_path(sys.argv[0], run_name="__main__")


def run_no_code() -> None:
    """Have the converter's transformers never ask for code beside a model, and never run it."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    for kind in (AutoConfig, AutoModel, AutoTokenizer):
        plain = kind.from_pretrained
        kind.from_pretrained = lambda *given, _plain=plain, **named: _plain(
            *given, **(named | {"trust_remote_code": False})
        )


def say_stops(facts: dict[str, Any]) -> None:
    """Ends of an answer as the end of a turn and of a message; and the template as it is in the folder."""
    import gguf

    plain = gguf.SpecialVocab.add_to_gguf

    def add_to_gguf(self: Any, writer: Any, quiet: bool = True) -> None:
        self.chat_template = facts["template"]
        ids = self.special_token_ids
        if facts["eos"] is not None:
            ids["eos"] = facts["eos"]
        for slot, (token, _) in zip(("eot", "eom"), facts["stops"], strict=False):
            ids[slot] = token
        plain(self, writer, quiet)

    gguf.SpecialVocab.add_to_gguf = add_to_gguf


def give_pieces(pieces: dict[str, Any]) -> None:
    """ChatGLM's tokenizer as the converter asks for it, without the code of the checkpoint."""
    from sentencepiece import SentencePieceProcessor
    from transformers import AutoTokenizer

    class Tokenizer:
        """What set_vocab_chatglm3 calls."""

        def __init__(self) -> None:
            self.tokenizer = self
            self.sp_model = SentencePieceProcessor(pieces["model"])

        def get_vocab(self) -> dict[str, int]:
            known = {self.sp_model.id_to_piece(number): number for number in range(self.sp_model.vocab_size())}
            first = self.sp_model.vocab_size()
            return known | {word: first + number for number, word in enumerate(pieces["control"])}

        def _convert_id_to_token(self, number: int) -> str:
            first, control = self.sp_model.vocab_size(), pieces["control"]
            if number < first:
                return str(self.sp_model.id_to_piece(number))
            return control[number - first] if number - first < len(control) else ""

    AutoTokenizer.from_pretrained = lambda *_, **__: Tokenizer()
    rename_control(pieces["renamed"])


def rename_control(renamed: dict[str, str]) -> None:
    """Spell control words that are parts of words so that no text has them; their ids stay."""
    import gguf

    plain = gguf.GGUFWriter.add_token_list

    def add_token_list(self: Any, tokens: Any) -> None:
        plain(self, [renamed.get(token.decode(), token.decode()).encode() for token in tokens])

    gguf.GGUFWriter.add_token_list = add_token_list


if __name__ == "__main__":
    main()
