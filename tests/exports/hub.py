"""As much of the Hugging Face hub as uploads and the search for a model need, on localhost and in memory."""

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


@dataclass
class Hub:
    """The state of the hub.

    Attributes:
        token: that it wants.
        trees: the files of each (repository, branch) by name.
        private: whether each repository is private.
        blobs: what was uploaded as LFS objects, by sha256.
        models: the revisions of each model.
    """

    token: str = "secret"
    url: str = ""
    trees: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    models: dict[str, list[str]] = field(default_factory=dict)
    commits: int = 0


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_: Any) -> None:
        """Keep the tests' output free of it."""

    def answer(self, value: Any, status: int = 200, code: str = "") -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self) -> None:
        found = re.fullmatch(r"/api/models/(.+)/revision/(.+)", self.path)
        if found is None:
            return self.answer({"error": f"no route {self.path}"}, 501)
        name, revision = found.groups()
        if name not in self.hub.models:
            return self.answer({"error": "Repository not found"}, 404, "RepoNotFound")
        if revision not in self.hub.models[name]:
            return self.answer({"error": "Invalid rev id"}, 404, "RevisionNotFound")
        return self.answer({"id": name})

    def do_HEAD(self) -> None:
        found = re.fullmatch(r"/datasets/(.+?)/resolve/(.+?)/(.+)", self.path)
        assert found is not None
        repo, branch, name = found.groups()
        if (data := self.hub.trees.get((repo, branch), {}).get(name)) is None:
            return self.answer({}, 404, "EntryNotFound")
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(data)))
        return self.end_headers()

    def do_PUT(self) -> None:
        data, name = self.body(), self.path.rpartition("/")[2]
        assert hashlib.sha256(data).hexdigest() == name
        self.hub.blobs[name] = data
        self.answer({})

    def do_POST(self) -> None:
        data = self.body()
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self.answer({"error": "Invalid username or password."}, 401)
        if self.path == "/api/repos/create":
            return self.create(json.loads(data))
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if found := re.fullmatch(r"/api/datasets/(.+)/branch/(.+)", self.path):
            return self.branch(*found.groups())
        if re.fullmatch(r"/api/datasets/.+/preupload/.+", self.path):
            return self.answer({"files": [mode(file["path"]) for file in json.loads(data)["files"]]})
        if re.fullmatch(r"/datasets/.+\.git/info/lfs/objects/batch", self.path):
            return self.answer(
                {"transfer": "basic", "objects": [self.place(one) for one in json.loads(data)["objects"]]}
            )
        if found := re.fullmatch(r"/api/datasets/(.+)/commit/(.+)", self.path):
            return self.commit(*found.groups(), [json.loads(line) for line in data.splitlines()])
        return self.answer({"error": f"no route {self.path}"}, 404)

    def create(self, wanted: dict[str, Any]) -> None:
        repo = "/".join(filter(None, (wanted.get("organization"), wanted["name"])))
        answer = {"url": f"{self.hub.url}/datasets/{repo}", "name": repo, "id": repo}
        if repo in self.hub.private:
            return self.answer({**answer, "error": "You already created this dataset repo"}, 409)
        self.hub.private[repo] = wanted.get("private", False) or wanted.get("visibility") == "private"
        self.hub.trees[repo, "main"] = {}
        return self.answer(answer)

    def branch(self, repo: str, name: str) -> None:
        if (repo, name) in self.hub.trees:
            return self.answer({"error": "Reference already exists"}, 409)
        self.hub.trees[repo, name] = dict(self.hub.trees[repo, "main"])
        return self.answer({})

    def place(self, wanted: dict[str, Any]) -> dict[str, Any]:
        known = {"oid": wanted["oid"], "size": wanted["size"]}
        if wanted["oid"] in self.hub.blobs:
            return known
        return {**known, "actions": {"upload": {"href": f"{self.hub.url}/upload/{wanted['oid']}", "header": {}}}}

    def commit(self, repo: str, branch: str, lines: list[dict[str, Any]]) -> None:
        tree = self.hub.trees[repo, branch]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                tree[value["path"]] = self.hub.blobs[value["oid"]]
        self.hub.commits += 1
        oid = f"{self.hub.commits:040x}"
        self.answer({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/datasets/{repo}/commit/{oid}"})


def mode(path: str) -> dict[str, Any]:
    is_large = path.endswith((".tar", ".parquet"))
    return {"path": path, "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False, "oid": None}


@contextmanager
def open_hub() -> Iterator[Hub]:
    """A hub that answers while the context lasts."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OwnHandler", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
