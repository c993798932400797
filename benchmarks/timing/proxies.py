"""`der serve` beside LiteLLM's proxy: the same stub behind both, the same callers before them, in one run.

    callers ──> der serve, several processes in turn ──┐
    callers ──> litellm, workers of its own ───────────┼──> stub_provider
    callers ───────────────────────────────────────────┘

Callers, proxies and stub share the cores of the machine, so absolute figures are low; the comparison holds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
import psutil

from timing.measuring import load_of_machine, verdict
from timing.serving import server

STUB_MS = 20
EXPERT = (
    '  - {{name: {name}, backend: langchain, model: "openai:{name}", cost: {cost}, max_concurrency: 256, '
    'settings: {{base_url: "{url}/v1", api_key: none}}}}\n'
)
LITELLM = """
model_list:
  - model_name: der
    litellm_params: {{model: openai/small, api_base: "{url}/v1", api_key: none}}
litellm_settings: {{telemetry: false}}
"""


class Caller:
    """One connection that asks again and again; raw, so that it costs the machine little."""

    def __init__(self, url: str) -> None:
        at = urlsplit(url)
        self.host, self.port = at.hostname or "127.0.0.1", at.port or 80
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, number: int) -> float:
        """Seconds of one request."""
        body = json.dumps(
            {"model": "der", "messages": [{"role": "user", "content": f"What is {number} + 1?"}]}
        )
        start = time.perf_counter()
        if self._streams is None:
            self._streams = await asyncio.open_connection(self.host, self.port)
        reader, writer = self._streams
        writer.write(
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {self.host}:{self.port}\r\ncontent-type: "
            f"application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        answer = await reader.readexactly(length)
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise SystemExit(f"a request failed: {answer[:300].decode()}")
        if b"connection: close" in head:
            self.close()
        return time.perf_counter() - start

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


async def flood(urls: Sequence[str], callers: int, seconds: float) -> float:
    """Requests a second that so many callers get answered, each asking again at once."""
    done, end = 0, time.perf_counter() + seconds

    async def ask_on(caller: Caller) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await caller.ask(done)
            done += time.perf_counter() < end
        caller.close()

    await asyncio.gather(*(ask_on(Caller(urls[i % len(urls)])) for i in range(callers)))
    return done / seconds


async def paced(urls: Sequence[str], rate: float, seconds: float) -> list[float]:
    """Seconds of each request, at so many a second whether or not earlier ones are answered."""
    free = [Caller(url) for url in urls for _ in range(8)]
    times: list[float] = []

    async def one(number: int) -> None:
        caller = free.pop(0) if free else Caller(urls[number % len(urls)])
        times.append(await caller.ask(number))
        free.append(caller)

    start, tasks = time.perf_counter(), []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(start + number / rate - time.perf_counter())
        tasks.append(asyncio.ensure_future(one(number)))
    await asyncio.gather(*tasks)
    for caller in free:
        caller.close()
    return times


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def process(command: Sequence[str], url: str, page: str, **environment: str) -> Iterator[str]:
    """A process that serves a page once it is ready."""
    with tempfile.TemporaryFile() as log:
        # A group, to end its workers too; no session: Linux would give that a share of time of its own.
        started = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env={**os.environ, **environment},
            preexec_fn=os.setpgrp,
        )
        try:
            for _ in range(600):
                with contextlib.suppress(OSError), urllib.request.urlopen(url + page, timeout=5):
                    break
                if started.poll() is not None:
                    log.seek(0)
                    raise SystemExit(log.read().decode()[-2000:])
                time.sleep(0.5)
            yield url
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, 15)
            started.wait()


@contextlib.contextmanager
def litellm(program: str, stub: str, workers: int, folder: Path) -> Iterator[list[str]]:
    """LiteLLM's proxy."""
    config, port = folder / "litellm.yaml", free_port()
    config.write_text(LITELLM.format(url=stub))
    command = [program, "--config", str(config), "--port", str(port), "--host", "127.0.0.1"]
    with process(
        [*command, "--num_workers", str(workers)], f"http://127.0.0.1:{port}", "/health/liveliness",
        LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_LOG="ERROR",
        LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY="true",  # as der serve has none either
    ) as url:  # fmt: skip
        yield [url]


