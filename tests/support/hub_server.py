"""A model hub on 127.0.0.1 with the answers that huggingface_hub needs: info, tree, HEAD and GET of files."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class LocalHub:
    """`repos` maps `org/name` to its files.

    gated      repositories that answer 403 to anyone without the token `good-token`
    drop_after cut the connection once, after so many bytes of the file of this name
    status     answer every request of this repository with this status
    """

    repos: dict[str, dict[str, bytes]]
    gated: set[str] = field(default_factory=set)
    drop_after: dict[str, int] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    log: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, Range
    headers: set[str] = field(default_factory=set)  # names of all that came
    more: dict[str, str] = field(default_factory=dict)  # what it says of each file beside the usual
    endpoint: str = ""

    def fetched(self) -> list[str]:
        """Names of the files whose bytes were asked for, in order."""
        return [
            path.rsplit("/", 1)[-1] for method, path, _ in self.log if method == "GET" and "/resolve/" in path
        ]


@contextmanager
def serve(hub: LocalHub) -> Iterator[LocalHub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        self._wanted = self.rfile.read(length)
        self._answer(body=True)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean: `hub.log` has it."""

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.log.append((self.command, path, self.headers.get("Range", "")))
        self.hub.headers |= set(self.headers)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+))?", path):
            repo, kind = match[1], match[2]
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repo, kind = match[1], "file"
        else:
            return self._refuse(404, "EntryNotFound")
        if repo in self.hub.status:
            return self._refuse(self.hub.status[repo], "")
        if repo not in self.hub.repos:
            return self._refuse(404, "RepoNotFound")
        if repo in self.hub.gated and self.headers.get("Authorization") != "Bearer good-token":
            return self._refuse(403, "GatedRepo")
        files = self.hub.repos[repo]
        if kind != "file":
            return self._json(self._listing(repo, kind, files), body=body)
        if match[2] not in ("main", COMMIT):
            return self._refuse(404, "RevisionNotFound")
        if match[3] not in files:
            return self._refuse(404, "EntryNotFound")
        return self._file(match[3], files[match[3]], body=body)

    def _listing(self, repo: str, kind: str | None, files: dict[str, bytes]) -> object:
        if kind == "tree":
            return [_described(name, data) for name, data in files.items()]
        if kind == "paths-info":
            fields = json.loads(self._wanted) if self._wanted.startswith(b"{") else {}
            names = fields.get("paths") or re.findall(rb"paths=([^&]*)", self._wanted)
            wanted = [unquote(name.decode() if isinstance(name, bytes) else name) for name in names]
            return [_described(name, files[name]) for name in wanted if name in files]
        return {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}

    def _file(self, name: str, data: bytes, *, body: bool) -> None:
        start = 0
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(match[1])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        for name_value in self.hub.more.items():
            self.send_header(*name_value)
        self.end_headers()
        if not body:
            return
        stop = self.hub.drop_after.pop(name, None)
        self.wfile.write(data[start:stop])
        if stop is not None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()

    def _json(self, value: object, *, body: bool) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _described(name: str, data: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
