"""Terminal chat: `tuneline chat`."""

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chat.environment import configure_libraries
from tuneline.formats.calls import call_text, message_text
from tuneline.formats.records import Message
from tuneline.runtime.errors import sentence

if TYPE_CHECKING:
    from chat.engine import Constrain, SamplingParams
    from chat.replies.deltas import Delta

WELCOME = (
    "模型的回答不构成医疗或法律建议。 Answers are no medical or legal advice.  "
    "/model /system /tools /reset /history /quit"
)

CLASSES = Path("data/processed/classes.json")
"""What `convert` found in the training set."""
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def main(
    model: Annotated[
        str, typer.Option(help="base, adapter, merged, rev:<git revision or experiment>, or an adapter's folder.")
    ] = "merged",
    prompt: Annotated[
        str | None, typer.Option(help="Ask one question and end; - reads it from standard input.")
    ] = None,
    system: Annotated[str, typer.Option(help="System prompt.")] = "",
    max_new_tokens: Annotated[int, typer.Option(help="Length of an answer at most.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Share of probability that tokens are drawn from.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of drawing, where the temperature is above 0.")] = 0,
    constrain: Annotated[
        str,
        typer.Option(
            help="Answers of spans of the question and known classes: triples, entities or label, or triples:持股,收购."
        ),
    ] = "",
    tools: Annotated[
        Path | None, typer.Option(help="JSON file of functions that it may call; what they give is typed in.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --prompt: answer, tokens and seconds as JSON.")] = False,
) -> None:
    """Chat in the terminal with the base, the adapter, the merged model, or the adapter of another revision or folder.

    \b
    tuneline chat
    tuneline chat --model adapter --prompt "感冒一般几天能好？"
    tuneline chat --model ./theirs --prompt "感冒一般几天能好？"
    tuneline chat --constrain triples --prompt "中粮与蒙牛合作。"
    tuneline chat --model rev:exp-a --prompt "感冒一般几天能好？" --json

    /model NAME, /system TEXT, /tools FILE, /reset, /history, /quit; Ctrl-C stops an answer. No call is run.
    Answers are no medical or legal advice.
    """
    if as_json and prompt is None:
        raise typer.BadParameter("it needs --prompt", param_hint="--json")
    configure_libraries()
    from chat.engine import SamplingParams

    allowed = read_constrain(constrain) if constrain else None
    params = SamplingParams(max_new_tokens, temperature, top_p, seed, allowed, tools=read_tools(tools))
    session = Session(model, system, params)
    if prompt is None:
        run_repl(session)
        return
    question = sys.stdin.read() if prompt == "-" else prompt
    if as_json:
        print(json.dumps(session.report(question), ensure_ascii=False, indent=2))
    else:
        session.ask(question)


def read_constrain(text: str) -> "Constrain":
    """`triples:持股,收购`; or a task alone, with the classes of the training set.

    Raises ValueError where these are not known.
    """
    from chat.engine import Constrain

    task, _, listed = text.replace("：", ":").partition(":")
    names = [name.strip() for name in re.split("[,，]", listed) if name.strip()]
    if not names:
        known = json.loads(CLASSES.read_text(encoding="utf-8")) if CLASSES.is_file() else {}
        if task not in known:
            raise ValueError(
                f"--constrain is {text!r} and {CLASSES} names no class of it, expected one of {', '.join(known) or 'none'}: "
                "list the names, such as triples:持股,收购"
            )
        names = known[task]
    return Constrain(task, tuple(names))


