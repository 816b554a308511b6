"""Chat client of an OpenAI-compatible server: greedy answers, prompt ids and token likelihoods where the server has them."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

from tuneline.endpoint.kinds import MODELS, Server, find_server
from tuneline.endpoint.tokens import prompt_ids, text_ids, token_nll
from tuneline.endpoint.transport import RefusedError, Transport, UnreachableError

CHAT = "/v1/chat/completions"
SEED = 17
"""Of a request. Greedy answers have no use for it; a server that samples nevertheless then samples the same again."""
GREEDY = {"temperature": 0, "top_p": 1, "seed": SEED, "presence_penalty": 0, "frequency_penalty": 0}
COUNTS = ("prompt_tokens", "completion_tokens")
"""Of `usage`."""
LONGEST_TOKEN = 128
"""Characters: runs of blanks in vocabularies have so many."""
NEEDED = {"model", "messages", "max_tokens", "max_completion_tokens", "tools", "temperature", "chat_template_kwargs"}
"""Fields that change what is asked; others are left out where a server does not know them."""


class Reply(NamedTuple):
    text: str
    finish_reason: str
    """`stop`, `length` or `tool_calls`; empty where the server says nothing."""
    prompt_tokens: int | None
    completion_tokens: int | None
    """As the server counts them; most count the end token."""
    reasoning: str = ""
    """Thoughts that the server has told apart from the answer."""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    """As OpenAI's API has them: `{"id", "type", "function": {"name", "arguments"}}`, with arguments as JSON text."""
    ids: tuple[int, ...] | None = None
    """Of the answer, where the server tells them."""
    left_out: tuple[str, ...] = ()
    """Fields of the request that the server has refused, and that it answered without."""


