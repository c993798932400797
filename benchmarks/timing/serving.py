"""Many requests at once over HTTP."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

from timing.measuring import Spread, demo_questions, seconds_of, verdict


class Reply(NamedTuple):
    """What came back for one question, after how many seconds."""

    seconds: float
    answer: str
    route: str
    error: str


@contextmanager
def server(pool: str, agent: str) -> Iterator[str]:
    """A server of its own process, ready."""
    command = [sys.executable, "-m", "der_graph", "serve", "--port", "0", "--quiet"]
    process = subprocess.Popen(
        [*command, "--pool", pool, "--agent", agent],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "DER_API_KEY": ""},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("listening on "):
            raise SystemExit("the server did not start")
        url, started = line.split()[-1], time.perf_counter()
        while not is_ready(url):
            if process.poll() is not None:
                raise SystemExit("the server ended while loading")
            time.sleep(0.2)
        print(f"ready after {time.perf_counter() - started:.1f} s")
        yield url
    finally:
        process.terminate()
        print(f"exit code {process.wait()}")


def is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz"):
            return True
    except urllib.error.HTTPError:
        return False


def post(url: str, question: str, stream: bool = False) -> Reply:
    """Ask one question; a stream is read to its end."""
    body = {"model": "der", "messages": [{"role": "user", "content": question}], "stream": stream}
    key = os.environ.get("DER_API_KEY", "none")
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), headers
    )
    start = time.perf_counter()
    try:
        with urllib.request.urlopen(request) as response:
            text = response.read().decode()
    except OSError as error:
        return Reply(time.perf_counter() - start, "", "", str(error))
    seconds = time.perf_counter() - start
    if not stream:
        content: Any = json.loads(text)
        answer = content["choices"][0]["message"]["content"]
        return Reply(seconds, answer, " > ".join(content["der"]["experts"]), "")
    lines = [line.removeprefix("data: ") for line in text.split("\n\n")]
    chunks = [json.loads(line) for line in lines if line.startswith("{")]
    wrong = [str(chunk["error"]) for chunk in chunks if "error" in chunk]
    if wrong:
        return Reply(seconds, "", "", wrong[0])
    answer = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    return Reply(seconds, answer.strip(), " > ".join(chunks[-1]["der"]["experts"]), "")


def serving(args: argparse.Namespace) -> int:
    """Questions one at a time against all at once, over HTTP: throughput, latencies, errors, same answers?"""
    questions = demo_questions(args.questions)
    if args.url:
        return _compare(args.url, questions)
    with server(args.pool, args.agent) as url:
        return _compare(url, questions)


def _compare(url: str, questions: list[str]) -> int:
    def report(name: str, replies: list[Reply], seconds: float) -> None:
        row = Spread.of([reply.seconds for reply in replies])
        errors = sum(bool(reply.error) for reply in replies)
        print(
            f"{name:<22} {seconds:6.1f} s  {len(replies) / seconds:5.2f} a second  "
            f"median {row.median:5.2f} s  p95 {row.p95:5.2f} s  errors {errors}"
        )

    post(url, questions[0])  # the first call of a model is slower
    one_by_one, alone = seconds_of(lambda: [post(url, question) for question in questions])
    report("one at a time", alone, one_by_one)
    ratios = []
    for stream in (False, True):
        with ThreadPoolExecutor(len(questions)) as pool:
            at_once, together = seconds_of(
                lambda s=stream, p=pool: list(p.map(lambda q: post(url, q, s), questions))  # type: ignore[misc]
            )
        report(f"{len(questions)} at once{', streamed' * stream}", together, at_once)
        same = sum(a.answer == b.answer for a, b in zip(alone, together, strict=True))
        ratios.append(one_by_one / at_once)
        print(f"  {ratios[-1]:.1f} times the throughput; {same} answers the same")
        for error in {reply.error for reply in together if reply.error}:
            print(f"  {error}")
    routes = Counter(reply.route for reply in alone)
    print("routes:", ", ".join(f"{route} {count}" for route, count in routes.most_common()))
    return verdict("three times the throughput", min(ratios) >= 3)