def read_tools(path: Path | None) -> tuple[dict[str, Any], ...]:
    """Definitions of a file. Raises ValueError for what is none, naming the file."""
    from chat.tool_definitions import read_definitions

    if path is None:
        return ()
    try:
        return read_definitions(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def print_now(text: str) -> None:
    print(text, end="", flush=True)


class Session:
    """Conversation state: the model, the system prompt and the history."""

    def __init__(self, model: str, system: str, params: "SamplingParams") -> None:
        from chat.engine import Engine
        from chat.models import Models

        self.engine = Engine(Models())
        self.params, self.system = params, system
        self.history: list[Message] = []
        self.select(model)

    def select(self, name: str) -> None:
        """Model switch; the conversation goes on. Raises ValueError for an unknown name."""
        self.model = self.engine.models.resolve(name)

    def ask(self, question: str, show: Callable[[str], None] = print_now) -> "Delta | None":
        """Streamed reply to a question, both kept in the history. Ctrl-C ends the reply and keeps what there is of it."""
        return self._reply([{"role": "user", "content": question}], show)

    def observe(self, results: Sequence[str], show: Callable[[str], None] = print_now) -> "Delta | None":
        """Streamed reply to what the tools gave to the calls of the last one, in order."""
        return self._reply([{"role": "tool", "content": text} for text in results], show)

    def _reply(self, prompt: list[Message], show: Callable[[str], None]) -> "Delta | None":
        system: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        texts: list[str] = []
        last = None
        deltas = self.engine.stream(self.model, [*system, *self.history, *prompt], self.params)
        try:
            for last in deltas:
                texts.append(last.text)
                show(last.text)
        except KeyboardInterrupt:
            show(" …")
        finally:
            deltas.close()
        calls = last.calls if last else ()
        show("".join(f"\n→ {call_text(call)}" for call in calls).removeprefix("" if "".join(texts) else "\n") + "\n")
        if texts:
            reply: Message = {"role": "assistant", "content": "".join(texts)}
            self.history += [*prompt, {**reply, "tool_calls": list(calls)} if calls else reply]
        return last

    def report(self, question: str) -> dict[str, object]:
        """Reply and statistics, as `--json` prints them."""
        last = self.ask(question, lambda _: None)
        if last is None:
            raise KeyboardInterrupt
        return {
            "model": self.model,
            "answer": self.history[-1]["content"],
            **({"calls": list(last.calls)} if self.params.tools else {}),
            "finish": last.finish_reason,
            "tokens": last.completion_tokens,
            "prompt_tokens": last.prompt_tokens,
            "seconds": round(last.seconds, 3),
        }


def run_repl(session: Session) -> None:
    """Read-eval-print loop until the end of input or /quit."""
    # Importing it gives `input` line editing and history.
    import readline  # noqa: F401

    print(WELCOME)
    others = [name for name in session.engine.models.names if name != session.model]
    print(f"{session.model}; also: {', '.join(others)}")
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
                run_command(session, line) if line.startswith("/") else converse(session, line)
            except (ValueError, OSError) as error:
                print(sentence(error))


def converse(session: Session, question: str) -> None:
    """A question and its reply; what functions give that it calls is typed in, until it calls none. Nothing is run."""
    from chat.side_by_side import drop_unanswered

    last = session.ask(question)
    try:
        while last and last.calls:
            try:
                results = [input(f"← {call['name']}: ") for call in last.calls]
            except (EOFError, KeyboardInterrupt):
                print()
                return
            last = session.observe(results)
    finally:
        # A call without an answer is no part of what goes on, whether it was not given or could not be taken.
        session.history = drop_unanswered(session.history)


def run_command(session: Session, line: str) -> None:
    """Slash command. Raises ValueError for an unknown one."""
    name, _, argument = line.partition(" ")
    argument = argument.strip()
    if name == "/reset":
        session.history.clear()
    elif name == "/system":
        session.system = argument
        print(f"system: {argument or '(none)'}")
    elif name == "/tools":
        session.params = session.params._replace(tools=read_tools(Path(argument) if argument else None))
        print(f"tools: {', '.join(tool['function']['name'] for tool in session.params.tools) or '(none)'}")
    elif name == "/model" and argument:
        session.select(argument)
        print(f"model: {session.model}")
    elif name == "/model":
        print(f"{session.model}; also: {', '.join(session.engine.models.names)}, rev:<revision>, ./<folder>")
    elif name == "/history":
        for message in session.history:
            print(f"{message['role']}: {message_text(message)}")
    else:
        raise ValueError(f"{name} is no command, expected /model, /system, /tools, /reset, /history or /quit")
