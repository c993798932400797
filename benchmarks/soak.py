"""Soak and chaos: a server under mixed traffic and faults for any length, killed again and again.

    python benchmarks/soak.py --minutes 60 --kills 50 --train-kills 50 [--out soak.json]

A server process (`der serve` in a process of its own, on a pool of scripted experts) is asked whole and in
streams, by callers who leave, with broken and hostile requests, while its experts fail, hang, talk too
much and say strange things. Every so often it is killed with SIGKILL and started again over the same
answer cache. Lost is a request that the server took and that ended neither with an answer nor with an
error object, unless the server was killed meanwhile. Memory is the server's resident set; its slope is
fitted to the second half of each life. A trainer is killed in mid-run and goes on with `--resume`; its
agent must load.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

CHAT = "/v1/chat/completions"


# The server ---------------------------------------------------------------------------------------


def serve_chaos(port: int, cache: str) -> None:
    """Serve a pool whose experts do everything wrong that experts can."""
    import asyncio

    from der_graph.nodes.langchain import as_expert
    from der_graph.policies.baselines import Random
    from der_graph.pool import pool_from
    from der_graph.server import serve

    rng = random.Random(port)

    async def good(question: str) -> str:
        return f"fine: {len(question)}"

    async def flaky(question: str) -> str:
        kind = rng.random()
        if kind < 0.15:
            raise ConnectionError("cut")
        if kind < 0.25:
            raise TimeoutError("slow")
        if kind < 0.3:
            return ""
        return "fine, this time"

    async def slow(question: str) -> str:
        await asyncio.sleep(3600 if rng.random() < 0.05 else 0.2)
        return "fine, later"

    async def strange(question: str) -> str:
        return rng.choice(
            ["<|im_end|><|im_start|>system", "A" * 500_000, "half \ud800", "\x00", "I do not know."]
        )

    experts = [as_expert(each, name=each.__name__, cost=1) for each in (good, flaky, slow, strange)]
    pool = pool_from(experts, max_steps=3)
    agent = Random(list(pool.names), [1.0] * len(pool), seed=0)
    serve(pool, agent, port=port, cache=cache, deadline=2.0, max_concurrent=64, grace=2)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Served:
    """The server process, which may be killed and comes again."""

    def __init__(self, folder: Path) -> None:
        self.port, self.folder = free_port(), folder
        self.life: int | None = None  # the process that is ready; None from before a kill on
        self.start()

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        command = [sys.executable, __file__, "--serve", str(self.port)]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--cache", str(self.folder / "answers.sqlite")], stdout=log, stderr=log
            )
        for _ in range(600):
            if self.process.poll() is not None:
                raise SystemExit(f"the server ended by itself; see {self.folder / 'server.log'}")
            if ask(self.port, "GET", "/readyz", timeout=5)[0] == 200:
                self.life = self.process.pid
                return
            time.sleep(0.2)
        raise SystemExit("the server is not ready after two minutes")

    def kill(self) -> None:
        """SIGKILL, as an out-of-memory killer does."""
        self.life = None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    @property
    def memory_mb(self) -> float:
        """Resident set, where the system says."""
        try:
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        except (OSError, IndexError, ValueError):
            return float("nan")
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


# The callers --------------------------------------------------------------------------------------


def ask(
    port: int, method: str, path: str, body: Any = None, timeout: float = 30
) -> tuple[int, str]:
    """One request; status 0 if the connection failed, -1 if nothing came in time."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        content = json.dumps(body).encode() if isinstance(body, dict) else body
        connection.request(method, path, content, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read().decode("utf-8", "replace")
    except TimeoutError:
        return -1, ""
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


def leave(port: int, body: dict[str, Any]) -> None:
    """Ask, and close the connection before the answer."""
    content = json.dumps(body).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
            time.sleep(0.05)
    except OSError:
        pass


HOSTILE: list[bytes] = [
    b"",
    b"[" * 10_000,
    b'{"model":"der","messages":[{"role":"user","content":"\\ud800"}]}',
    b'{"model":"der","messages":[{"role":"user","content":"x"}],"der":{"max_cost":1'
    + b"0" * 400
    + b"}}",
    b'{"model":"nobody","messages":[{"role":"user","content":"x"}]}',
    b"\xff" * 1000,
]


def traffic(served: Served, stop: threading.Event, seen: Counter[str], seed: int) -> None:
    """Mixed requests, one after the other, until the end."""
    rng = random.Random(seed)
    while not stop.is_set():
        life, kind = served.life, rng.random()
        if life is None:
            time.sleep(0.05)
            continue
        question = f"question {rng.randrange(2000)} " + "word " * rng.choice([1, 10, 500])
        body = {"model": "der", "messages": [{"role": "user", "content": question}]}
        if kind < 0.1:
            leave(served.port, body)
            seen["left"] += 1
            continue
        if kind < 0.2:
            status, text = ask(served.port, "POST", CHAT, rng.choice(HOSTILE))
            name = "hostile"
        elif kind < 0.5:
            status, text = ask(served.port, "POST", CHAT, {**body, "stream": True})
            name = "stream"
        else:
            status, text = ask(served.port, "POST", CHAT, body)
            name = "whole"
        whole = text.rstrip().endswith("[DONE]") or '"error"' in text or '"chat.completion"' in text
        if served.life != life:
            seen["killed meanwhile"] += 1
        elif status > 0 and whole:
            seen[f"{name} {status}"] += 1
        else:
            seen[f"LOST {name} {status}"] += 1


def soak(minutes: float, kills: int, callers: int, folder: Path) -> dict[str, Any]:
    """Run the server under traffic."""
    served, stop, seen = Served(folder), threading.Event(), Counter[str]()
    threads = [
        threading.Thread(target=traffic, args=(served, stop, seen, seed), daemon=True)
        for seed in range(callers)
    ]
    for thread in threads:
        thread.start()
    start = time.monotonic()
    memory: list[Any] = []
    slopes: list[Any] = []
    life_s = minutes * 60 / (kills + 1)
    for life in range(kills + 1):
        memory = []
        end = start + (life + 1) * life_s
        while time.monotonic() < end:
            memory.append((sum(seen.values()), served.memory_mb))
            time.sleep(min(2.0, max(0.05, life_s / 40)))
        late = np.array(memory[len(memory) // 2 :])
        if len(late) > 5 and np.ptp(late[:, 0]) > 0:
            slopes.append(float(np.polyfit(late[:, 0], late[:, 1], 1)[0] * 10_000))
        if life < kills:
            served.kill()
            served.start()
    last = served.memory_mb
    stop.set()
    for thread in threads:
        thread.join(60)
    log = (folder / "server.log").read_text(errors="replace")
    served.process.send_signal(signal.SIGTERM)
    try:
        code: int | None = served.process.wait(30)
    except subprocess.TimeoutExpired:
        served.process.kill()
        code = None
    return {
        "minutes": minutes,
        "requests": sum(seen.values()),
        "lost": sum(count for name, count in seen.items() if name.startswith("LOST")),
        "kills": kills,
        "seen": dict(sorted(seen.items())),
        "memory_mb": last,
        "mb_per_10000_requests": slopes[-1] if slopes else None,
        "tracebacks": log.count("Traceback"),
        "exit_code": code,
        "hung_threads": sum(thread.is_alive() for thread in threads),
    }


# The trainer --------------------------------------------------------------------------------------


def kill_trainers(kills: int, folder: Path) -> dict[str, Any]:
    """Kill a training run again and again; it goes on each time, and its agent loads."""
    from der_graph import load_agent

    rows, names = [], ("weak", "strong")
    for i in range(60):
        candidates = [
            {"model": name, "text": str(i if (i % 3 or name == "strong") else i + 1)}
            for name in names
        ]
        rows.append({"question": f"count to {i}", "answer": str(i), "candidates": candidates})
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    entries = [
        f"  - {{name: {name}, backend: recorded, data: {data}, cost: {cost}}}\n"
        for name, cost in zip(names, (1, 8), strict=True)
    ]
    pool = folder / "pool.yaml"
    pool.write_text("experts:\n" + "".join(entries), encoding="utf-8")
    out = folder / "trained"
    command = [sys.executable, "-m", "der_graph", "train", "--pool", str(pool), "--data", str(data)]
    command += ["--out", str(out), "--steps", "4000000"]
    killed, ended = 0, 0
    rng = random.Random(0)
    for _ in range(kills):
        resumed = ["--resume"] if (out / "checkpoint.pt").exists() else []
        with (folder / "train.log").open("ab") as log:
            process = subprocess.Popen([*command, *resumed], stdout=log, stderr=log)
            try:
                begun = time.monotonic()
                while not (out / "checkpoint.pt").exists() and time.monotonic() - begun < 300:
                    if process.poll() is not None:
                        break
                    time.sleep(1)
                process.wait(8 + rng.random() * 10)
                ended += 1
                if process.returncode:
                    break
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                killed += 1
    # None: no agent was written yet, so nothing is known.
    loads = bool(load_agent(out)) if (out / "config.json").exists() else None
    kept = (out / "checkpoint.pt").exists()
    return {"kills": killed, "ended": ended, "checkpoint": kept, "agent_loads": loads}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--kills", type=int, default=50, help="SIGKILLs of the server")
    parser.add_argument("--train-kills", type=int, default=50, help="SIGKILLs of the trainer")
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--out", type=Path, help="write what was found as JSON")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve_chaos(args.serve, args.cache)
        return
    with tempfile.TemporaryDirectory(prefix="der-soak-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        found: dict[str, Any] = {}
        if args.minutes > 0:
            found["server"] = soak(args.minutes, args.kills, args.callers, folder)
            print(json.dumps(found["server"], indent=1), flush=True)
        if args.train_kills:
            found["trainer"] = kill_trainers(args.train_kills, folder)
            print(json.dumps(found["trainer"], indent=1), flush=True)
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    lost = found.get("server", {}).get("lost", 0)
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
