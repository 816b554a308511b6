"""Chat in the terminal with the base, the adapter, the merged model, or the adapter of another revision.

    python -m chat
    python -m chat --model adapter --prompt "感冒一般几天能好？"
    python -m chat --model rev:exp-a --prompt "感冒一般几天能好？" --json

/model NAME, /system TEXT, /reset, /history, /quit; Ctrl-C stops an answer. Answers are no medical or legal advice.
"""

import argparse
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from chat.start import quiet
from tuneline.formats.records import Message

if TYPE_CHECKING:
    from chat.answers import Piece

WELCOME = (
    "模型的回答不构成医疗或法律建议。 Answers are no medical or legal advice.  /model /system /reset /history /quit"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m chat", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="merged", help="base, adapter, merged, or rev:<git revision or experiment>")
    parser.add_argument("--prompt", help="ask one question and end; - reads it from standard input")
    parser.add_argument("--system", default="", help="system prompt")
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--temperature", type=float, default=0.0, help="0 (default) takes the likeliest token")
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="with --prompt: answer, tokens and seconds as JSON")
    options = parser.parse_args()
    if options.json and options.prompt is None:
        parser.error("--json needs --prompt")
    quiet()
    try:
        session = Session(options)
        if options.prompt is None:
            converse(session)
        else:
            question = sys.stdin.read() if options.prompt == "-" else options.prompt
            if options.json:
                print(json.dumps(session.report(question), ensure_ascii=False, indent=2))
            else:
                session.answer(question)
    except (ValueError, OSError) as error:
        sys.exit(f"chat: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        sys.exit(130)


def shown(text: str) -> None:
    print(text, end="", flush=True)


class Session:
    """One conversation: its model, its system prompt, and what was said."""

    def __init__(self, options: argparse.Namespace) -> None:
        from chat.answers import Answerer, Settings
        from chat.models import Models

        self.answerer: Answerer = Answerer(Models())
        self.settings: Settings = Settings(options.max_new_tokens, options.temperature, options.top_p, options.seed)
        self.system: str = options.system
        self.said: list[Message] = []
        self.choose(options.model)

    def choose(self, name: str) -> None:
        """Talk to another model; the conversation goes on. Raises ValueError for a name that is none."""
        self.model = self.answerer.models.named(name)

    def answer(self, question: str, show: Callable[[str], None] = shown) -> "Piece | None":
        """Ask, show the answer while it is made, and keep both; Ctrl-C ends it and keeps what was said."""
        asked: Message = {"role": "user", "content": question}
        system: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        texts: list[str] = []
        last = None
        pieces = self.answerer.ask(self.model, [*system, *self.said, asked], self.settings)
        try:
            for last in pieces:
                texts.append(last.text)
                show(last.text)
        except KeyboardInterrupt:
            show(" …")
        finally:
            pieces.close()
        show("\n")
        if texts:
            self.said += [asked, {"role": "assistant", "content": "".join(texts)}]
        return last

    def report(self, question: str) -> dict[str, object]:
        """What `--json` prints."""
        last = self.answer(question, lambda _: None)
        if last is None:
            raise KeyboardInterrupt
        numbers = {"tokens": last.tokens, "prompt_tokens": last.prompt_tokens, "seconds": round(last.seconds, 3)}
        return {"model": self.model, "answer": self.said[-1]["content"], "finish": last.finish, **numbers}


def converse(session: Session) -> None:
    """Read lines until the end of input or /quit."""
    # Importing it gives `input` line editing and history.
    import readline  # noqa: F401

    print(WELCOME)
    print(
        f"{session.model}; also: {', '.join(name for name in session.answerer.models.names if name != session.model)}"
    )
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            continue
        if line == "/quit":
            return
        if line:
            try:
                command(session, line) if line.startswith("/") else session.answer(line)
            except (ValueError, OSError) as error:
                print(f"{' '.join(str(error).split())}")


def command(session: Session, line: str) -> None:
    """What begins with a slash. Raises ValueError for what is no command."""
    name, _, rest = line.partition(" ")
    rest = rest.strip()
    if name == "/reset":
        session.said.clear()
    elif name == "/system":
        session.system = rest
        print(f"system: {rest or '(none)'}")
    elif name == "/model" and rest:
        session.choose(rest)
        print(f"model: {session.model}")
    elif name == "/model":
        print(f"{session.model}; also: {', '.join(session.answerer.models.names)}, rev:<revision>")
    elif name == "/history":
        for message in session.said:
            print(f"{message['role']}: {message['content']}")
    else:
        raise ValueError(f"{name} is no command, expected /model, /system, /reset, /history or /quit")


if __name__ == "__main__":
    main()
