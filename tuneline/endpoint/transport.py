"""HTTP with retries: JSON in, JSON out, and one sentence for each way that it can fail."""

import ipaddress
import json
import math
import random
from itertools import count
from threading import Event
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import httpx

from tuneline.endpoint.exchange import CONNECT_TIMEOUT, Exchanges, Received, UnreadableError

QUEUED = {429, 503}
"""Statuses of a server that has too much to do, or that is still loading."""
FAILED = {408, 500, 502, 504}
"""Those after which the same request may succeed."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0
"""Seconds before a retry; each wait is twice the last. Where the server asks for another one, that is kept."""
SHOWN = 300
"""Characters of a server's message."""
SECRET = 8
"""Characters from which on a key is one: shorter ones are words such as EMPTY, for servers that want none."""
EXPECTED = "expected an OpenAI-compatible API, with a URL such as http://localhost:8000/v1"


class UnreachableError(ValueError):
    """The server answers nothing at all, so there is no use in asking it something else."""


class RefusedError(ValueError):
    """The server has refused one request."""

    def __init__(self, message: str, status: int, detail: str) -> None:
        super().__init__(message)
        self.status, self.detail = status, detail
        """`detail` is the server's own message."""


class Transport:
    """Connections to one server, for several threads."""

    def __init__(self, url: str, api_key: str | None, timeout: float, retries: int, connections: int) -> None:
        """`timeout` in seconds is for one answer. Raises ValueError for what is no URL, no key or no proxy."""
        self.root, self.timeout, self.retries = root_url(url), timeout, retries
        self.stopped = Event()
        """Set by whoever wants no more retries."""
        headers = authorization(api_key) if api_key else {}
        self.key = api_key.strip() if api_key and len(api_key.strip()) >= SECRET else None
        """Which is in no sentence, and in no answer."""
        try:
            self.exchanges = Exchanges(
                headers,
                timeout,
                connections,
                # Reading the authorities takes as long as twenty requests.
                verify=self.root.startswith("https:"),
                # A proxy of the environment knows nothing of this machine's own servers.
                trust_env=not is_local(urlsplit(self.root).hostname or ""),
            )
        except (ImportError, httpx.InvalidURL) as error:
            raise ValueError(
                f"a proxy of the environment can't be used ({error}): expected a URL such as http://host:3128 "
                "in ALL_PROXY, HTTPS_PROXY and HTTP_PROXY, or none"
            ) from None

    def post(self, path: str, body: Any) -> Any:
        return self.ask("POST", path, body)

    def get(self, path: str) -> Any:
        return self.ask("GET", path, None)

    def ask(self, method: str, path: str, body: Any, retries: int | None = None) -> Any:
        """What the server answers, as JSON. Raises UnreachableError and RefusedError."""
        left = self.retries if retries is None else retries
        until = monotonic() + (self.timeout if left else 0)
        for attempt in count():
            last = attempt >= left or self.stopped.is_set()
            wait = backoff(attempt)
            try:
                response = self.exchanges.request(method, self.root + path, body)
            except httpx.TimeoutException as error:
                # It may still be working on it, and a third request would be one more.
                if last or attempt:
                    raise UnreachableError(self._late(error)) from None
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                if last or is_final(error):
                    raise UnreachableError(self._absent(error)) from None
            except UnreadableError as error:
                raise UnreachableError(f"{self.root}{path} gives an answer that is {error}: {EXPECTED}") from None
            else:
                asked = seconds_asked(response)
                if response.status in FAILED:
                    asked = asked and min(asked, LONGEST_WAIT)
                wait = asked or wait
                if not self._again(response.status, last, monotonic() + wait < until):
                    return self._read(response, path)
            self.stopped.wait(wait)
        raise AssertionError("the last attempt returns or raises")

    def _again(self, status: int, last: bool, in_time: bool) -> bool:
        """Whether to ask once more. A queue that is full has an end, so that time counts there, and not attempts."""
        if status in QUEUED:
            return in_time and not self.stopped.is_set()
        return status in FAILED and not last

    def close(self) -> None:
        self.exchanges.close()

    def shown(self, text: str) -> str:
        """A server's words for a sentence: in one line, without control characters, and without the key."""
        line = " ".join("".join(sign if sign.isprintable() else " " for sign in text[: 4 * SHOWN]).split())
        line = line.replace(self.key, "***") if self.key else line
        return line if len(line) <= SHOWN else line[:SHOWN] + "…"

    def _late(self, error: httpx.TimeoutException) -> str:
        if isinstance(error, httpx.ConnectTimeout):
            return f"{self.root} can't be reached within {CONNECT_TIMEOUT:g} s: correct the URL, or start the server"
        return f"{self.root} has not answered within {self.timeout:g} s, twice: is it overloaded, or has it hung?"

    def _absent(self, error: Exception) -> str:
        reason = self.shown(str(error)) or type(error).__name__
        if is_final(error):
            return f"{urlsplit(self.root).hostname} is no known host ({reason}): correct the URL {self.root}"
        if not isinstance(error, httpx.TransportError) or (
            isinstance(error, httpx.RemoteProtocolError) and "disconnected" not in reason
        ):
            return f"{self.root} does not answer as HTTP has it ({reason}): {EXPECTED}"
        return f"no server answers at {self.root} ({reason}): start it, or correct the URL"

    def _read(self, response: Received, path: str) -> Any:
        place = f"{self.root}{path}"
        if not response.succeeded:
            raise self._refusal(response, place)
        try:
            found = json.loads(response.content)
            # However it is escaped.
            echoes = self.key is not None and self.key in json.dumps(found, ensure_ascii=False)
        except (ValueError, RecursionError):
            said = self.shown(response.text)
            raise UnreachableError(f"{place} answers {said!r}, which is no JSON: {EXPECTED}") from None
        if echoes:
            raise UnreachableError(f"{place} answers with the API key in its text: nothing of it is kept; {EXPECTED}")
        return found

    def _refusal(self, response: Received, place: str) -> ValueError:
        status, said = response.status, self.shown(message_of(response.text))
        if status in (401, 403):
            return UnreachableError(f"{place} wants another API key ({status}: {said})")
        if status in QUEUED | FAILED - {500}:
            return UnreachableError(f"{place} is busy or has no model yet ({status}: {said}): ask again later")
        if 300 <= status < 400 and "location" in response.headers:
            return UnreachableError(self._moved(place, self.shown(response.headers["location"])))
        return RefusedError(f"{place} refuses the request ({status}: {said})", status, said)

    def _moved(self, place: str, location: str) -> str:
        if location.startswith(("http://", "https://")):
            return f"{place} has moved to {location}: give that URL"
        return f"{place} sends elsewhere ({location!r}), which is no URL of a server: {EXPECTED}"


