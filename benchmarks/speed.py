"""How fast it is: the graph's own work, decisions, batches, streams, the server.

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
| hedging | slow calls with another expert beside them | p99 halved for a tenth more calls |

Look at the load of the machine: on a busy one the 95th percentile is the machine's. `SUBJECT --help` has the
options; each subject says in its docstring what exactly is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("LANGSMITH_TRACING", "false")  # the time of a tracer is not the graph's

import numpy as np
import torch
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Send

from der_graph import ChatDER, DERContext, Expert, create_der_graph, load_agent, load_pool
from der_graph.data import load_examples
from der_graph.demo.showcase import demo_file, interleaved
from der_graph.nodes.decision import Choice
from der_graph.nodes.huggingface import HuggingFaceChat
from der_graph.nodes.ktp import TEMPLATES
from der_graph.policies.agent import DERAgent
from der_graph.policies.agent.network import Shape, make_network
from der_graph.policies.observation import ObservationConfig, Observer
from der_graph.policies.observation.encoder import Vectors
from der_graph.state import Answer, Situation


def seconds_of(work: Callable[[], Any]) -> tuple[float, Any]:
    """How long something took, and what it gave."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


class Spread(NamedTuple):
    """Median, 95th percentile and worst of some numbers."""

    median: float
    p95: float
    worst: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of any numbers; zeros if there are none."""
        if not len(values):
            return cls(0.0, 0.0, 0.0, 0)
        median, p95, worst = np.round(
            [np.median(values), np.quantile(values, 0.95), max(values)], 3
        )
        return cls(float(median), float(p95), float(worst), len(values))


def show(rows: dict[str, Spread], unit: str = "ms") -> None:
    """Print a table of spreads."""
    print(f"{unit:<48}{'median':>9}{'p95':>9}{'worst':>9}{'n':>6}")
    for name, row in rows.items():
        print(f"{name:<48}{row.median:>9.3f}{row.p95:>9.3f}{row.worst:>9.3f}{row.n:>6}")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    print(f"load of the machine: {load:.1f} on {os.cpu_count()} cores")


def verdict(target: str, met: bool) -> int:
    """Print whether a target is met; 1 if not."""
    print(f"target: {target}: {'met' if met else 'missed'}")
    return 0 if met else 1


def an_answer(expert: str, text: str, value: str | None = None) -> Answer:
    return Answer(
        expert=expert, text=text, value=value, cost=1.0, input_tokens=20, output_tokens=30, seconds=0.1,
        logprob=None, error=None,
    )  # fmt: skip


# Overhead -----------------------------------------------------------------------------------------

LONG_ANSWER = (
    "First there are three boxes of four apples, which makes twelve. The answer is 12. " * 5
)
LONG_QUESTION = "Ann has three boxes of four apples and eats one. How many apples are left? " * 2


class InTurn:
    """Asks the experts in the pool's order, as many as it is told to."""

    def __init__(self, steps: int) -> None:
        self.steps, self.size = steps, 0

    def check_pool(self, names: Sequence[str]) -> None:
        """Any pool will do."""
        self.size = len(names)

    def decide(self, situations: Sequence[Situation]) -> list[Choice]:
        """The next expert, or END after the last."""
        done = [len(situation.answers) for situation in situations]
        chosen = [step if step < self.steps else self.size for step in done]
        return [Choice(i, [float(k == i) for k in range(self.size + 1)]) for i in chosen]


def instant_expert(name: str) -> Expert:
    """An expert that answers without thinking."""

    async def later(_: Any) -> AIMessage:
        return AIMessage(LONG_ANSWER)

    return Expert(name, RunnableLambda(lambda _: AIMessage(LONG_ANSWER), later), cost=1.0)


class BareState(MessagesState):
    """State of the bare loop."""

    route: list[str]


