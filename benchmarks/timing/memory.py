"""What a server keeps of each request that it has answered."""

from __future__ import annotations

import argparse
import gc
import http.client
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np

from der_graph.nodes.langchain import as_expert
from der_graph.policies.baselines import Random
from der_graph.pool import pool_from
from der_graph.server import create_app, in_background
from timing.measuring import verdict


def memory(args: argparse.Namespace) -> int:
    """Requests to a server of function experts, whole and streamed by turns: how its resident set grows.

    All is in this process. After `--warm` requests a line is fitted to the resident set. `--lines` shows
    instead where Python's own memory has grown between two snapshots, largest first.
    """

    async def expert(question: str) -> str:
        return f"{len(question)}"

    names = ("first", "second", "third")
    pool = pool_from([as_expert(expert, name=name, cost=1) for name in names], max_steps=3)
    sizes = []
    with in_background(create_app(pool, Random(names, [1.0] * len(names)))) as address:
        connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
        for number in range(args.warm):
            _ask(connection, number)
        before = _snapshot() if args.lines else None
        for number in range(args.warm, args.warm + args.requests):
            if number % 100 == 0:
                sizes.append((number, _resident_mb()))
            _ask(connection, number)
        if before is not None:
            for grown in _snapshot().compare_to(before, "lineno")[: args.lines]:
                print(grown)
            return 0
        connection.close()
    requests, resident = np.array(sizes).T
    slope = float(np.polyfit(requests, resident, 1)[0]) * 10_000
    print(f"{sizes[0][1]:.1f} MB after {args.warm} requests, {sizes[-1][1]:.1f} MB at the end")
    print(f"{slope:.2f} MB in 10,000 requests")
    return verdict("under 1 MB in 10,000 requests", slope < 1)


def _ask(connection: http.client.HTTPConnection, number: int) -> None:
    message = {"role": "user", "content": f"What is question {number}?"}
    body = {"model": "der", "messages": [message], "stream": number % 2 == 0}
    headers = {"content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    response = connection.getresponse()
    text = response.read()
    assert response.status == 200, text


def _snapshot() -> Any:
    gc.collect()
    if not tracemalloc.is_tracing():
        tracemalloc.start()
    return tracemalloc.take_snapshot()


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
