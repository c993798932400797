"""Traces, redaction and feedback: why was an expert asked, and what did the user think of the answer?

Run it with `python examples/tracing.py`; it needs no key, no network and no weights. The traces go to a tiny
collector on this machine in place of LangSmith: with `LANGSMITH_API_KEY` set and without `api_url` the same
code sends them there.
"""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from langsmith import tracing_context

from der_graph import DERContext, create_der_graph
from der_graph.nodes.decision import Choice
from der_graph.nodes.langchain import as_expert
from der_graph.observability import RouteLog, tracing_client, write_training_data
from der_graph.state import END_CHOICE, Situation, answers_of


def guesser(question: str) -> str:
    """Cheap, and often wrong."""
    return "It is 10."


def calculator(question: str) -> str:
    """Dear, and right."""
    return "It is 12."


INFO = {
    "version": "0.12.0",
    "batch_ingest_config": {
        "use_multipart_endpoint": True,
        "size_limit": 100,
        "size_limit_bytes": 20_971_520,
        "scale_up_qsize_trigger": 1000,
        "scale_up_nthreads_limit": 1,
        "scale_down_nempty_trigger": 4,
    },
}
"""What a LangSmith server says of itself."""


class SecondOpinion:
    """An agent that always asks both: first the cheap one."""

    def check_pool(self, names: Sequence[str]) -> None:
        """Two experts."""

    def decide(self, situations: Sequence[Situation]) -> list[Choice]:
        """The next in order, and END after the last, as far as the mask allows."""
        choices = []
        for situation in situations:
            index = situation.mask.index(True, min(len(situation.answers), 2))
            choices.append(Choice(index, [float(i == index) for i in range(3)], value=0.7))
        return choices


@contextmanager
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """Something that takes traces on this machine; gives its address and what it received."""
    received: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Silent."""

        def do_GET(self) -> None:
            self._answer(json.dumps(INFO).encode())

        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer(b"{}")

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def main() -> dict[str, Any]:
    """Ask, trace, rate, export; returns what there is to see."""
    experts = [
        as_expert(guesser, name="guesser", cost=1.0),
        as_expert(calculator, name="calculator", cost=3.0),
    ]
    der = create_der_graph(experts, agent=SecondOpinion()).compile(name="der")
    run_id = uuid.uuid4()
    with collector() as (url, received), tempfile.TemporaryDirectory() as folder:
        client = tracing_client(api_url=url, api_key="none", redact=True)
        with tracing_context(enabled=True, client=client, project_name="cafe"):
            state = der.invoke(
                {"messages": [("user", "What is 3 * 4, please?")]},
                {"run_id": run_id, "tags": ["demo"]},
                context=DERContext(max_cost=5.0),
            )
        client.flush()
        client.cleanup()

        for step in state["route"]:
            print(step["step"], step["choice"], step["probabilities"], step["reason"])

        # A thumb up, kept next to the app (`rate_run` does the same in LangSmith).
        log = RouteLog(Path(folder) / "routes.jsonl")
        log.add(state, run_id)
        log.rate(run_id, 1.0)
        data = Path(folder) / "feedback.jsonl"
        write_training_data(data, log.routes())
        row = json.loads(data.read_text(encoding="utf-8"))

    sent = b"".join(received)
    print(
        f"{len(received)} requests, {len(sent)} bytes of traces, the question in them: {b'3 * 4' in sent}"
    )
    print("training data:", row["output"], {c["model"]: c["scores"] for c in row["candidates"]})
    assert state["route"][-1]["choice"] == END_CHOICE
    return {"sent": sent, "row": row, "answers": answers_of(state["route"])}


if __name__ == "__main__":
    main()