def bare_loop(experts: Sequence[Expert], steps: int, asynchronous: bool) -> Any:
    """The least that LangGraph needs for the same: a hub, an edge that sends, and nodes."""

    def hub(state: BareState) -> None:
        """Does nothing."""

    async def later_hub(state: BareState) -> None:
        """Does nothing."""

    def edge(state: BareState) -> Send:
        route = state.get("route") or []
        name = experts[len(route)].name if len(route) < steps else "answer"
        return Send(name, {"messages": state["messages"], "route": route})

    async def later_edge(state: BareState) -> Send:
        return edge(state)

    def answer(task: BareState) -> dict[str, Any]:
        return {"messages": [AIMessage(task["route"][-1])], "route": [*task["route"], "END"]}

    async def later_answer(task: BareState) -> dict[str, Any]:
        return answer(task)

    def node_of(expert: Expert) -> Any:
        def node(task: BareState) -> dict[str, Any]:
            said = expert.model.invoke(task["messages"])
            return {"route": [*task["route"], said.text]}

        async def later_node(task: BareState) -> dict[str, Any]:
            said = await expert.model.ainvoke(task["messages"])
            return {"route": [*task["route"], said.text]}

        return later_node if asynchronous else node

    graph: Any = StateGraph(BareState)
    graph.add_node("hub", later_hub if asynchronous else hub)
    graph.add_edge(START, "hub")
    for expert in experts:
        step: Any = node_of(expert)
        graph.add_node(expert.name, step)
        graph.add_edge(expert.name, "hub")
    graph.add_node("answer", later_answer if asynchronous else answer)
    names = [*(expert.name for expert in experts), "answer"]
    graph.add_conditional_edges("hub", later_edge if asynchronous else edge, names)
    return graph


def time_per_step(
    routes: int, steps: int, *, asynchronous: bool, saved: bool, bare: bool = False
) -> list[float]:
    """Milliseconds per step of each route, after a few to warm up."""
    experts = [instant_expert(f"expert-{i}") for i in range(6)]
    builder = (
        bare_loop(experts, steps, asynchronous)
        if bare
        else create_der_graph(experts, agent=InTurn(steps), max_steps=steps)
    )
    graph = builder.compile(checkpointer=InMemorySaver() if saved else None)
    times: list[float] = []

    async def run() -> None:
        for i in range(-5, routes):
            given: Any = {"messages": [("user", f"{LONG_QUESTION}{i}")]}
            config: RunnableConfig = {"configurable": {"thread_id": str(i)}}
            start = time.perf_counter()
            if asynchronous:
                result = await graph.ainvoke(given, config)
            else:
                result = graph.invoke(given, config)
            if i >= 0:
                times.append((time.perf_counter() - start) * 1000 / steps)
            assert len(result["route"]) == steps + 1

    gc.collect()
    asyncio.run(run())
    return times


def overhead(args: argparse.Namespace) -> int:
    """The graph's own time per step: everything but the experts' generation and the agent's network.

    Experts answer at once and the agent follows a script, so what is measured is LangGraph's supersteps, the
    rules, the Knowledge Transfer Prompt, the route log and the checkpoints. A step is one expert with the
    decision before it; a route is timed as a whole, END and the answer node are shared among its steps. The
    bare loop is the same route in plain LangGraph: what is above it is this project's.
    """
    rows, cpu = {}, {}
    for asynchronous in (False, True):
        for saved in (False, True):
            for bare in (False, True):
                saver = "InMemorySaver" if saved else "no checkpointer"
                name = f"{'ainvoke' if asynchronous else 'invoke'}, {saver}{', bare loop' * bare}"
                start = time.process_time()
                times = time_per_step(
                    args.routes, args.steps, asynchronous=asynchronous, saved=saved, bare=bare
                )
                cpu[name] = (time.process_time() - start) * 1000 / (len(times) * args.steps)
                rows[name] = Spread.of(times)
    if args.json:
        print(json.dumps({name: {**row._asdict(), "cpu": cpu[name]} for name, row in rows.items()}))
        return 0
    show(rows, f"ms per step, {args.routes} routes of {args.steps} experts")
    print("CPU time per step, ms:", ", ".join(f"{name} {ms:.2f}" for name, ms in cpu.items()))
    ratios = {n: cpu[n] / cpu[f"{n}, bare loop"] for n in cpu if "bare" not in n}
    print("times the bare loop (CPU):", ", ".join(f"{n} {r:.2f}" for n, r in ratios.items()))
    return verdict(
        "p95 under 5 ms", all(row.p95 < 5.0 for name, row in rows.items() if "bare" not in name)
    )


# Decisions ----------------------------------------------------------------------------------------


