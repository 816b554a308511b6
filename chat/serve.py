"""An API like OpenAI's for the models that the pipeline made: /v1/chat/completions, /v1/models, /health.

    python -m chat.serve
    python -m chat.serve --port 8001 --revision HEAD~1 --revision some-experiment
    TUNELINE_KEY=<8 characters or more> python -m chat.serve --host 0.0.0.0

Temperature is 0 unless a request says otherwise: greedy, the same answer every time; max_tokens is 256. Where other machines
can reach it, a key is needed; put a proxy with TLS before it there, because it speaks plain HTTP. Answers are no medical or
legal advice.
"""

import argparse
import contextlib
import socket
import sys

import uvicorn
from fastapi import FastAPI

from chat.start import allowed_hosts, quiet, secret

KEY = "TUNELINE_KEY"
"""The environment variable: options can be read by everyone in the list of processes."""
CONNECTIONS = 200
"""At a time, so that bodies being read are bounded together, too."""
LEAVE = 5
"""Seconds for answers to end when the server does."""


def make_server(app: FastAPI) -> uvicorn.Server:
    """A server that says little, of itself and in its log; `run` takes its sockets."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            # httptools, the other one, has no limit for headers.
            http="h11",
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=LEAVE,
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m chat.serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument(
        "--revision",
        action="append",
        default=[],
        help="a commit, branch, tag or experiment whose adapter to offer, too",
    )
    options = parser.parse_args()
    try:
        key = secret(KEY, options.host)
        quiet()
        from chat.answers import Answerer
        from chat.api import make_app
        from chat.models import Models

        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        listening = socket.create_server((options.host, options.port), family=family)
        answerer = Answerer(Models(options.revision))
    except (ValueError, OSError, OverflowError) as error:
        sys.exit(f"serve: {' '.join(str(error).split())}")
    address = f"[{options.host}]" if ":" in options.host else options.host
    url = f"http://{address}:{listening.getsockname()[1]}/v1"
    print(f"{', '.join(answerer.models.names)} at {url} (Ctrl-C ends)", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        make_server(make_app(answerer, key, allowed_hosts(options.host))).run(sockets=[listening])


if __name__ == "__main__":
    main()