class Endpoint:
    """One model of a server, for several threads. Whatever fails is a ValueError of one sentence."""

    def __init__(
        self,
        url: str,
        model: str,
        api_key: str | None = None,
        timeout: float = 600.0,
        retries: int = 5,
        connections: int = 32,
    ) -> None:
        """`timeout` in seconds is for one answer; `connections` is how many are open at once. Raises ValueError."""
        self.model = model
        self.transport = Transport(url, api_key, timeout, retries, connections)
        self.unknown: set[str] = set()
        """Fields that the server has refused, and that are left out."""
        self._server: Server | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self.transport.close()

    @property
    def url(self) -> str:
        return f"{self.transport.root}/v1"

    def models(self) -> list[str]:
        """Names of the server's models."""
        listed = self.transport.get(MODELS)
        if not isinstance(listed, dict) or not isinstance(listed.get("data"), list):
            raise UnreachableError(f"{self.url}/models has no list of models: expected an OpenAI-compatible API")
        names = [entry.get("id") for entry in listed["data"] if isinstance(entry, dict)]
        return list(dict.fromkeys(name for name in names if isinstance(name, str) and name.isprintable()))

    def server(self) -> Server:
        """What kind of server it is, and its version; asked once."""
        if self._server is None:
            self._server = find_server(self.transport)
        return self._server

    def request(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        max_tokens: int,
        tools: Sequence[Mapping[str, Any]] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The body of a greedy request, before what the server does not know is left out.

        `extra` are more fields, of OpenAI's or of this kind of server; None there leaves one out.
        """
        own = {"model": self.model, "messages": list(messages), "max_tokens": max_tokens}
        body = own | GREEDY | dict(self.server().greedy) | ({"tools": list(tools)} if tools else {}) | dict(extra or {})
        return {name: value for name, value in body.items() if value is not None}

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        max_tokens: int,
        tools: Sequence[Mapping[str, Any]] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Reply:
        """The greedy answer to a conversation in OpenAI's form. Raises UnreachableError and RefusedError."""
        return self.send(self.request(messages, max_tokens=max_tokens, tools=tools, extra=extra))

    def send(self, body: Mapping[str, Any]) -> Reply:
        """The answer to a request as `request` makes it."""
        for _ in range(len(body) + 1):
            known = self._known(body)
            try:
                reply = read_reply(self.transport.post(CHAT, known), self.url, body.get("max_tokens"))
                return reply._replace(left_out=tuple(sorted({*body} - {*known} - {"max_tokens"})))
            except RefusedError as refused:
                if not (fields := unknown_fields(refused, known)):
                    raise self._explained(refused) from None
                self.unknown |= fields
        raise AssertionError("every refused field is left out once")

    def prompt_ids(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> list[int] | None:
        """Ids that the server makes of a conversation, generation prompt included; None where it can't say.

        `extra` are the fields that `chat` has beside them, such as chat_template_kwargs.
        """
        return prompt_ids(self.transport, self.server(), self.model, messages, tools, extra)

    def text_ids(self, text: str) -> list[int] | None:
        """Ids of plain text without BOS, in which names of special tokens are read as such; None where it can't say."""
        return text_ids(self.transport, self.server(), self.model, text)

    def nll(self, ids: Sequence[int] | str, first: int = 1) -> list[float] | None:
        """-log p in nats of each id from number `first` on, given those before it; None where the server can't say.

        Of a text the ids are the server's own.
        """
        if isinstance(ids, str):
            found = self.text_ids(ids)
            if found is None:
                return None
            ids = found
        return token_nll(self.transport, self.server(), self.model, ids, first)

    def _known(self, body: Mapping[str, Any]) -> dict[str, Any]:
        known = {name: value for name, value in body.items() if name not in self.unknown or name == "max_tokens"}
        # OpenAI's own newer models know the limit by its newer name alone.
        if "max_tokens" in self.unknown and "max_tokens" in known:
            known["max_completion_tokens"] = known.pop("max_tokens")
        return known

    def _explained(self, refused: RefusedError) -> ValueError:
        if refused.status != 404:
            return refused
        try:
            names = self.models()
        except ValueError:
            names = []
        if not names:
            return UnreachableError(f"{refused}: is the URL right (such as http://localhost:8000/v1), and the model?")
        shown = self.transport.shown(", ".join(names[:20]) + (" …" if len(names) > 20 else ""))
        return UnreachableError(f"{self.url} has no model {self.model!r}, it has {shown} ({refused.detail})")


def unknown_fields(refused: RefusedError, body: Mapping[str, Any]) -> set[str]:
    """Fields of the body that a server does not know, by its message, and that can be left out or renamed."""
    if refused.status not in (400, 422):
        return set()
    named = {name for name in body if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", refused.detail)}
    if "max_tokens" in named and "max_completion_tokens" in refused.detail and "max_tokens" in body:
        return {"max_tokens"}
    return named - NEEDED


def read_reply(answer: Any, url: str, most: int | None = None) -> Reply:
    """Raises UnreachableError for what is no chat completion, or has a text that `most` tokens can't have."""
    try:
        (choice, *_), usage = answer["choices"], answer.get("usage") or {}
        message = choice["message"]
        counted = {name: None if usage.get(name) is None else whole(usage[name]) for name in COUNTS}
        reply = Reply(
            text=words(message.get("content")),
            finish_reason=words(choice.get("finish_reason")),
            prompt_tokens=counted["prompt_tokens"],
            completion_tokens=counted["completion_tokens"],
            reasoning=words(message.get("reasoning_content") or message.get("reasoning")),
            tool_calls=tuple(call_of(call) for call in message.get("tool_calls") or ()),
            ids=tuple(map(whole, choice["token_ids"])) if choice.get("token_ids") else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise UnreachableError(
            f"{url} answers {str(answer)[:200]!r}, expected a chat completion as OpenAI's API has it"
        ) from None
    size = len(reply.text) + len(reply.reasoning)
    if most is not None and size > most * LONGEST_TOKEN:
        raise UnreachableError(
            f"{url} answers {size} characters, expected what {most} tokens can hold: it has no limit"
        )
    return reply


def words(text: Any) -> str:
    """A text of an answer, which may be null. Halves of characters, which no file can hold, are replaced."""
    if text is not None and not isinstance(text, str):
        raise TypeError
    return (text or "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def whole(number: Any) -> int:
    """A count, or an id."""
    if type(number) is not int or not 0 <= number < 2**31:
        raise TypeError
    return number


def call_of(call: Any) -> Mapping[str, Any]:
    """A call in OpenAI's form; Ollama's arguments are no text."""
    name, arguments = call["function"]["name"], call["function"].get("arguments")
    if isinstance(arguments, dict):
        arguments = json.dumps(arguments, ensure_ascii=False)
    function = {"name": words(name), "arguments": words(arguments)}
    return {"id": words(call.get("id")), "type": "function", "function": function}