def decision(args: argparse.Namespace) -> int:
    """How long the agent takes to decide, encoding included.

    The first decision on a question encodes the question; a later one encodes the last answer. Every text is
    new, so nothing comes from the encoder's memory.
    """
    agent = load_agent(args.agent)
    everyone = [True] * len(agent.names)
    questions = [e.question for e in load_examples(demo_file("train.jsonl"), limit=args.repeats)]
    agent.decide([Situation("warm up", mask=[*everyone, False], max_steps=3)])
    first = [Situation(q, mask=[*everyone, False], max_steps=3) for q in questions]
    said = [[an_answer(agent.names[0], f"It may be {i} of them.")] for i in range(len(questions))]
    later = [
        Situation(q, a, [*everyone, True], max_steps=3)
        for q, a in zip(questions, said, strict=True)
    ]
    rows = {}
    for name, situations in (
        ("first decision (encodes the question)", first),
        ("later decision (encodes the last answer)", later),
        ("nothing new to encode", later),
    ):
        times = [1000 * seconds_of(lambda s=s: agent.decide([s]))[0] for s in situations]  # type: ignore[misc]
        rows[name] = Spread.of(times)
    show(rows, f"ms, {torch.get_num_threads()} threads")
    return verdict("median under 30 ms", all(row.median < 30 for row in rows.values()))


class KnownTexts:
    """Stands for an encoder that has seen every text: a random direction for each."""

    name = "known"

    def encode(self, texts: Sequence[str]) -> Vectors:
        """(texts, 384)."""
        rows = np.random.default_rng(len(texts)).normal(size=(len(texts), 384))
        unit: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        return unit


def random_agent(experts: int, seed: int = 0) -> DERAgent:
    """An agent for a large pool, with 1,500 probe questions and random weights."""
    rng = np.random.default_rng(seed)
    skill = rng.uniform(0.1, 0.9, experts)
    observer = Observer.fit(
        ObservationConfig(question_dims=3, answer_dims=0),
        [f"expert-{i}" for i in range(experts)],
        rng.lognormal(2.0, 1.0, experts).tolist(),
        KnownTexts(),
        questions=[f"question {i}" for i in range(1500)],
        answers=[],
        qualities=(rng.random((1500, experts)) < skill).astype(np.float32),
        lengths=rng.lognormal(4.0, 1.0, (1500, experts)).astype(np.float32),
    )
    shape = Shape(experts, observer.context_size, observer.expert_size, 64)
    return DERAgent(observer, make_network(shape), cost_weight=0.2, cost_weight_range=(0.02, 2.0))


def large_pool(args: argparse.Namespace) -> int:
    """How long a decision takes with many experts, beyond the encoder: texts are known already.

    The agent knows experts by profile; its weights are random, because the time does not depend on them.
    Routes have up to five answers.
    """
    rng = np.random.default_rng(1)
    rows = {}
    for experts in args.experts:
        agent, times = random_agent(experts), []
        for i in range(args.repeats + 10):
            asked = rng.choice(experts, int(rng.integers(0, 6)), replace=False).tolist()
            values = [str(rng.integers(0, 3)) for _ in asked]
            said = [
                an_answer(agent.names[k], f"It is {v}.", v)
                for k, v in zip(asked, values, strict=True)
            ]
            mask = [k not in asked for k in range(experts)] + [bool(said)]
            situation = Situation(f"new {i % 50}", said, mask, max_steps=6)
            agent.observer.observe([situation], [0.2])  # the question is looked up once per route
            times.append(1000 * seconds_of(lambda s=situation, a=agent: a.decide([s]))[0])  # type: ignore[misc]
        rows[experts] = Spread.of(times[10:])
    if args.out:
        found = [
            {"experts": n, "repeats": args.repeats, "p50_ms": row.median, "p95_ms": row.p95}
            for n, row in rows.items()
        ]
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    show({f"{n} experts": row for n, row in rows.items()}, f"ms, {torch.get_num_threads()} threads")
    return 0


# Batches ------------------------------------------------------------------------------------------

SHORT_QUESTIONS = [
    "What is the capital of France?",
    "Name three colours of the rainbow.",
    "Why is the sky blue?",
    "Write one sentence about the sea.",
    "How many days has a week?",
    "What do bees make, and why do they make it?",
    "Who was Marie Curie?",
    "Tom has 5 apples and buys 3 more. How many apples has he now?",
]


