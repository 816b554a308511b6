"""Web page with two models side by side: `tuneline demo`."""

import os
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from chat.environment import LOOPBACK, allowed_hosts, configure_libraries, secret_from_environment

HELDOUT = Path("data/processed/heldout.jsonl")
PASSWORD_VARIABLE = "TUNELINE_PASSWORD"  # noqa: S105
"""An environment variable: options can be read by everyone in the list of processes."""

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def launch_settings(host: str, port: int, password: str | None) -> dict[str, Any]:
    """Options of Gradio's `launch`."""
    from starlette.middleware import Middleware

    from chat.access import PageAccess
    from chat.i18n.texts import ONE_LANGUAGE, Text
    from chat.page import make_theme

    folder, login = Path(__file__).parent, Text("用户名：tuneline", "User name: tuneline").html()

    return {
        "server_name": host, "server_port": port, "auth": [("tuneline", password)] if password else None,
        "auth_message": f"<style>{ONE_LANGUAGE}</style>{login}", "share": False, "strict_cors": True, "max_file_size": "1kb",
        "allowed_paths": [], "enable_monitoring": False, "ssr_mode": False, "mcp_server": False, "pwa": False,
        "run_history": False, "footer_links": [], "show_error": False, "quiet": True, "state_session_capacity": 100,
        "app_kwargs": {"middleware": [Middleware(PageAccess, hosts=allowed_hosts(host))]}, "prevent_thread_lock": True,
        "theme": make_theme(), "css": ONE_LANGUAGE, "css_paths": folder / "demo.css",
        "js": (folder / "demo.js").read_text(encoding="utf-8"),
    }  # fmt: skip


def serve(page: Any, settings: dict[str, Any]) -> str:
    """URL of the page, served in a thread of its own. Raises OSError when the port is taken."""
    # Gradio requests its own URL to see whether it is up, which must not go through a proxy.
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), *LOOPBACK, settings["server_name"])))
    try:
        return str(page.launch(**settings, i18n=page.i18n_instance)[1])
    except OSError as error:
        message = f"port {settings['server_port']} of {settings['server_name']} can't be had: choose another by --port"
        raise OSError(message) from error


@app.command()
def main(
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is all of this machine.")] = LOOPBACK[0],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 7860,
    revision: Annotated[
        list[str] | None, typer.Option(help="Also an adapter of this git revision or experiment; may be repeated.")
    ] = None,
) -> None:
    """Serve a web page with two models side by side: the same question to both, answers streamed.

    \b
    tuneline demo
    tuneline demo --revision HEAD~1 --port 7861
    TUNELINE_PASSWORD=<8 characters or more> tuneline demo --host 0.0.0.0

    Other machines get in by the name `tuneline` and that password only; put a proxy with TLS before the page there, because
    it speaks plain HTTP. Answers are no medical or legal advice.
    """
    password = secret_from_environment(PASSWORD_VARIABLE, host)
    configure_libraries()
    from chat.engine import Engine
    from chat.examples import examples_from_records
    from chat.models import Models
    from chat.page import make_page
    from tuneline.formats.records import read_records

    settings = launch_settings(host, port, password)
    records = list(read_records(HELDOUT)) if HELDOUT.is_file() else []
    page = make_page(Engine(Models(revision or ())), examples_from_records(records))
    print(f"{serve(page, settings)}  (Ctrl-C ends it)", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        page.close(verbose=False)


if __name__ == "__main__":
    from chat.deprecated import run_deprecated

    run_deprecated(app, "chat.demo", "demo")
