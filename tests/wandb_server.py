"""The little of a W&B server that its own client needs to deliver a run: it keeps what arrives, and judges nothing."""

import gzip
import json
import sys
from collections import defaultdict
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

KEY = "a" * 40  # as long as the client demands


class Received:
    """What a client has delivered.

    history: run id -> its logged rows in order. files: run id, or "artifact" -> name -> bytes. config: run id ->
    key -> {"value": value}. artifacts: the names of those that are complete.
    """

    def __init__(self):
        self.history = defaultdict(list)
        self.files = defaultdict(dict)
        self.config = {}
        self.artifacts = []


@contextmanager
def wandb_server():
    """Yields (address, :class:`Received`); it listens on this machine alone."""
    received = Received()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"received": received}))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that leaves without a word is none."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    received: Received

    def do_POST(self):
        raw = self._content()
        content = json.loads(raw or "{}")
        if self.path == "/graphql":
            self._answer({"data": self._graphql(content.get("operationName"), content.get("variables", {}))})
            return
        if self.path.endswith("/file_stream"):  # /files/ENTITY/PROJECT/RUN/file_stream
            sent = content.get("files", {}).get("wandb-history.jsonl", {"offset": 0, "content": []})
            history, first = self.received.history[self.path.split("/")[-2]], sent["offset"]
            history[first : first + len(sent["content"])] = map(json.loads, sent["content"])
        self._answer({})

    def do_PUT(self):
        _, _, run, name = self.path.split("/", 3)  # /put/RUN/NAME
        self.received.files[run][name] = self._content()
        self._answer({})

    def do_GET(self):
        self._answer({})

    def _graphql(self, operation, variables):
        if operation == "Viewer":
            return {"viewer": {"id": "v", "entity": "someone", "username": "someone", "teams": {"edges": []}}}
        if operation == "UpsertBucket":
            run = variables["name"]
            self.received.config[run] = json.loads(variables["config"] or "{}")
            project = {"id": "p", "name": variables["project"], "entity": {"id": "e", "name": "someone"}}
            bucket = {"id": run, "name": run, "displayName": run, "project": project}
            return {"upsertBucket": {"bucket": {**bucket, "historyLineCount": len(self.received.history[run])}}}
        if operation == "CreateRunFiles":
            run = variables["run"]
            files = [self._place(run, name) for name in variables["files"]]
            return {"createRunFiles": {"runID": run, "uploadHeaders": [], "files": files}}
        if operation == "CreateArtifact":
            given = variables["input"]
            artifact = {"id": given["artifactCollectionName"], "state": "PENDING", "artifactSequence": {"id": "s"}}
            return {"createArtifact": {"artifact": artifact}}
        if operation == "CreateArtifactManifest":
            file = self._place("artifact", "manifest.json")
            return {"createArtifactManifest": {"artifactManifest": {"id": "m", "file": file}}}
        if operation == "CreateArtifactFiles":
            nodes = [
                {**self._place("artifact", file["name"]), "artifact": {"id": file["artifactID"]}}
                for file in variables["input"]["artifactFiles"]
            ]
            return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}
        if operation == "CommitArtifact":
            self.received.artifacts.append(variables["artifactID"])
            return {"commitArtifact": {"artifact": {"id": variables["artifactID"], "digest": "d"}}}
        return {"project": None}  # what it asks of others' artifacts

    def _place(self, of, name):
        """Where a client may put a file."""
        address = f"http://127.0.0.1:{self.server.server_port}/put/{of}/{name}"
        return {"id": "f", "name": name, "displayName": name, "uploadUrl": address, "uploadHeaders": []}

    def _content(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(content) if self.headers.get("Content-Encoding") == "gzip" else content

    def _answer(self, value):
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass
