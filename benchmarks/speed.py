"""How fast it is, and how small: the graph's own work, decisions, batches, streams, the server.

    python benchmarks/speed.py SUBJECT

| SUBJECT | what is measured | target |
|---|---|---|
| overhead | the graph's own time per step | p95 under 5 ms |
| decision | a decision with its encoding, on the CPU | under 30 ms |
| large-pool | a decision with many experts, beyond the encoder | under 10 ms with 1,000 |
| batching | eight questions in one batch of an expert | twice as fast |
| abatch | many questions at once through `ChatDER` | three times as fast |
| streaming | the first token, and a whole route | 100 ms later, 1.05 times the generations |
| serving | many requests at once over HTTP | three times the throughput |
| proxies | many requests through several servers, beside LiteLLM's proxy | three times the throughput |
| memory | what a server keeps of each request | under 1 MB in 10,000 |
| hedging | slow calls with another expert beside them | p99 halved for a tenth more calls |

Look at the load of the machine: on a busy one the 95th percentile is the machine's. `SUBJECT --help` has the
options; each subject says in its docstring what exactly is measured.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("LANGSMITH_TRACING", "false")  # the time of a tracer is not the graph's

from timing.batches import abatch, batching
from timing.decisions import decision, large_pool
from timing.graph import overhead
from timing.hedging import hedging
from timing.memory import memory
from timing.proxies import proxies
from timing.serving import serving
from timing.streams import OPEN_QUESTIONS, streaming


def main(argv: Sequence[str] | None = None) -> int:
    """Measure one subject; 1 if its target is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subjects = parser.add_subparsers(required=True, metavar="SUBJECT")

    def subject(
        run: Callable[[argparse.Namespace], int], **numbers: int
    ) -> argparse.ArgumentParser:
        name = run.__name__.replace("_", "-")
        added = subjects.add_parser(
            name, help=(run.__doc__ or "").splitlines()[0], description=run.__doc__
        )
        added.set_defaults(run=run)
        for option, default in numbers.items():
            added.add_argument(
                f"--{option}", type=int, default=default, help="default: %(default)s"
            )
        return added

    subject(overhead, routes=200, steps=4).add_argument("--json", action="store_true")
    subject(decision, repeats=200).add_argument("--agent", default="demo")
    many = subject(large_pool, repeats=200)
    many.add_argument("--experts", type=int, nargs="+", default=[10, 100, 1000])
    many.add_argument("--out", type=Path, help="write the figures as JSON")
    one = subject(batching, tokens=32, repeats=3)
    one.add_argument("--expert", default="smollm2")
    chat = subject(abatch, questions=32, repeats=3)
    chat.add_argument("--sync", action="store_true", help="measure batch instead of abatch")
    streams = subject(streaming, questions=len(OPEN_QUESTIONS), repeats=3)
    streams.add_argument("--json", action="store_true")
    served = subject(serving, questions=64)
    served.add_argument("--url", help="a server that runs already (key in DER_API_KEY)")
    beside = subject(proxies, processes=4, callers=64, seconds=10, rate=100, repeats=3)
    beside.add_argument("--peer", help="the program litellm of an environment of its own")
    subject(memory, warm=2_000, requests=8_000, lines=0)
    subject(hedging, routes=1000, at_once=20, slow=4)
    for each in (one, chat, streams, served):
        each.add_argument("--pool", default="demo", help="pool file (default: %(default)s)")
    for each in (chat, streams, served):
        each.add_argument("--agent", default="demo", help="agent folder (default: %(default)s)")
    args = parser.parse_args(argv)
    code: int = args.run(args)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
