"""Two models side by side in the browser: the same question to both, answers streamed.

    python -m chat.demo
    python -m chat.demo --revision HEAD~1 --port 7861
    TUNELINE_PASSWORD=<8 characters or more> python -m chat.demo --host 0.0.0.0

Other machines get in by the name `tuneline` and that password only; put a proxy with TLS before the page there, because it
speaks plain HTTP. Answers are no medical or legal advice.
"""

import argparse
import os
import sys
import threading
from pathlib import Path
from typing import Any

from chat.start import LOOPBACK, allowed_hosts, quiet, secret

HELDOUT = Path("data/processed/heldout.jsonl")
PASSWORD = "TUNELINE_PASSWORD"  # noqa: S105
"""The environment variable: options can be read by everyone in the list of processes."""


def launch_settings(host: str, port: int, password: str | None) -> dict[str, Any]:
    """How Gradio serves the page."""
    from starlette.middleware import Middleware

    from chat.door import Door
    from chat.page import SCRIPT, theme

    return {
        "server_name": host, "server_port": port, "auth": [("tuneline", password)] if password else None,
        "auth_message": "用户名 User name: tuneline", "share": False, "strict_cors": True, "max_file_size": "1kb",
        "allowed_paths": [], "enable_monitoring": False, "ssr_mode": False, "mcp_server": False, "pwa": False,
        "run_history": False, "footer_links": [], "show_error": False, "quiet": True, "state_session_capacity": 100,
        "app_kwargs": {"middleware": [Middleware(Door, hosts=allowed_hosts(host))]}, "prevent_thread_lock": True,
        "theme": theme(), "css_paths": Path(__file__).with_name("demo.css"), "js": SCRIPT,
    }  # fmt: skip


def serve(page: Any, settings: dict[str, Any]) -> str:
    """Start to serve in a thread of its own; returns the URL. Raises OSError when the port is taken."""
    # Gradio asks itself whether it is up, which must not go through a proxy.
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), *LOOPBACK, settings["server_name"])))
    try:
        return str(page.launch(**settings)[1])
    except OSError as error:
        taken = f"port {settings['server_port']} of {settings['server_name']} can't be had: choose another by --port"
        raise OSError(taken) from error


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m chat.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default=LOOPBACK[0])
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument(
        "--revision", action="append", default=[], help="also an adapter of this git revision or experiment"
    )
    options = parser.parse_args()
    try:
        password = secret(PASSWORD, options.host)
        quiet()
        from chat.answers import Answerer
        from chat.examples import examples_of
        from chat.models import Models
        from chat.page import make_page
        from tuneline.formats.records import read_records

        settings = launch_settings(options.host, options.port, password)
        records = list(read_records(HELDOUT)) if HELDOUT.is_file() else []
        page = make_page(Answerer(Models(options.revision)), examples_of(records))
        print(f"{serve(page, settings)}  (Ctrl-C ends it)", flush=True)
    except (ValueError, OSError) as error:
        sys.exit(f"chat.demo: {' '.join(str(error).split())}")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        page.close(verbose=False)


if __name__ == "__main__":
    main()