def batching(args: argparse.Namespace) -> int:
    """Eight questions one by one against one batch of eight, on one local expert; the best time of each.

    Also what the log-probabilities cost: a batch with them against one without.
    """
    model = load_pool(args.pool)[args.expert].model
    if not isinstance(model, HuggingFaceChat):
        raise SystemExit(f"{args.expert} is no local model")
    settings: dict[str, Any] = {"max_new_tokens": args.tokens}
    quiet = model.model_copy(update={"logprobs": False})
    quiet._answering = None

    def best_of(work: Callable[[], Any]) -> float:
        return min(seconds_of(work)[0] for _ in range(args.repeats))  # the others were disturbed

    def one_by_one() -> list[Any]:
        return [model.invoke(question, **settings).content for question in SHORT_QUESTIONS]

    def in_batch(used: HuggingFaceChat) -> list[Any]:
        return [message.content for message in used.batch(list(SHORT_QUESTIONS), **settings)]

    same = sum(a == b for a, b in zip(one_by_one(), in_batch(model), strict=True))  # warms up
    single, together, without = (
        best_of(work) for work in (one_by_one, lambda: in_batch(model), lambda: in_batch(quiet))
    )
    print(f"same answers: {same} of {len(SHORT_QUESTIONS)}")
    faster = f"{single / together:.1f} times as fast"
    print(f"one by one: {single:.2f} s   one batch: {together:.2f} s   {faster}")
    print(f"without log-probabilities: {without:.2f} s   they cost {together / without - 1:+.1%}")
    return verdict("twice as fast", single >= 2 * together)


def demo_questions(count: int) -> list[str]:
    """Held-out questions of the demo, kinds mixed."""
    examples = interleaved(load_examples(demo_file("heldout.jsonl")))
    return [example.question for example in examples[:count]]


def abatch(args: argparse.Namespace) -> int:
    """Many questions at once against the same ones one by one, through `ChatDER`; medians.

    Also on how many questions the answers agree: batches pad, which may change a rounding.
    """
    questions: list[Any] = demo_questions(args.questions)
    der = ChatDER(pool=args.pool, agent=args.agent)
    der.pool.preload()
    der.invoke("What is 3 + 4?")  # warms up

    def together() -> list[Any]:
        return der.batch(questions) if args.sync else asyncio.run(der.abatch(questions))

    alone, shared = [], []
    for _ in range(args.repeats):  # in turns, so that a busy machine disturbs both
        alone.append(seconds_of(lambda: [der.invoke(question) for question in questions]))
        shared.append(seconds_of(together))
    singles, many = alone[-1][1], shared[-1][1]
    same = sum(a.content == b.content for a, b in zip(singles, many, strict=True))
    one_by_one, at_once = (statistics.median(t for t, _ in times) for times in (alone, shared))
    print(f"{len(questions)} questions, median of {args.repeats}; same answers: {same}")
    faster = f"{one_by_one / at_once:.1f} times as fast"
    print(f"one by one: {one_by_one:.2f} s   at once: {at_once:.2f} s   {faster}")
    return verdict("three times as fast", one_by_one >= 3 * at_once)


# Streams ------------------------------------------------------------------------------------------

LONG_S = 0.5
OPEN_QUESTIONS = [
    "Explain in a few sentences why the sky is blue.",
    "Tell me something interesting about whales.",
    "What is the capital of France?",
    "Give me three tips for learning to play the piano.",
    "What is 37 * 48?",
    "Describe a walk through a forest in autumn.",
    "What is the plural of mouse?",
    "A shop sells 12 boxes of 24 pencils and keeps 30 pencils. How many pencils are sold?",
    "Why do people yawn?",
    "Write a short story about a lighthouse keeper.",
    "How do I boil an egg?",
    "What is the difference between a lake and a sea?",
]


def first_token(parts: Iterable[Any]) -> float | None:
    """Seconds until the first piece of text; the rest is left unread, which stops the model."""
    start = time.perf_counter()
    stream = iter(parts)
    try:
        for part in stream:
            message = part[0] if isinstance(part, tuple) else part
            if isinstance(message, AIMessageChunk) and message.text:
                return time.perf_counter() - start
        return None
    finally:
        stream.close()  # type: ignore[attr-defined]


