"""A model hub on this machine: what the clients of the Hugging Face Hub and of ModelScope ask for when they push."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

TOKEN = "a-token-that-may-write"
READER = "a-token-that-may-read"
LARGE = (".safetensors", ".gguf")
CUT = 0
"""As a status: the connection breaks without an answer."""

Faults = Callable[[str, str], int | None]
"""(method, path) to the status of a failure, or None."""


class Answer(NamedTuple):
    status: int
    body: Any = None


@dataclass
class Repo:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: int = 1


def git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub:
    """Repositories, and every request in `asked`. `faults` fails some."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.faults: Faults = lambda method, path: None
        self.spoilt: set[str] = set()
        """Names of files that are stored with other content than was sent."""
        self.address = ""
        self.lock = threading.Lock()

    def uploads(self) -> int:
        return sum(method == "PUT" and path.startswith("/blobs/") for method, path in self.asked)

    def answer(self, method: str, path: str, token: str, content: bytes) -> Answer:
        with self.lock:
            self.asked.append((method, path))
        if (status := self.faults(method, path)) is not None:
            return Answer(status, {"error": "planted", "Message": "planted"})
        if path.startswith("/blobs/"):
            self.blobs[path.rpartition("/")[2]] = content
            return Answer(200)
        if token not in (TOKEN, READER):
            return Answer(401, {"error": "Invalid credentials", "Message": "invalid token"})
        if token == READER and method != "GET":
            return Answer(403, {"error": "Forbidden: write access is needed", "Message": "forbidden"})
        for rule, respond in (HUGGING_FACE | MODELSCOPE).items():
            wanted, _, pattern = rule.partition(" ")
            if wanted == method and (found := re.fullmatch(pattern, path)):
                return respond(self, found.groupdict().get("repo", ""), content)
        return Answer(404, {"error": f"nothing at {method} {path}"})

    def commit(self, repo: str, added: dict[str, bytes], removed: list[str]) -> None:
        one = self.repos[repo]
        kept = {name: content for name, content in one.files.items() if name not in removed}
        one.files = kept | {name: b"spoilt" if name in self.spoilt else content for name, content in added.items()}
        one.commits += 1

    def head(self, repo: str) -> str:
        return f"{self.repos[repo].commits:040x}"

    def batch(self, content: bytes) -> list[dict[str, Any]]:
        """LFS: where to put what is not here yet."""
        found = []
        for one in json.loads(content)["objects"]:
            action = {"actions": {"upload": {"href": f"{self.address}/blobs/{one['oid']}"}}}
            found.append({"oid": one["oid"], "size": one["size"]} | ({} if one["oid"] in self.blobs else action))
        return found


Respond = Callable[[Hub, str, bytes], Answer]


def of_repo(respond: Respond) -> Respond:
    def found(hub: Hub, repo: str, content: bytes) -> Answer:
        return respond(hub, repo, content) if repo in hub.repos else Answer(404, {"error": "Repository not found"})

    return found


def hf_create(hub: Hub, _: str, content: bytes) -> Answer:
    asked = json.loads(content)
    repo = f"{asked['organization']}/{asked['name']}"
    url = {"url": f"{hub.address}/{repo}"}
    if repo in hub.repos:
        return Answer(409, {"error": "You already created this model repo"} | url)
    private = asked.get("private", False) or asked.get("visibility") == "private"
    hub.repos[repo] = Repo(private, {".gitattributes": b"*.safetensors filter=lfs\n"})
    return Answer(200, url)


def hf_info(hub: Hub, repo: str, _: bytes) -> Answer:
    return Answer(
        200, {"id": repo, "sha": hub.head(repo), "private": hub.repos[repo].private, "siblings": [], "tags": []}
    )


