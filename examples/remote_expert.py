"""A local expert and a remote one, behind the OpenAI protocol: vLLM, TGI, Ollama or a provider look the same.

Run it with `python examples/remote_expert.py`; a stub server on this machine stands for the remote one, so it
needs no key. With a server of your own: `python examples/remote_expert.py http://host:8000/v1 MODEL`.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from der_graph import create_der_graph
from der_graph.nodes.langchain import as_expert
from der_graph.policies.baselines import FixedOrder
from der_graph.pool import Pool, pool_from


class Stub(BaseHTTPRequestHandler):
    """Answers every chat completion, and repeats what it was told by the expert before it."""

    def do_POST(self) -> None:
        """One chat completion."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        told = body["messages"][-1]["content"]
        text = "4, as the other one said." if "It is 4" in told else "I would have to guess."
        reply = {
            "id": "stub-1",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": text},
                }
            ],
            "usage": {"prompt_tokens": 20, "completion_tokens": 6, "total_tokens": 26},
        }
        data = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@contextmanager
def stub_server() -> Iterator[str]:
    """A server on a free port of this machine; yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def build_pool(address: str, model: str) -> Pool:
    """The local expert is a function here; see the README for local models."""
    remote = ChatOpenAI(model=model, base_url=address, api_key=SecretStr("none"), max_retries=1)
    return pool_from(
        [
            as_expert(lambda question: "It is 4.", name="local", cost=0.1),
            # Charged by token, at most 2 a call; never more than 8 calls at once.
            as_expert(
                remote, name="remote", cost=2.0, token_prices=(10_000, 30_000), max_concurrency=8
            ),
        ],
        max_steps=2,
    )


def main(address: str, model: str = "stub") -> dict[str, Any]:
    """Ask both in turn; a trained agent would take the place of the fixed order."""
    pool = build_pool(address, model)
    agent = FixedOrder(pool.rules.names, pool.rules.costs, ["local", "remote"])
    der = create_der_graph(pool, agent=agent).compile(name="der")
    state: dict[str, Any] = der.invoke({"messages": [("user", "What is 2 + 2?")]})
    for step in state["route"]:
        answer = step["answer"]
        print(step["choice"], "" if answer is None else f"{answer['text']}  ({answer['cost']:.2f})")
    return state


if __name__ == "__main__":
    if len(sys.argv) > 2:
        main(*sys.argv[1:3])
    else:
        with stub_server() as at:
            main(at)
