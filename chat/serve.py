"""OpenAI-compatible API server: `tuneline serve`."""

import contextlib
import socket
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from chat.environment import LOOPBACK, allowed_hosts, configure_libraries, secret_from_environment

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

KEY_VARIABLE = "TUNELINE_KEY"
"""An environment variable: options can be read by everyone in the list of processes."""
MAX_CONNECTIONS = 256
"""At a time, so that bodies being read are bounded together, too."""
MAX_HEADER_BYTES = 16_384
SHUTDOWN_TIMEOUT = 5
"""Seconds for replies to end when the server does."""

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def make_server(api: "ASGIApp") -> "uvicorn.Server":
    """Uvicorn server without access log or Server header; `run` takes its sockets."""
    import uvicorn

    from chat.connections import TimedProtocol

    return uvicorn.Server(
        uvicorn.Config(
            api,
            # On h11: httptools, the other one, has no limit for headers.
            http=TimedProtocol,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=SHUTDOWN_TIMEOUT,
        )
    )


@app.command()
def main(
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is all of this machine.")] = LOOPBACK[0],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    revision: Annotated[
        list[str] | None,
        typer.Option(help="A commit, branch, tag or experiment whose adapter to offer, too; may be repeated."),
    ] = None,
    dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"],
        typer.Option(help="Of computation; auto is what evaluation takes, float32 rounds least."),
    ] = "auto",
) -> None:
    """Serve an OpenAI-compatible API of the pipeline's models: /v1/chat/completions, /v1/completions, /v1/models, /health.

    \b
    tuneline serve
    tuneline serve --port 8001 --revision HEAD~1 --revision some-experiment
    TUNELINE_KEY=<8 characters or more> tuneline serve --host 0.0.0.0

    Temperature is 0 unless a request says otherwise: greedy, the same answer every time; max_tokens is 256. Where other
    machines can reach it, a key is needed; put a proxy with TLS before it there, because it speaks plain HTTP. Answers are no
    medical or legal advice.
    """
    key = secret_from_environment(KEY_VARIABLE, host)
    configure_libraries()
    from chat.api import make_app
    from chat.engine import Engine
    from chat.models import Models

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, port), family=family)
    engine = Engine(Models(revision or (), dtype))
    address = f"[{host}]" if ":" in host else host
    url = f"http://{address}:{listening.getsockname()[1]}/v1"
    print(f"{', '.join(engine.models.names)} at {url} (Ctrl-C ends)", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        make_server(make_app(engine, key, allowed_hosts(host))).run(sockets=[listening])


if __name__ == "__main__":
    from chat.deprecated import run_deprecated

    run_deprecated(app, "chat.serve", "serve")
