"""A tool-use benchmark: a LangChain agent keeps the stock of four shops, and every end is checked.

    python benchmarks/agent_tools.py [--seeds 5] [--tasks 100] [--out FILE]

Three kinds of tasks: count (one lookup), refund (find an order, pay it back) and restock (look into every
shop, move what is missing), at shares of 0.5, 0.3 and 0.2. The tools change a store; a task is done if the
store is as it should be in the end and the answer names the number asked for.

The experts are programs behind LangChain's chat model interface: they read the conversation and call tools as
a model would. At every step a program does the right thing with the probability of its skill (`SKILLS`);
otherwise it calls a tool with what is not there, and the tool fails, or goes wrong in silence. Skills, shares
and prices per call (1, 4 and 20, about as the small, middle and large models of one provider) are
assumptions, stated here; what is measured is what routing makes of them. Who should open a run is learnt anew
for every seed, from other tasks that every expert ran (`der train --agent-task`).

The last line is the time that the middleware adds to a model call: wall clock, and CPU time, which does not
depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from langchain.agents import create_agent
from langchain.agents.middleware import ToolRetryMiddleware
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool

from der_graph.middleware import DERMiddleware, outcome_of
from der_graph.nodes.decision import RoutingAgent
from der_graph.nodes.expert import Expert
from der_graph.policies.baselines import Random, Single
from der_graph.policies.observation import SentenceEncoder, TextEncoder
from der_graph.policies.training.bandit import AgentOutcome, train_bandit

sys.path.append(str(Path(__file__).resolve().parent.parent / "examples"))  # which is no package
from agent_middleware import Program

PRICES = {"small": 1.0, "middle": 4.0, "large": 20.0}
SKILLS = {
    "small": {"count": 0.98, "refund": 0.80, "restock": 0.50},
    "middle": {"count": 0.985, "refund": 0.95, "restock": 0.85},
    "large": {"count": 0.99, "refund": 0.98, "restock": 0.97},
}
LOUD = 0.6
"""Share of the mistakes that a tool refuses."""
COST_WEIGHT = 0.1
"""A success is worth ten times what a run of every expert costs."""
SHARES = {"count": 0.5, "refund": 0.3, "restock": 0.2}
SHOPS = ("Ulm", "Bern", "Graz", "Linz")  # codespell:ignore
ITEMS = ("apples", "chairs", "lamps", "mugs", "ropes", "tiles")
NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn")
WORDINGS = {
    "count": ("How many {item} does {shop} have?", "Tell me the number of {item} in {shop}."),
    "refund": ("{name} wants the money back for the last order.", "Pay back {name}'s last order, please."),
    "restock": (
        "See to it that every shop has at least {least} {item}; the depot has plenty.",
        "Fill up all shops to {least} {item} or more, from the depot.",
    ),
}  # fmt: skip


@dataclass
class Store:
    """What the tools read and change."""

    stock: dict[tuple[str, str], int]
    orders: dict[str, tuple[str, int]]
    refunds: list[tuple[str, int]] = field(default_factory=list)


class Task(NamedTuple):
    """One task: its words, and what they are made of."""

    id: str
    kind: str
    words: str
    shop: str
    item: str
    name: str
    least: int
    store_seed: int

    def store(self) -> Store:
        """The store before anything was done."""
        rng = np.random.default_rng(self.store_seed)
        stock = {(shop, item): int(rng.integers(0, 20)) for shop in SHOPS for item in ITEMS}
        orders = {
            name: (f"R{i}{rng.integers(100, 999)}", int(rng.integers(5, 90)))
            for i, name in enumerate(NAMES)
        }
        return Store(stock, orders)

    def done(self, store: Store, answer: str) -> bool:
        """Is the end as it should be?"""
        start = self.store()
        if self.kind == "count":
            return store == start and str(start.stock[self.shop, self.item]) in re.findall(
                r"\d+", answer
            )
        if self.kind == "refund":
            return store.stock == start.stock and store.refunds == [start.orders[self.name]]
        wanted = {
            (shop, item): max(count, self.least) if item == self.item else count
            for (shop, item), count in start.stock.items()
        }
        return store.stock == wanted and not store.refunds


def make_tasks(count: int, seed: int) -> list[Task]:
    """Tasks at the shares of their kinds."""
    rng = np.random.default_rng(seed)
    tasks = []
    for i in range(count):
        kind = str(rng.choice(list(SHARES), p=list(SHARES.values())))
        shop, item, name = (str(rng.choice(of)) for of in (SHOPS, ITEMS, NAMES))
        least = int(rng.integers(5, 15))
        words = str(rng.choice(WORDINGS[kind])).format(shop=shop, item=item, name=name, least=least)
        tasks.append(
            Task(f"{seed}/{i}", kind, words, shop, item, name, least, int(rng.integers(2**31)))
        )
    return tasks


def tools_of(store: Store) -> list[Any]:
    """The tools over one store."""

    @tool
    def look(shop: str, item: str) -> str:
        """How many of an item a shop has."""
        if (shop, item) not in store.stock:
            raise ValueError(f"no {item} in {shop}")
        return str(store.stock[shop, item])

    @tool
    def find_order(name: str) -> str:
        """A customer's last order: its number and amount."""
        if name not in store.orders:
            raise ValueError(f"no customer {name}")
        return json.dumps(store.orders[name])

    @tool
    def refund(order: str, amount: int) -> str:
        """Pay an order back."""
        if order not in {number for number, _ in store.orders.values()}:
            raise ValueError(f"no order {order}")
        store.refunds.append((order, amount))
        return "paid"

    @tool
    def move(shop: str, item: str, count: int) -> str:
        """Bring items from the depot to a shop."""
        if (shop, item) not in store.stock:
            raise ValueError(f"no {item} in {shop}")
        store.stock[shop, item] += count
        return "moved"

    return [look, find_order, refund, move]


