"""The demo: real questions routed live over the shipped pool, then DER beside everyone else.

Six questions of different kinds show the route as it happens. The closing table is computed live on held-out
questions, as many as fit a time budget, or on all of them; nothing is read from a stored result.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from der_graph.data import Example, load_examples
from der_graph.display import Display, shortened, table
from der_graph.graph import create_der_graph
from der_graph.nodes.decision import RoutingAgent
from der_graph.nodes.rules import RouteRules
from der_graph.policies.agent import DERAgent, load_agent
from der_graph.policies.answers import AnswerSource
from der_graph.policies.baselines import Random, RunAll, Single
from der_graph.policies.evaluation.statistics import bootstrap_interval
from der_graph.policies.quality import get_metric
from der_graph.policies.training.mdp import Episode, run_routes
from der_graph.pool.pool import Pool, load_pool, preload
from der_graph.state import answers_of, good_answers

# Questions evaluated at once: batches for the experts, and the grain of the time budget.
_CHUNK = 12


def run_demo(*, full: bool = False, seconds: float = 40.0) -> None:
    """Run the demo.

    Args:
        full: Evaluate all held-out questions, whatever the time.
        seconds: Time budget of the closing table otherwise.
    """
    show = Display()
    started = time.perf_counter()
    show.line(
        "Loading the encoder and four experts (the first time, their weights are converted) ..."
    )
    pool, agent = load_pool("demo"), load_agent("demo")
    preload(agent, pool)
    show.line(f"ready after {time.perf_counter() - started:.1f} s\n")
    show_routes(pool, agent, load_examples(demo_file("showcase.jsonl")), show)
    closing_table(pool, agent, show, budget=None if full else seconds)
    memory = peak_memory_gb()
    shown = "" if memory is None else f", peak memory {memory:.1f} GB"
    show.line(f"\n{time.perf_counter() - started:.0f} s in all{shown}.")


def peak_memory_gb() -> float | None:
    """The most memory that this process has held, in gigabytes; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)  # bytes there, kilobytes elsewhere


def demo_file(name: str) -> Path:
    """A file of questions that ships with the demo."""
    return Path(str(files("der_graph") / "demo" / "questions" / name))


def show_routes(pool: Pool, agent: DERAgent, examples: Sequence[Example], show: Display) -> None:
    """Route some questions through the graph, printing every step as it happens."""
    der = create_der_graph(pool, agent=agent).compile(name="der")
    metric = get_metric("match")
    for number, example in enumerate(examples, 1):
        show.line(show.styled(f"{number}. {shortened(example.question, 200)}", "bold"))
        final: Any = {}
        inputs = {"messages": [("user", example.question)]}
        source: Any = der.stream(inputs, stream_mode=["custom", "values"])
        with closing(source) as parts:
            for mode, part in parts:
                if mode == "custom":
                    show.event(part)
                else:
                    final = part
        # A failed call leaves the answer before it standing, as in the graph's answer node.
        last = good_answers(answers_of(final["route"]))[-1]
        good = metric.score([last], [example])[0] >= 0.5
        wrong = f"wrong, it is {example.reference}"
        mark = show.styled("right", "green") if good else show.styled(wrong, "red")
        answer = show.styled(shortened(final["answer"]), "bold")
        show.line(f"   => {answer}   ({mark}; {show.cost(final['cost'])})\n")


def closing_table(pool: Pool, agent: DERAgent, show: Display, *, budget: float | None) -> None:
    """Compare DER with every single expert, run-all and random, live, on held-out questions.

    Args:
        pool: The pool.
        agent: The trained agent.
        show: Where to print.
        budget: Seconds; all questions if None.
    """
    examples = interleaved(load_examples(demo_file("heldout.jsonl")))
    experts = list(pool)
    rules = pool.rules
    everyone = replace(rules, max_steps=len(experts))
    methods: dict[str, tuple[RoutingAgent, RouteRules]] = {"DER": (agent, rules)}
    for expert in experts:
        methods[expert.name] = (Single(rules.names, rules.costs, expert.name), rules)
    # In the pool's order, so that the calculator gets what the translator wrote.
    run_all = RunAll(rules.names, rules.costs, order=rules.names)
    methods["run-all, vote"] = (run_all, everyone)
    if budget is None:  # its odd routes need answers that no other method asks for
        methods["random"] = (Random(rules.names, rules.costs, seed=0), rules)
    for baseline, _ in methods.values():
        baseline.check_pool(rules.names)

    source = AnswerSource(experts, examples, get_metric("match"), ktp=pool.settings.ktp)
    found: dict[str, list[Episode]] = {name: [] for name in methods}
    started = time.perf_counter()
    done = 0
    with tqdm(
        total=len(examples), desc="held-out questions", unit="q", file=sys.stderr, leave=False
    ) as bar:
        while done < len(examples):
            used = time.perf_counter() - started
            # Stop where another chunk would most likely run over.
            if budget is not None and done and used * (done + _CHUNK) / done > budget:
                break
            chunk = range(done, min(done + _CHUNK, len(examples)))
            for name, (baseline, allowed) in methods.items():
                found[name] += run_routes(baseline, source, allowed, examples=chunk)
            done = chunk.stop
            bar.update(len(chunk))
    seconds = time.perf_counter() - started
    show.line(
        show.styled(
            f"Live on {done} of {len(examples)} held-out questions of all kinds ({seconds:.0f} s):",
            "bold",
        )
    )
    total = sum(rules.costs)
    rows = [_row(name, episodes, total, show) for name, episodes in found.items()]
    header = ["", "quality", "95 % interval", "parameters run", "of run-all", "calls"]
    for line in table(header, rows):
        show.line("  " + line)
    _by_kind(found["DER"], examples[:done], rules.names, show)
    if done < len(examples):
        show.line(f"  All {len(examples)}: make demo-full")


def interleaved(examples: Sequence[Example]) -> list[Example]:
    """Questions in turn from every kind, so that any first part has all kinds in proportion."""
    by_task: dict[str, list[Example]] = {}
    for example in examples:
        by_task.setdefault(example.task, []).append(example)
    ranked = [
        ((position + 0.5) / len(rows), task, row)
        for task, rows in by_task.items()
        for position, row in enumerate(rows)
    ]
    return [row for _, _, row in sorted(ranked, key=lambda item: item[:2])]


def _row(name: str, episodes: Sequence[Episode], total: float, show: Display) -> list[str]:
    quality = [episode.quality for episode in episodes]
    interval = bootstrap_interval(quality, seed=0)
    cost = float(np.mean([episode.cost for episode in episodes]))
    calls = float(np.mean([episode.calls for episode in episodes]))
    return [
        name,
        f"{np.mean(quality):.2f}",
        f"{interval.low:.2f} to {interval.high:.2f}",
        show.cost(cost),
        f"{cost / total:.0%}",
        f"{calls:.1f}",
    ]


def _by_kind(
    episodes: Sequence[Episode], examples: Sequence[Example], names: Sequence[str], show: Display
) -> None:
    show.line("  DER by kind:")
    kinds = sorted({example.task for example in examples})
    for kind in kinds:
        mine = [e for e, example in zip(episodes, examples, strict=True) if example.task == kind]
        routes: dict[str, int] = {}
        for episode in mine:
            route = " -> ".join(names[i] for i in episode.experts)
            routes[route] = routes.get(route, 0) + 1
        usual = max(routes, key=routes.__getitem__)
        quality = float(np.mean([episode.quality for episode in mine]))
        show.line(
            f"    {kind:<16} {quality:.2f} on {len(mine):>2}, mostly {usual} ({routes[usual]})"
        )