def root_url(url: str) -> str:
    """The server's own URL, without the API's path: `http://host:8000` of `http://host:8000/v1`. Raises ValueError."""
    expected = "expected one such as http://localhost:8000/v1"
    try:
        parts = urlsplit(url.strip())
        # urllib checks a port when it is read, and httpx checks the rest.
        _, _ = parts.port, httpx.URL(url.strip())
    except (ValueError, httpx.InvalidURL):
        # Of `http://user:a/b@host` the port would be a part of the password.
        raise ValueError(f"the URL has a port, a host or a character that none can have, {expected}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"the URL is {url!r}, {expected}")
    if parts.username or parts.password:
        raise ValueError("the URL holds a user name or a password: put the key into an environment variable")
    path = parts.path.rstrip("/")
    for end in ("/chat/completions", "/v1"):
        path = path.removesuffix(end)
    return f"{parts.scheme}://{parts.netloc}{path}"


def authorization(api_key: str) -> dict[str, str]:
    """Header of a key, without blanks and line ends around it. Raises ValueError, which does not show the key."""
    key = api_key.strip()
    if not (key and key.isascii() and key.isprintable()):
        raise ValueError(
            "the API key is blank, or has a line end or another character that no header can have: "
            "expected one line of printable ASCII in its environment variable"
        )
    return {"Authorization": f"Bearer {key}"}


def is_local(host: str) -> bool:
    """Whether a host is this machine by its very name."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def is_final(error: Exception) -> bool:
    """Whether no retry mends it: a host without an address."""
    said = str(error)
    return any(text in said for text in ("Name or service not known", "nodename nor servname", "No address associated"))


def backoff(attempt: int) -> float:
    """Seconds before the next attempt, shuffled so that many clients don't come at once."""
    return float(min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(attempt, 9)) * random.uniform(0.5, 1))  # noqa: S311


def seconds_asked(response: Received) -> float | None:
    """Retry-After in seconds, where it is a number."""
    try:
        seconds = float(response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return max(0.0, seconds) if not math.isnan(seconds) else None


def message_of(text: str) -> str:
    """The server's own words: OpenAI's error object, FastAPI's detail, or the body's beginning."""
    try:
        body = json.loads(text)
        while isinstance(body, dict):
            inner = next((body[key] for key in ("error", "message", "detail") if body.get(key)), None)
            body = str(body) if inner is None else inner
        return str(body)
    except (ValueError, RecursionError):
        return text
