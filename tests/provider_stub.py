"""A provider of OpenAI's protocol on loopback, for tests of what is sent to it and of what comes back."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}

Reply = Mapping[str, Any]
"""`content`, and where they matter: `finish`, `usage`, `message` (more fields), `logprobs`, `status`,
`error`, `headers`, `breaks` (the stream stops without a last chunk), `chunks` (the stream, as it is), `body`
(the whole answer, as it is), `raw` and its `type` (either, as bytes)."""


class Provider:
    """Answers by a function of the request's body; remembers every body.

    Attributes:
        requests: What was sent, in order.
        url: For `base_url`.

    Args:
        reply: What it says.
        keep_alive: Do connections stay open, as those of real providers do?
    """

    def __init__(
        self, reply: Callable[[dict[str, Any]], Reply], *, keep_alive: bool = False
    ) -> None:
        self.requests: list[dict[str, Any]] = []
        self._version = "HTTP/1.1" if keep_alive else "HTTP/1.0"
        self._reply = reply
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = provider._version
            timeout = 10

            def log_message(self, *_: Any) -> None:
                """Quiet."""

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                provider.requests.append(body)
                reply = provider._reply(body)
                status = reply.get("status", 200)
                if status != 200:
                    content, kind = (
                        json.dumps({"error": reply["error"]}).encode(),
                        "application/json",
                    )
                elif "raw" in reply:
                    content, kind = reply["raw"], reply.get("type", "text/html")
                elif body.get("stream"):
                    content, kind = _stream(body, reply), "text/event-stream"
                else:
                    content, kind = _whole(body, reply), "application/json"
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(content)))
                for name, value in reply.get("headers", {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

        return Handler


def _whole(body: Mapping[str, Any], reply: Reply) -> bytes:
    if "body" in reply:
        return json.dumps(reply["body"]).encode()
    message = {"role": "assistant", "content": reply["content"], **reply.get("message", {})}
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": reply.get("finish", "stop"),
        "logprobs": reply.get("logprobs"),
    }
    usage = reply.get("usage", USAGE)
    head = {"id": "x", "created": 1, "model": body["model"], "object": "chat.completion"}
    return json.dumps({**head, "choices": [choice], "usage": usage}).encode()


def _stream(body: Mapping[str, Any], reply: Reply) -> bytes:
    head = {"id": "x", "created": 1, "model": body["model"], "object": "chat.completion.chunk"}

    def chunk(delta: Mapping[str, Any], finish: str | None = None, **more: Any) -> Any:
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish, **more}]}

    if "chunks" in reply:
        given = [{**head, **part} for part in reply["chunks"]]
        return (
            "".join(f"data: {json.dumps(part)}\n\n" for part in given).encode()
            + b"data: [DONE]\n\n"
        )
    words = (reply["content"] or "").split(" ")
    parts = [
        chunk({"role": "assistant", "content": words[0], **_indexed(reply.get("message", {}))})
    ]
    parts += [chunk({"content": f" {word}"}) for word in words[1:]]
    if not reply.get("breaks"):
        parts.append(chunk({}, reply.get("finish", "stop"), logprobs=reply.get("logprobs")))
        if (body.get("stream_options") or {}).get("include_usage"):
            parts.append({**head, "choices": [], "usage": reply.get("usage", USAGE)})
    text = "".join(f"data: {json.dumps(part)}\n\n" for part in parts)
    return (text + ("" if reply.get("breaks") else "data: [DONE]\n\n")).encode()


def _indexed(message: Mapping[str, Any]) -> dict[str, Any]:
    calls = [{"index": i, **call} for i, call in enumerate(message.get("tool_calls", ()))]
    return {**message, "tool_calls": calls} if calls else dict(message)


def piece(delta: Mapping[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    """One chunk of a stream, for `chunks`."""
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


@contextmanager
def provider(
    reply: Callable[[dict[str, Any]], Reply] | str, *, keep_alive: bool = False
) -> Iterator[Provider]:
    """A provider that is closed afterwards; a text is what it always says."""
    always = (lambda body: {"content": reply}) if isinstance(reply, str) else reply
    made = Provider(always, keep_alive=keep_alive)
    try:
        yield made
    finally:
        made.close()


def remote_model(url: str, model: str = "m", **settings: Any) -> Any:
    """LangChain's model of such a provider."""
    import pytest

    openai = pytest.importorskip("langchain_openai", reason="needs the extra test")
    return openai.ChatOpenAI(model=model, base_url=url, api_key="none", max_retries=0, **settings)
