"""A server of the API in a thread, and the errors that it answers with."""

import contextlib
import socket
import threading
import time

from chat.api import make_app
from chat.batching.batch import Batch
from chat.serve import make_server

CHAT = "/v1/chat/completions"


@contextlib.contextmanager
def running(server):
    """The address of a uvicorn server in a thread."""
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def serving(engine, key=None, hosts=("127.0.0.1",)):
    """The address of the API in a thread."""
    return running(make_server(make_app(engine, key, hosts)))


def endless_replies(engine, monkeypatch):
    """No token ends a reply of this engine, whose steps take a hundredth of a second at least."""
    monkeypatch.setattr(engine.models.reader, "stops_of", lambda network: [])
    step = Batch.advance
    monkeypatch.setattr(Batch, "advance", lambda batch: time.sleep(0.01) or step(batch))


def error_of(response, status, code=None, param=None) -> str:
    assert response.status_code == status, response.text
    assert response.json().keys() == {"error"}
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"} and "Traceback" not in response.text
    assert error["code"] == code or code is None
    assert error["param"] == param or param is None
    return error["message"]
