"""A collector that speaks LangSmith's protocol, on this machine: what a client sends it can be looked at.

GET /info    POST /runs/multipart    POST /feedback    POST /runs/query    GET /feedback
GET and POST /datasets    GET /examples    POST /examples/bulk    POST /sessions
"""

from __future__ import annotations

import email
import email.policy
import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

INFO = {
    "version": "0.12.0",
    "batch_ingest_config": {
        "use_multipart_endpoint": True,
        "scale_up_qsize_trigger": 1000,
        "scale_up_nthreads_limit": 1,
        "scale_down_nempty_trigger": 4,
        "size_limit": 100,
        "size_limit_bytes": 20_971_520,
    },
}


class Collector:
    """What was received.

    Attributes:
        url: Where it listens.
        requests: Method and path of every request.
        raw: Bodies, as they came.
        runs: Runs by id, with inputs, outputs, events, extra and error.
        feedback: Feedback by id.
        datasets: Examples by the name of their dataset.
        projects: Projects (experiments), as they were made.
    """

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[str] = []
        self.raw: list[bytes] = []
        self.runs: dict[str, dict[str, Any]] = {}
        self.feedback: dict[str, dict[str, Any]] = {}
        self.datasets: dict[str, list[dict[str, Any]]] = {}
        self.projects: list[dict[str, Any]] = []
        self.lock = threading.Lock()

    def named(self, name: str) -> list[dict[str, Any]]:
        """Runs of a name, in the order in which they began."""
        found = [run for run in self.runs.values() if run.get("name") == name]
        return sorted(found, key=lambda run: str(run["dotted_order"]))

    def dataset_id(self, name: str) -> str:
        """The id of a dataset is made of its name."""
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))

    def dataset(self, name: str) -> dict[str, Any]:
        """A dataset as the service describes it."""
        return {"id": self.dataset_id(name), "name": name, "created_at": "2026-01-01T00:00:00"}

    def examples(self, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        """One page of a dataset's examples."""
        found = [n for n in self.datasets if self.dataset_id(n) in query["dataset"]]
        start = int(query["offset"][0])
        page = self.datasets[found[0]][start : start + int(query["limit"][0])]
        common = {"dataset_id": query["dataset"][0], "created_at": "2026-01-01T00:00:00"}
        return [{**common, **each} for each in page]

    def made(self, path: str, given: Any) -> Any:
        """Keep a dataset, examples or a project that a client makes, and answer."""
        if path == "/datasets":
            self.datasets[given["name"]] = []
            return self.dataset(given["name"])
        if path == "/sessions":
            self.projects.append(given)
            return {**PROJECT, **{key: value for key, value in given.items() if value is not None}}
        name = next(n for n in self.datasets if self.dataset_id(n) == given[0]["dataset_id"])
        for each in given:
            each["id"] = str(uuid.uuid4())
            self.datasets[name].append(each)
        return given

    def children(self, run: dict[str, Any]) -> list[dict[str, Any]]:
        found = [each for each in self.runs.values() if each.get("parent_run_id") == run["id"]]
        return sorted(found, key=lambda each: str(each["dotted_order"]))

    def receive(self, content_type: str, body: bytes) -> None:
        """Take the parts of a multipart request apart: `post.<id>`, `patch.<id>.outputs` ..."""
        head = f"Content-Type: {content_type}\r\n\r\n".encode()
        message: Any = email.message_from_bytes(head + body, policy=email.policy.default)
        for part in message.iter_parts():
            name = part.get_param("name", header="content-disposition")
            kind, run_id, *field = name.split(".")
            content = json.loads(part.get_payload(decode=True))
            if kind == "feedback":
                self.feedback[run_id] = content
                continue
            run = self.runs.setdefault(run_id, {})
            if field:
                run[field[0]] = content
            else:
                run.update({key: value for key, value in content.items() if value is not None})


@contextmanager
def collector() -> Iterator[Collector]:
    """Listen on a free port until the block is left."""
    got = Collector()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Silent."""

        def answer(self, content: Any, status: int = 200) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            where = urlsplit(self.path)
            got.requests.append(f"GET {where.path}")
            if where.path == "/info":
                self.answer(INFO)
            elif where.path == "/feedback":
                wanted = parse_qs(where.query).get("run", [])
                self.answer([each for each in got.feedback.values() if each["run_id"] in wanted])
            elif where.path == "/datasets":
                names = [n for n in parse_qs(where.query)["name"] if n in got.datasets]
                self.answer([got.dataset(name) for name in names])
            elif where.path == "/examples":
                self.answer(got.examples(parse_qs(where.query)))
            elif where.path == "/sessions":
                self.answer([PROJECT])
            else:
                self.answer({"detail": "unknown"}, 404)

        def do_POST(self) -> None:
            body = self._body()
            with got.lock:
                got.requests.append(f"POST {self.path}")
                got.raw.append(body)
                if self.path == "/runs/multipart":
                    got.receive(self.headers["Content-Type"], body)
                elif self.path == "/feedback":
                    given = json.loads(body)
                    got.feedback[given["id"]] = given
            if self.path == "/runs/query":
                roots = [run for run in got.runs.values() if not run.get("parent_run_id")]
                self.answer({"runs": [_as_read(run) for run in roots], "cursors": {"next": None}})
            elif self.path in ("/datasets", "/sessions", "/examples/bulk"):
                self.answer(got.made(self.path, json.loads(body)))
            else:
                self.answer({}, 202)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline().strip() or b"0", 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    got.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


SESSION = "00000000-0000-0000-0000-000000000001"
PROJECT = {
    "id": SESSION,
    "name": "der",
    "tenant_id": SESSION,
    "start_time": "2026-01-01T00:00:00",
    "reference_dataset_id": None,
}


def _as_read(run: dict[str, Any]) -> dict[str, Any]:
    """A run as the service gives it back."""
    return {"session_id": SESSION, "app_path": "/run", "child_run_ids": [], **run}
