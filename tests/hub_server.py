"""A stand-in for the Hugging Face hub: an HTTP server with the few endpoints that a model's way there and back needs.

Repositories live in memory: a list of commits, each with all files. Whoever sends the token ``hf_owner`` may write, and
read private repositories; others get what the hub answers them.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

OWNER = "hf_owner"


@dataclass
class Repository:
    """Of one model."""

    private: bool
    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{".gitattributes": b""}])

    def sha(self, number: int = -1) -> str:
        number = number % len(self.commits)
        content = [
            number,
            *((name, hashlib.sha1(data).hexdigest()) for name, data in sorted(self.commits[number].items())),
        ]
        return hashlib.sha1(repr(content).encode()).hexdigest()

    def files(self, revision: str) -> dict[str, bytes] | None:
        if revision == "main":
            return self.commits[-1]
        numbers = [number for number in range(len(self.commits)) if self.sha(number) == revision]
        return self.commits[numbers[0]] if numbers else None


class Hub(ThreadingHTTPServer):
    """The server; ``repositories`` and ``requests`` are for tests to look at."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.broken = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that answers until the end of the block."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def _answer(self) -> None:
        path, _, query = self.path.partition("?")
        body = self._body()
        self.server.requests.append(f"{self.command} {path}")
        if self.server.broken:
            self._send(500, {"error": "made up"})
            return
        for method, pattern, action in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and method == self.command:
                action(self, body, *match.groups())
                return
        self._send(404, {"error": f"no endpoint {self.command} {path}?{query}"})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _owner(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {OWNER}"

    def _repository(self, name: str) -> Repository | None:
        """The repository, or an answer that there is none: a private one does not exist for others."""
        repository = self.server.repositories.get(name)
        if repository is None or (repository.private and not self._owner()):
            self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        return repository

    def _may_write(self) -> bool:
        if not self._owner():
            self._send(403, {"error": "Forbidden"})
        return self._owner()

    def create(self, body: bytes) -> None:
        given = json.loads(body)
        name = f"{given.get('organization') or 'user'}/{given['name']}"
        if not self._may_write():
            return
        if name in self.server.repositories:
            self._send(409, {"error": "exists"})
            return
        self.server.repositories[name] = Repository(given.get("visibility") == "private")
        self._send(200, {"url": f"{self.server.url}/{name}", "id": name})

    def info(self, _: bytes, name: str, revision: str | None = None) -> None:
        repository = self._repository(name)
        if repository is None:
            return
        files = repository.files(revision or "main")
        if files is None:
            self._send(404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"})
            return
        number = next(index for index, each in enumerate(repository.commits) if each is files)
        siblings = [{"rfilename": each} for each in files]
        self._send(
            200,
            {
                "id": name,
                "sha": repository.sha(number),
                "private": repository.private,
                "siblings": siblings,
                "tags": [],
            },
        )

    def tree(self, _: bytes, name: str, revision: str) -> None:
        repository = self._repository(name)
        if repository is not None:
            files = repository.files(revision) or {}
            entries = [
                {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for path, data in files.items()
            ]
            self._send(200, entries)

    def resolve(self, _: bytes, name: str, revision: str, path: str) -> None:
        repository = self._repository(name)
        if repository is None:
            return
        data = (repository.files(revision) or {}).get(path)
        if data is None:
            self._send(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
            return
        self._send(200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": revision})

    def validate(self, body: bytes) -> None:
        """As the hub does: metadata that cannot be shown are refused."""
        match = re.match(r"---\n(.*?\n)---\n", json.loads(body)["content"], re.DOTALL)
        metadata = yaml.safe_load(match[1]) if match else None
        errors = [] if isinstance(metadata, dict) and "license" in metadata else [{"message": "no license"}]
        self._send(400 if errors else 200, {"errors": errors, "warnings": []})

    def preupload(self, body: bytes, name: str) -> None:
        if self._repository(name) is not None:
            files = [
                {"path": each["path"], "uploadMode": "lfs" if each["path"].endswith(".safetensors") else "regular"}
                for each in json.loads(body)["files"]
            ]
            self._send(200, {"files": [{**each, "shouldIgnore": False, "oid": None} for each in files]})

    def batch(self, body: bytes, name: str) -> None:
        if self._may_write():
            objects = [
                {**each, "actions": {"upload": {"href": f"{self.server.url}/upload/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            self._send(200, {"transfer": "basic", "objects": objects})

    def upload(self, body: bytes, oid: str) -> None:
        self.server.objects[oid] = body
        self._send(200, {})

    def commit(self, body: bytes, name: str) -> None:
        repository = self._repository(name)
        if repository is None or not self._may_write():
            return
        files = dict(repository.commits[-1])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                data = self.server.objects[value["oid"]]
                assert hashlib.sha256(data).hexdigest() == value["oid"]
                files[value["path"]] = data
        repository.commits.append(files)
        sha = repository.sha()
        self._send(200, {"commitUrl": f"{self.server.url}/{name}/commit/{sha}", "commitOid": sha, "success": True})


_NAME = r"([^/]+/[^/]+)"
ROUTES: list[tuple[str, str, Any]] = [
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", Handler.validate),
    ("GET", rf"/api/models/{_NAME}", Handler.info),
    ("GET", rf"/api/models/{_NAME}/revision/([^/]+)", Handler.info),
    ("GET", rf"/api/models/{_NAME}/tree/([^/]+)", Handler.tree),
    ("GET", rf"/{_NAME}/resolve/([^/]+)/(.+)", Handler.resolve),
    ("HEAD", rf"/{_NAME}/resolve/([^/]+)/(.+)", Handler.resolve),
    ("POST", rf"/api/models/{_NAME}/preupload/main", Handler.preupload),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", r"/upload/([0-9a-f]+)", Handler.upload),
    ("POST", rf"/api/models/{_NAME}/commit/main", Handler.commit),
]