def streaming(args: argparse.Namespace) -> int:
    """What streaming through the graph costs: time to the first token, and the whole route.

    For each question the route is run once, to know it and to load the models. Then, in turn, `repeats`
    times: the expert that speaks first is asked by `expert.model.stream` with the very prompt that the graph
    gives it, until its first token; the graph streams `messages` until its first token, with every expert's
    tokens and with those of the final answer alone; the graph runs the whole route, whose time is compared
    with the sum of its experts' own calls. Targets, for medians: the first token comes at most 100 ms later
    than the expert's own, and a route takes at most 1.05 times its generations where those take over 0.5 s.
    """
    pool = load_pool(args.pool)
    pool.preload()
    der = create_der_graph(pool, agent=load_agent(args.agent)).compile()
    template = pool.settings.ktp or TEMPLATES["default"]
    final = DERContext(stream_tokens="final", max_steps=1)
    own: list[float] = []
    later: list[float] = []
    overheads: list[float] = []
    ratios: list[float] = []
    for question in OPEN_QUESTIONS[: args.questions]:
        inputs: Any = {"messages": [HumanMessage(question)]}
        expert = pool[der.invoke(inputs)["route"][0]["choice"]]
        prompt = expert.prompt([], question, [], template)
        for _ in range(args.repeats):
            direct = first_token(expert.model.stream(prompt))
            if direct is not None:
                own.append(direct * 1000)
                for context in (DERContext(), final):
                    through = first_token(
                        der.stream(inputs, context=context, stream_mode="messages")
                    )
                    if through is not None:
                        later.append((through - direct) * 1000)
            taken, state = seconds_of(lambda i=inputs: der.invoke(i))  # type: ignore[misc]
            generating = sum(step["answer"]["seconds"] for step in state["route"] if step["answer"])
            overheads.append((taken - generating) * 1000)
            if generating > LONG_S:
                ratios.append(taken / generating)
    rows = {
        "first token of the expert itself, ms": Spread.of(own),
        "later through the graph, ms": Spread.of(later),
        "route without its generations, ms": Spread.of(overheads),
        f"route / generations, where over {LONG_S:g} s": Spread.of(ratios),
    }
    if args.json:
        print(json.dumps({name: row._asdict() for name, row in rows.items()}))
        return 0
    show(rows, "")
    late, ratio = (rows[name].median for name in list(rows)[1::2])
    return verdict("100 ms and 1.05", late <= 100.0 and ratio <= 1.05)


# Server -------------------------------------------------------------------------------------------


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


# Slow experts --------------------------------------------------------------------------------------


def sleeping_expert(name: str, seed: int, slow: float) -> Expert:
    """An expert somewhere else: 50 to 150 ms for a call, twenty times that for the slow ones."""
    rng = np.random.default_rng(seed)

    async def answer(messages: Any) -> AIMessage:
        seconds = rng.uniform(0.05, 0.15) * (20.0 if rng.random() < slow else 1.0)
        await asyncio.sleep(seconds)
        return AIMessage("42")

    def never(messages: Any) -> AIMessage:
        raise NotImplementedError

    return Expert(name, RunnableLambda(never, answer), cost=1.0)


def hedging(args: argparse.Namespace) -> int:
    """Routes of one call, a share of which is slow, alone and with the next best expert asked beside it."""

    async def measure(hedge: Any) -> tuple[Spread, float, float]:
        experts = [sleeping_expert(name, i, args.slow / 100) for i, name in enumerate("ab")]
        der = create_der_graph(experts, agent=InTurn(1), max_steps=1, hedge=hedge).compile()
        places = asyncio.Semaphore(args.at_once)
        times, cost = [], 0.0

        async def route(i: int) -> None:
            nonlocal cost
            async with places:
                start = time.perf_counter()
                state = await der.ainvoke({"messages": [HumanMessage("6 * 7?", id=f"q{i}")]})
                if i >= 50:  # until then nobody knows what is usual
                    times.append(time.perf_counter() - start)
                    cost += state["cost"]

        for batch in (range(50), range(50, 50 + args.routes)):
            await asyncio.gather(*map(route, batch))
        return Spread.of(times), float(np.percentile(times, 99)), cost / len(times)

    tails, costs = [], []
    for hedge in (None, "p95", "p90"):
        spread, tail, cost = asyncio.run(measure(hedge))
        tails.append(tail)
        costs.append(cost)
        figures = [1000 * each for each in (spread.median, spread.p95, tail)]
        shown = "  ".join(
            f"{name} {ms:5.0f} ms"
            for name, ms in zip(("median", "p95", "p99"), figures, strict=True)
        )
        print(f"hedge {hedge or 'off':<4} {shown}  {cost:.3f} calls a route")
    met = min(tails[1:]) <= tails[0] / 2 and max(costs) <= 1.15
    return verdict("p99 halved for a tenth more calls", met)


# Command line -------------------------------------------------------------------------------------


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