Step = tuple[str, dict[str, Any]] | str
"""A tool and its arguments, or the final words."""


def right_step(task: Task, done: Sequence[tuple[str, dict[str, Any], str]]) -> Step:
    """What is to be done next, after these calls that worked."""
    if task.kind == "count":
        return (
            f"There are {done[-1][2]}."
            if done
            else ("look", {"shop": task.shop, "item": task.item})
        )
    if task.kind == "refund":
        if not done:
            return "find_order", {"name": task.name}
        if len(done) == 1:
            order, amount = json.loads(done[0][2])
            return "refund", {"order": order, "amount": amount}
        return "It is paid back."
    for shop in SHOPS:
        mine = [call for call in done if call[1]["shop"] == shop]
        if not mine:
            return "look", {"shop": shop, "item": task.item}
        missing = task.least - int(mine[0][2])
        if missing > 0 and len(mine) == 1:
            return "move", {"shop": shop, "item": task.item, "count": missing}
    return "Every shop has enough."


def wrong_step(step: Step, *, loud: bool) -> Step:
    """A mistake in place of a step: one that a tool refuses, or one that nobody notices."""
    if isinstance(step, str):
        return "There are 99."
    name, args = step
    if loud:
        return name, {**args, **{key: "nowhere" for key in list(args)[:1]}}
    numbers = {key: value + 1 for key, value in args.items() if isinstance(value, int)}
    return (name, {**args, **numbers}) if numbers else "It is done: 99."


class Clerk(Program):
    """An expert that is a program."""

    expert: str
    task: Task
    seed: int

    def reply(self, messages: Sequence[BaseMessage]) -> AIMessage:
        """The next step of the task, right or wrong."""
        calls = {c["id"]: c for m in messages if isinstance(m, AIMessage) for c in m.tool_calls}
        results = [m for m in messages if isinstance(m, ToolMessage)]
        done = [
            (calls[m.tool_call_id]["name"], calls[m.tool_call_id]["args"], m.text)
            for m in results
            if m.status != "error"
        ]
        step = right_step(self.task, done)
        # The same expert does the same with the same conversation, whoever else was asked.
        key = f"{self.seed}/{self.expert}/{self.task.id}/{len(results)}"
        luck = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") / 2**64
        skill = SKILLS[self.expert][self.task.kind]
        if luck >= skill:
            step = wrong_step(step, loud=(luck - skill) / (1 - skill) < LOUD)
        if isinstance(step, str):
            return AIMessage(step)
        call = {"name": step[0], "args": step[1], "id": f"c{len(results)}"}
        return AIMessage("", tool_calls=[call])


class Outcome(NamedTuple):
    """What became of one run."""

    success: bool
    cost: float
    calls: int
    row: dict[str, Any]


def programs(task: Task, seed: int) -> list[Expert]:
    """The pool for one task."""
    return [
        Expert(name, Clerk(expert=name, task=task, seed=seed), cost=cost)
        for name, cost in PRICES.items()
    ]


def run_task(task: Task, chooser: RoutingAgent, seed: int, **settings: Any) -> Outcome:
    """Let an agent do a task."""
    store = task.store()
    der = DERMiddleware(programs(task, seed), agent=chooser, **settings)
    retry = ToolRetryMiddleware(max_retries=0)
    agent: Any = create_agent(der.model, tools_of(store), middleware=[retry, der])
    result = agent.invoke({"messages": [HumanMessage(task.words)]}, {"recursion_limit": 100})
    success = task.done(store, result["messages"][-1].text)
    calls = sum(step["answer"] is not None for step in result["der_route"])
    return Outcome(success, result["der_cost"], calls, outcome_of(result, float(success)))