@contextlib.contextmanager
def der(stub: str, processes: int, folder: Path) -> Iterator[list[str]]:
    """Servers of der-graph, each a process, asked in turn."""
    pool = folder / "pool.yaml"
    experts = "".join(
        EXPERT.format(name=n, cost=c, url=stub) for n, c in (("small", 1), ("large", 4))
    )
    pool.write_text(f"experts:\n{experts}settings: {{max_steps: 1}}\n")
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(server(str(pool), "planner")) for _ in range(processes)]


class Figures(NamedTuple):
    """Of one repeat."""

    a_second: float
    cpu_ms: float
    """Of the servers, for each request: what decides where cores are short, whatever else runs on them."""
    p50_ms: float
    p99_ms: float


def cpu_seconds(urls: Sequence[str]) -> float:
    """CPU time so far of all processes that listen there."""
    ports = {urlsplit(url).port for url in urls}
    pids = {
        each.pid
        for each in psutil.net_connections("tcp")
        if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr[1] in ports and each.pid
    }
    parents = [psutil.Process(pid) for pid in pids]
    workers = [child for each in parents for child in each.children(recursive=True)]
    times = [each.cpu_times() for each in (*parents, *workers)]
    return sum(each.user + each.system for each in times)


def measured(urls: Sequence[str], args: argparse.Namespace) -> Figures:
    asyncio.run(flood(urls, args.callers, 3.0))  # connections, threads, what is read once
    before = cpu_seconds(urls)
    many = asyncio.run(flood(urls, args.callers, args.seconds))
    cpu_ms = (cpu_seconds(urls) - before) * 1000 / max(many * args.seconds, 1)
    times = asyncio.run(paced(urls, args.rate, args.seconds))
    p50, p99 = np.percentile(times, [50, 99]) * 1000
    return Figures(many, cpu_ms, float(p50), float(p99))


def proxies(args: argparse.Namespace) -> int:
    """Requests a second through `der serve` and through LiteLLM's proxy, over a stub; then at a fixed rate.

    Each repeat measures all of them, one after another. `--peer` is the program `litellm` of an environment
    with `litellm[proxy]`; without it DER is measured alone. Overhead is the time through the servers less
    that of the stub asked directly, at the 99th percentile of `--rate` requests a second.
    """
    rows: dict[str, list[Figures]] = {}
    here = Path(__file__).parent
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder, port = Path(name), free_port()
        command = [sys.executable, str(here / "stub_provider.py"), str(port), str(STUB_MS)]
        url = f"http://127.0.0.1:{port}"
        stub = stack.enter_context(process(command, url, "/"))
        ways = {"stub alone": [stub]}
        ways[f"der serve, {args.processes} processes"] = stack.enter_context(
            der(stub, args.processes, folder)
        )
        for workers in dict.fromkeys((1, args.processes)) if args.peer else ():
            ways[f"litellm, {workers} worker{'s' * (workers > 1)}"] = stack.enter_context(
                litellm(args.peer, stub, workers, folder)
            )
        for _ in range(args.repeats):
            for way, urls in ways.items():
                rows.setdefault(way, []).append(measured(urls, args))
    print(f"{'':<28}{'a second':>10}{'(all repeats)':>26}{'CPU ms':>9}{'p50 ms':>9}{'p99 ms':>9}")
    for way, found in rows.items():
        middle = [float(np.median([getattr(f, key) for f in found])) for key in Figures._fields]
        each = " ".join(f"{f.a_second:.0f}" for f in found)
        print(
            f"{way:<28}{middle[0]:>10.0f}{each:>26}{middle[1]:>9.2f}{middle[2]:>9.1f}{middle[3]:>9.1f}"
        )
    print(load_of_machine())
    names = list(rows)
    direct, ours = rows[names[0]], rows[names[1]]
    beyond = float(np.median([f.p99_ms for f in ours]) - np.median([f.p50_ms for f in direct]))
    print(
        f"overhead at {args.rate} requests a second, p99 beyond the stub's median: {beyond:.1f} ms"
    )
    ratios = {
        way: float(
            np.median([a.a_second / b.a_second for a, b in zip(ours, rows[way], strict=True)])
        )
        for way in names[2:]
    }
    for way, ratio in ratios.items():
        less = np.median([b.cpu_ms / a.cpu_ms for a, b in zip(ours, rows[way], strict=True)])
        print(f"{ratio:.2f} times the throughput of {way}, {less:.2f} times by CPU time a request")
    met = beyond < 25 and (not ratios or max(ratios.values()) >= 3)
    return verdict("three times the throughput of one proxy, overhead under 25 ms", met)
