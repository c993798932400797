"""Questions one at a time against all at once, over HTTP, on a live pool.

    python benchmarks/serving.py [--questions 64] [--url http://127.0.0.1:8000]

Starts `der serve` on a free port (or uses the server at `--url`), asks held-out questions of the demo one
after the other, then all of them at the same moment, and prints throughput, latencies, errors and whether the
answers are the same. All at once should be at least three times as fast.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
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

from der_graph.data import load_examples
from der_graph.demo.showcase import demo_file, interleaved


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
        url = line.split()[-1]
        started = time.perf_counter()
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


def ask(url: str, question: str, stream: bool = False) -> Reply:
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


def report(name: str, replies: list[Reply], seconds: float) -> None:
    times = sorted(reply.seconds for reply in replies)
    errors = sum(bool(reply.error) for reply in replies)
    print(
        f"{name:<22} {seconds:6.1f} s  {len(replies) / seconds:5.2f} a second  "
        f"median {statistics.median(times):5.2f} s  p95 {times[int(0.95 * len(times))]:5.2f} s  "
        f"errors {errors}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="One at a time against all at once.")
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--url", help="a server that runs already (key in DER_API_KEY)")
    parser.add_argument("--pool", default="demo")
    parser.add_argument("--agent", default="demo")
    given = parser.parse_args()
    questions = [each.question for each in interleaved(load_examples(demo_file("heldout.jsonl")))]
    questions = questions[: given.questions]

    if given.url:
        compare(given.url, questions)
    else:
        with server(given.pool, given.agent) as url:
            compare(url, questions)


def compare(url: str, questions: list[str]) -> None:
    ask(url, questions[0])  # the first call of a model is slower
    start = time.perf_counter()
    alone = [ask(url, question) for question in questions]
    one_by_one = time.perf_counter() - start
    report("one at a time", alone, one_by_one)
    for stream in (False, True):
        with ThreadPoolExecutor(len(questions)) as pool:
            start = time.perf_counter()
            together = list(pool.map(lambda q, s=stream: ask(url, q, s), questions))
            at_once = time.perf_counter() - start
        report(f"{len(questions)} at once{', streamed' * stream}", together, at_once)
        same = sum(a.answer == b.answer for a, b in zip(alone, together, strict=True))
        print(f"  {one_by_one / at_once:.1f} times the throughput; {same} answers the same")
        for error in {reply.error for reply in together if reply.error}:
            print(f"  {error}")
    routes = Counter(reply.route for reply in alone)
    print("routes:", ", ".join(f"{route} {count}" for route, count in routes.most_common()))


if __name__ == "__main__":
    main()
