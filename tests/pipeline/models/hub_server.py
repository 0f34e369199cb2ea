"""A stand-in of the Hugging Face Hub: the part of its HTTP API that models need, on a socket of loopback."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_secretsecretsecret"


class Hub(ThreadingHTTPServer):
    """Repositories in memory: name -> list of commits, each a dict of files."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, list[dict[str, bytes]]] = {}
        self.private: dict[str, bool] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.unknown: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def commit_id(self, repo: str, number: int) -> str:
        return hashlib.sha1(f"{repo}{number}".encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, format: str, *args: Any) -> None:
        self.server.requests.append(f"{self.command} {self.path}")

    def _answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _missing(self, code: str) -> None:
        self._answer({"error": "not found"}, 404, {"X-Error-Code": code})

    def _authorised(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self._answer({"error": "Invalid credentials"}, 401)
        return False

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self._info("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
        elif len(parts) >= 5 and parts[2] == "resolve":
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            # What the client asks about the program that it runs in is not about models.
            self.server.unknown += [self.path] if parts[0] != "api" else []
            self._missing("EntryNotFound")

    do_HEAD = do_GET

    def _files(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commits = self.server.repos.get(repo)
        if commits is None:
            self._missing("RepoNotFound")
            return None
        ids = [self.server.commit_id(repo, number) for number in range(len(commits))]
        if revision not in ("main", *ids):
            self._missing("RevisionNotFound")
            return None
        number = len(ids) - 1 if revision == "main" else ids.index(revision)
        return ids[number], commits[number]

    def _info(self, repo: str, revision: str) -> None:
        if (found := self._files(repo, revision)) is not None:
            sha, files = found
            siblings = [{"rfilename": name, "size": len(data), "blobId": "0" * 40} for name, data in files.items()]
            self._answer({"_id": "1", "id": repo, "modelId": repo, "sha": sha, "siblings": siblings, "tags": []})

    def _file(self, repo: str, revision: str, name: str) -> None:
        if (found := self._files(repo, revision)) is None:
            return
        sha, files = found
        if name not in files:
            self._missing("EntryNotFound")
            return
        etag = hashlib.sha256(files[name]).hexdigest()
        self._answer(files[name], headers={"X-Repo-Commit": sha, "ETag": f'"{etag}"'})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts = self.path.partition("?")[0].strip("/").split("/")
        if not self._authorised():
            return
        if self.path == "/api/repos/create":
            wanted = json.loads(body)
            repo = f"{wanted['organization']}/{wanted['name']}" if wanted.get("organization") else wanted["name"]
            exists = repo in self.server.repos
            self.server.repos.setdefault(repo, [{}])
            self.server.private.setdefault(repo, bool(wanted.get("private")) or wanted.get("visibility") == "private")
            self._answer({"url": f"{self.server.url}/{repo}"}, 409 if exists else 200)
        elif self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif parts[4:5] == ["preupload"]:
            modes = {"safetensors": "lfs", "gif": "lfs"}
            self._answer({"files": [
                {"path": file["path"], "uploadMode": modes.get(file["path"].rpartition(".")[2], "regular"),
                 "shouldIgnore": False, "oid": None} for file in json.loads(body)["files"]
            ]})  # fmt: skip
        elif parts[-3:] == ["lfs", "objects", "batch"]:
            self._answer({"transfer": "basic", "objects": [
                {"oid": one["oid"], "size": one["size"],
                 "actions": {"upload": {"href": f"{self.server.url}/upload/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]})  # fmt: skip
        elif parts[4:5] == ["commit"]:
            self._commit("/".join(parts[2:4]), body)
        else:
            self.server.unknown.append(self.path)
            self._missing("EntryNotFound")

    def _commit(self, repo: str, body: bytes) -> None:
        files = dict(self.server.repos[repo][-1])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
        self.server.repos[repo].append(files)
        sha = self.server.commit_id(repo, len(self.server.repos[repo]) - 1)
        self._answer(
            {"success": True, "commitOid": sha, "commitUrl": f"{self.server.url}/{repo}/commit/{sha}", "hookOutput": ""}
        )

    def _chunks(self) -> bytes:
        """Return a body of unknown length, which is sent in chunks."""
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def do_PUT(self) -> None:
        data = (
            self._chunks()
            if "Content-Length" not in self.headers
            else self.rfile.read(int(self.headers["Content-Length"]))
        )
        oid = self.path.rpartition("/")[2]
        assert hashlib.sha256(data).hexdigest() == oid
        self.server.large[oid] = data
        self._answer(b"")


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Serve a Hub without repositories."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