def trained(seed: int, count: int, encoder: TextEncoder) -> RoutingAgent:
    """Who should open a run, learnt from tasks that every expert ran."""
    pool = programs(make_tasks(1, 0)[0], seed)
    rows = []
    for task in make_tasks(count, seed=1000 + seed):
        for name in PRICES:
            row = run_task(task, single(name), seed, tool_failed=never).row
            rows.append(AgentOutcome(**{**row, "probability": 1.0}))
    return train_bandit(pool, rows, encoder=encoder, cost_weight=COST_WEIGHT)


def single(name: str) -> Single:
    return Single(list(PRICES), list(PRICES.values()), name)


def never(_: ToolMessage) -> bool:
    """No tool's failure brings another expert in."""
    return False


Method = tuple[str, RoutingAgent, dict[str, Any]]


def methods(seed: int, count: int, encoder: TextEncoder) -> list[Method]:
    """What is compared: each expert alone, chance, and the middleware with and without its parts."""
    learnt = trained(seed, count, encoder)
    alone = [(f"{name} alone", single(name), {"tool_failed": never}) for name in PRICES]
    return [
        *alone,
        ("random", Random(list(PRICES), list(PRICES.values()), seed), {"stickiness": 0.0}),
        ("small, recovered by dearer ones", single("small"), {}),
        ("learnt opener, no recovery", learnt, {"tool_failed": never}),
        ("DERMiddleware", learnt, {}),
    ]


def interval(values: Sequence[float]) -> str:
    """Mean over seeds with a 95 % interval of Student's t."""
    t = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}.get(len(values), 2.262)
    half = t * statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.3f} ± {half:.3f}"


def measure(seeds: int, count: int, encoder: TextEncoder) -> dict[str, dict[str, list[float]]]:
    """Success, cost and calls per task, by method, one number a seed."""
    table: dict[str, dict[str, list[float]]] = {}
    for seed in range(seeds):
        for name, chooser, settings in methods(seed, count, encoder):
            runs = [run_task(task, chooser, seed, **settings) for task in make_tasks(count, seed)]
            row = table.setdefault(name, {"success": [], "cost": [], "calls": []})
            for key in row:
                row[key].append(float(np.mean([getattr(run, key) for run in runs])))
    return table


def overhead(encoder: TextEncoder, repeats: int = 60) -> dict[str, float]:
    """Milliseconds that the middleware adds to a model call: medians over runs of new tasks, in pairs."""
    chooser = trained(0, 20, encoder)
    tasks = [t for t in make_tasks(10 * repeats, seed=77) if t.kind == "count"][:repeats]

    retry = ToolRetryMiddleware(max_retries=0)

    def timed(task: Task, *, routed: bool) -> tuple[float, float]:
        tools, der = tools_of(task.store()), DERMiddleware(programs(task, 0), agent=chooser)
        agent: Any = create_agent(der.model, tools, middleware=[retry, der] if routed else [retry])
        wall, cpu = time.perf_counter(), time.process_time()
        result = agent.invoke({"messages": [HumanMessage(task.words)]})
        calls = sum(isinstance(message, AIMessage) for message in result["messages"])
        return (
            (time.perf_counter() - wall) * 1000 / calls,
            (time.process_time() - cpu) * 1000 / calls,
        )

    for routed in (False, True):
        timed(tasks[0], routed=routed)  # warm
    pairs = [(timed(task, routed=False), timed(task, routed=True)) for task in tasks[1:]]
    return {
        "plain, wall": statistics.median(plain[0] for plain, _ in pairs),
        "added, wall": statistics.median(der[0] - plain[0] for plain, der in pairs),
        "plain, CPU": statistics.median(plain[1] for plain, _ in pairs),
        "added, CPU": statistics.median(der[1] - plain[1] for plain, der in pairs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=100, help="per seed, to train and to test on")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    args = parser.parse_args()
    encoder = SentenceEncoder()
    table = measure(args.seeds, args.tasks, encoder)
    print("| who acts | success | cost a task | model calls |\n|---|---|---|---|")
    for name, row in table.items():
        print("|", " | ".join([name, *(interval(values) for values in row.values())]), "|")
    times = overhead(encoder)
    print("\n" + ", ".join(f"{name} {value:.2f} ms" for name, value in times.items()))
    if args.out:
        args.out.write_text(json.dumps({"methods": table, "milliseconds": times}, indent=2) + "\n")


if __name__ == "__main__":
    main()