def hf_tree(hub: Hub, repo: str, _: bytes) -> Answer:
    listed = []
    for name, content in hub.repos[repo].files.items():
        one = {"type": "file", "path": name, "size": len(content), "oid": git_blob(content)}
        if name.endswith(LARGE):
            one["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        listed.append(one)
    return Answer(200, listed)


def hf_preupload(hub: Hub, repo: str, content: bytes) -> Answer:
    files = [
        {
            "path": one["path"],
            "uploadMode": "lfs" if one["path"].endswith(LARGE) else "regular",
            "shouldIgnore": False,
            "oid": None,
        }
        for one in json.loads(content)["files"]
    ]
    return Answer(200, {"files": files})


def hf_batch(hub: Hub, repo: str, content: bytes) -> Answer:
    return Answer(200, {"transfer": "basic", "objects": hub.batch(content)})


def hf_commit(hub: Hub, repo: str, content: bytes) -> Answer:
    lines = [json.loads(line) for line in content.splitlines()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    if header.get("parentCommit") not in (None, hub.head(repo)):
        return Answer(412, {"error": "A commit has happened since. Please refresh and try again."})
    added = {one["value"]["path"]: base64.b64decode(one["value"]["content"]) for one in lines if one["key"] == "file"}
    large = {one["value"]["path"]: hub.blobs[one["value"]["oid"]] for one in lines if one["key"] == "lfsFile"}
    hub.commit(repo, added | large, [one["value"]["path"] for one in lines if one["key"] == "deletedFile"])
    return Answer(200, {"commitUrl": f"{hub.address}/{repo}/commit/{hub.head(repo)}", "commitOid": hub.head(repo)})


def hf_settings(hub: Hub, repo: str, content: bytes) -> Answer:
    asked = json.loads(content)
    hub.repos[repo].private = asked.get("private", asked.get("visibility") == "private")
    return Answer(200, asked)


def ms_create(hub: Hub, _: str, content: bytes) -> Answer:
    asked = json.loads(content)
    repo = f"{asked['Path']}/{asked['Name']}"
    if repo in hub.repos:
        return Answer(400, {"Code": 10010101001, "Message": "model already exists", "Success": False})
    template = {
        ".gitattributes": b"*.safetensors filter=lfs\n",
        "README.md": b"---\n---\n",
        "configuration.json": b"{}",
    }
    hub.repos[repo] = Repo(asked["Visibility"] == 1, template)
    return Answer(200, {"Code": 200, "Data": {}, "Success": True})


def ms_info(hub: Hub, repo: str, _: bytes) -> Answer:
    return Answer(200, {"Code": 200, "Data": {"Visibility": 1 if hub.repos[repo].private else 5}})


def ms_files(hub: Hub, repo: str, _: bytes) -> Answer:
    listed = [
        {"Path": name, "Size": len(content), "Sha256": hashlib.sha256(content).hexdigest(), "Type": "blob"}
        for name, content in hub.repos[repo].files.items()
    ]
    return Answer(200, {"Code": 200, "Data": {"Files": listed}})


def ms_batch(hub: Hub, repo: str, content: bytes) -> Answer:
    return Answer(200, {"Code": 200, "Data": {"objects": [one for one in hub.batch(content) if "actions" in one]}})


def ms_commit(hub: Hub, repo: str, content: bytes) -> Answer:
    actions = json.loads(content)["actions"]
    made = [one for one in actions if one["action"] == "create"]
    added = {
        one["path"]: hub.blobs[one["sha256"]] if one["type"] == "lfs" else base64.b64decode(one["content"])
        for one in made
    }
    hub.commit(repo, added, [one["path"] for one in actions if one["action"] == "delete"])
    return Answer(200, {"Code": 200, "Data": {}, "Success": True})


HUGGING_FACE: dict[str, Respond] = {
    "POST /api/repos/create": hf_create,
    "POST /api/validate-yaml": lambda hub, repo, content: Answer(200, {"errors": [], "warnings": []}),
    r"GET /api/models/(?P<repo>[\w-]+/[\w-]+)": of_repo(hf_info),
    r"GET /api/models/(?P<repo>[\w-]+/[\w-]+)/tree/\w+\?.*": of_repo(hf_tree),
    r"POST /api/models/(?P<repo>[\w-]+/[\w-]+)/preupload/main": of_repo(hf_preupload),
    r"POST /(?P<repo>[\w-]+/[\w-]+)\.git/info/lfs/objects/batch": of_repo(hf_batch),
    r"POST /api/models/(?P<repo>[\w-]+/[\w-]+)/commit/main": of_repo(hf_commit),
    r"PUT /api/models/(?P<repo>[\w-]+/[\w-]+)/settings": of_repo(hf_settings),
}
MODELSCOPE: dict[str, Respond] = {
    "POST /api/v1/models": ms_create,
    r"GET /api/v1/models/(?P<repo>[\w-]+/[\w-]+)": of_repo(ms_info),
    r"GET /api/v1/models/(?P<repo>[\w-]+/[\w-]+)/repo/files\?.*": of_repo(ms_files),
    r"POST /api/v1/repos/models/(?P<repo>[\w-]+/[\w-]+)/info/lfs/objects/batch": of_repo(ms_batch),
    r"POST /api/v1/repos/models/(?P<repo>[\w-]+/[\w-]+)/commit/master": of_repo(ms_commit),
}


@contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """Yield the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def respond(self) -> None:
            try:
                content = self.rfile.read(int(self.headers.get("content-length") or 0)) or self.chunks()
                token = self.headers.get("authorization", "").removeprefix("Bearer ")
                answer = hub.answer(self.command, self.path, token, content)
            except ConnectionError:
                answer = Answer(CUT)
            if answer.status == CUT:
                self.close_connection = True
                return
            said = json.dumps(answer.body).encode()
            self.send_response(answer.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def chunks(self) -> bytes:
            """A body of unknown length."""
            content = b""
            while "chunked" in self.headers.get("transfer-encoding", "") and (size := int(self.rfile.readline(), 16)):
                content += self.rfile.read(size)
                self.rfile.readline()
            return content

        do_GET = do_POST = do_PUT = respond  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub.address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
