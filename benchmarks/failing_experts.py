"""What callers notice of experts that hang or fail, and whether budgets hold, each beside its target.

    python benchmarks/failing_experts.py [SUBJECT ...] [--runs 100000] [--out failing.json]

| SUBJECT | what is measured | target |
|---|---|---|
| hanging | one of three experts hangs, `deadline=2` | 99 of 100 answered; then p95 below 1.2 times |
| bystanders | 64 calls of a server hang, 200 ask another expert | p95 within 1.2 times that without |
| flaky | 30 % of all calls fail, by seven ways in | none lost or hung, refused only where all failed |
| budgets | random pools, prices of tokens, failures and bounds | no bound is broken |

Experts are functions and scripted chat models; nothing leaves the machine. The first two measure with and
without the fault by turns, so that both meet the same load, `hanging` from its third failure on; on a busy
machine a p95 is the machine's all the same.
The exit code is 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import logging
import multiprocessing
import random
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as LateError
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from tqdm import tqdm

from der_graph import ChatDER, DERContext, Expert, create_der_graph
from der_graph.errors import AllExpertsFailedError, DERError
from der_graph.nodes.decision import Decider, situation_of
from der_graph.nodes.ktp import TEMPLATES
from der_graph.nodes.langchain import as_expert
from der_graph.nodes.rules import RouteRules
from der_graph.policies.baselines import FixedOrder, Random
from der_graph.pool import Pool, pool_from
from der_graph.server import create_app, in_background
from der_graph.state import END_CHOICE, answers_of, elapsed, good_answers

Row = dict[str, Any]
WORST = 1.2  # times the p95 without the fault
HUNG = 60.0  # seconds after which a request counts as hung


def asking(number: int) -> dict[str, Any]:
    return {"messages": [("user", f"What is question {number}?")]}


def p95(seconds: Sequence[float]) -> float:
    return float(np.quantile(seconds, 0.95))


def post(address: str, body: dict[str, Any], wait: float = HUNG) -> tuple[int, str]:
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=wait)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body).encode(), headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def to_model(model: str, number: int, **more: Any) -> dict[str, Any]:
    message = {"role": "user", "content": f"What is question {number}?"}
    return {"model": model, "messages": [message], **more}


# One expert hangs -------------------------------------------------------------------------------------


def usual(name: str) -> Callable[[str], Awaitable[str]]:
    """An expert that takes 50 to 150 ms."""
    rng = random.Random(name)

    async def answer(question: str) -> str:
        await asyncio.sleep(rng.uniform(0.05, 0.15))
        return f"{name} says 42"

    return answer


def hanging(rounds: int = 3, requests: int = 100, callers: int = 4) -> Row:
    """One of three experts hangs; it is the one that is asked first."""
    answered = 0
    late: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(rounds):
        for hangs in (False, True):
            good, seconds = asyncio.run(_outage(hangs, requests, callers))
            late[hangs] += seconds
            answered += good if hangs else 0
    share, ratio = answered / (rounds * requests), p95(late[True]) / p95(late[False])
    return {
        "answered": share,
        "p95 without, s": p95(late[False]),
        "p95 after three failures, s": p95(late[True]),
        "ratio": ratio,
        "met": share >= 0.99 and ratio < WORST,
    }


async def _outage(hangs: bool, requests: int, callers: int) -> tuple[int, list[float]]:
    async def never(question: str) -> str:
        await asyncio.sleep(3600)
        return "late"

    first = as_expert(never if hangs else usual("a"), name="a", cost=1)
    experts = [first, *(as_expert(usual(name), name=name, cost=1) for name in "bc")]
    order = FixedOrder("abc", [1, 1, 1])
    graph = create_der_graph(experts, agent=order, max_steps=1, ktp="none").compile()
    numbers, good, seconds = iter(range(requests)), 0, []

    async def caller() -> None:
        nonlocal good
        for number in numbers:
            counts = not hangs or first.health.breaker.view().failures >= 3
            start = time.perf_counter()
            try:
                state = await graph.ainvoke(asking(number), context=DERContext(deadline=2.0))
                good += bool(good_answers(state["route"] and [state["route"][-2]["answer"]]))
            except DERError:
                pass
            if counts:
                seconds.append(time.perf_counter() - start)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return good, seconds


# One expert of a server hangs ---------------------------------------------------------------------------


def bystanders(requests: int = 200, hung: int = 64, callers: int = 8) -> Row:
    """Calls of one expert of a server hang; others ask another one. In turn with a server without them."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    with (
        ThreadPoolExecutor(hung) as patient,
        ThreadPoolExecutor(callers) as pool,
        _server() as well,
        _server() as ill,
    ):
        bodies = [to_model("hangs", number) for number in range(hung)]
        waiting = [patient.submit(post, ill, body, 3600) for body in bodies]
        while _hung(ill) < hung:
            time.sleep(0.1)

        def both(number: int) -> bool:
            """The same question to both; who is first changes."""
            good = True
            for hangs in (number % 2 == 0, number % 2 == 1):
                start = time.perf_counter()
                status, _ = post(ill if hangs else well, to_model("well", number))
                seconds[hangs].append(time.perf_counter() - start)
                good = good and status == 200
            return good

        list(pool.map(lambda i: post(well if i % 2 else ill, to_model("well", i)), range(callers)))
        served = list(pool.map(both, range(requests)))
        in_vain = sum(future.done() for future in waiting)
    share, ratio = sum(served) / requests, p95(seconds[True]) / p95(seconds[False])
    return {
        "answered": share,
        "hung meanwhile": hung - in_vain,
        "p95 without, s": p95(seconds[False]),
        "p95 with, s": p95(seconds[True]),
        "ratio": ratio,
        "met": share == 1 and not in_vain and ratio <= WORST,
    }


def _hung(address: str) -> int:
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=HUNG)
    connection.request("GET", "/metrics")
    page = connection.getresponse().read().decode()
    connection.close()
    found = re.search(r"^der_requests_in_flight ([0-9.]+)", page, re.MULTILINE)
    return int(float(found[1])) if found else 0


@contextmanager
def _server() -> Iterator[str]:
    """A server in a process of its own; one of its experts hangs whenever it is asked."""
    here, there = multiprocessing.Pipe()
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=_serve, args=(there,), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        process.kill()
        process.join()


def _serve(pipe: Any) -> None:
    def hangs(question: str) -> str:
        time.sleep(3600)
        return "late"

    experts = [
        as_expert(hangs, name="hangs", cost=1),
        as_expert(usual("well"), name="well", cost=1),
    ]
    for expert in experts:
        expert.health.bulkhead.trust()  # it has answered before, so all its threads may hang
    agent = FixedOrder(["hangs", "well"], [1, 1])
    with in_background(create_app(pool_from(experts, max_steps=1), agent)) as address:
        pipe.send(address)
        time.sleep(3600)


# Calls that fail ------------------------------------------------------------------------------------------

NAMES = ("sync", "coroutine", "chat", "stream")
FAILING = 0.3


def failure_at(name: str, number: int) -> int | None:
    """How an expert fails on a question, always in the same way; None if it does not."""
    rng = random.Random(f"{name}/{number}")
    return rng.randrange(8) if rng.random() < FAILING else None


def number_in(text: str) -> int:
    found = re.search(r"question (\d+)", text)
    assert found, text
    return int(found[1])


def said(name: str, text: str) -> Any:
    """What an expert says to a question, or raises."""
    kind = failure_at(name, number_in(text))
    if kind is None:
        return f"42, says {name}"
    if kind >= 5:
        return ("", None, {"odd": 1})[kind - 5]
    raise (
        ConnectionError("reset by peer"), TimeoutError("timed out"), MemoryError(), SystemExit(3),
        asyncio.CancelledError(),
    )[kind]  # fmt: skip


class Scripted(BaseChatModel):
    """A chat model that says, or raises, what a function of the question gives, and counts its tokens.

    Attributes:
        say: What to say; whatever is no text is an empty answer.
        wants: Tokens that it would write; it writes no more than `max_tokens`.
    """

    say: Callable[[str], Any]
    wants: int = 10

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        max_tokens: int = 1_000_000,
        **kwargs: Any,
    ) -> ChatResult:
        said = self.say(str(messages[-1].content))
        read = sum(len(str(each.content).encode()) for each in messages)
        usage: Any = {"input_tokens": read, "output_tokens": min(self.wants, max_tokens)}
        usage["total_tokens"] = sum(usage.values())
        message = AIMessage(said if isinstance(said, str) else "", usage_metadata=usage)
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(self, *given: Any, **kwargs: Any) -> ChatResult:
        return self._generate(*given, **kwargs)


class InPieces(Scripted):
    """The same in a stream, which breaks off after its first word where there is nothing to say."""

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        try:
            said = self.say(str(messages[-1].content))
        except BaseException:
            said = None
        words = said.split(" ") if isinstance(said, str) and said else ["42,", None]
        for number, word in enumerate(words):
            if word is None:
                raise ConnectionError("cut in the middle")
            text = f" {word}" if number else word
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=text))
            if run_manager is not None:
                run_manager.on_llm_new_token(text, chunk=chunk)
            yield chunk


def flaky_pool() -> Pool:
    """Four experts of four kinds."""

    def sync(question: str) -> Any:
        return said("sync", question)

    async def coroutine(question: str) -> Any:
        return said("coroutine", question)

    chat, stream = Scripted(say=partial(said, "chat")), InPieces(say=partial(said, "stream"))
    models = (sync, coroutine, chat, stream)
    experts = [
        as_expert(model, name=name, cost=1) for name, model in zip(NAMES, models, strict=True)
    ]
    return pool_from(experts, max_steps=3)


def flaky(requests: int = 300, callers: int = 8) -> Row:
    """Many requests by every way in; each is compared with what its experts did."""
    logging.disable(logging.CRITICAL)  # a warning for each of some 2,500 failed calls
    agent = Random(NAMES, [1.0] * len(NAMES))
    found: dict[str, Counter[str]] = {}
    for way, ask in _ways(agent).items():
        found[way] = Counter()
        with ask as one, ThreadPoolExecutor(callers) as pool:
            waiting = [pool.submit(one, number) for number in range(requests)]
            for number, future in enumerate(waiting):
                found[way][_verdict(number, future)] += 1
        print(f"  {way}: {dict(found[way])}", flush=True)
    logging.disable(logging.NOTSET)
    total = sum(found.values(), Counter())
    good = {"answered", "refused, as all experts failed"}
    return {**total, "ways": found, "met": set(total) <= good}


def _verdict(number: int, future: Future[bool]) -> str:
    hopeless = all(failure_at(name, number) is not None for name in NAMES)
    try:
        answered = future.result(HUNG)
    except LateError:
        return "hung"
    except Exception as error:
        return f"lost ({type(error).__name__})"
    if answered:
        return "answered out of nothing" if hopeless else "answered"
    return "refused, as all experts failed" if hopeless else "refused, though one had answered"


def _ways(agent: Random) -> dict[str, Any]:
    """By name, what gives a function: is a question answered (or refused)?"""

    def graph() -> Any:
        pool = flaky_pool()
        return create_der_graph(pool, agent=agent).compile()

    def refusing(ask: Callable[[int], str]) -> Callable[[int], bool]:
        def one(number: int) -> bool:
            try:
                return "42" in ask(number)
            except AllExpertsFailedError:
                return False

        return one

    @contextmanager
    def whole() -> Iterator[Any]:
        app = graph()
        yield refusing(lambda number: str(app.invoke(asking(number))["answer"]))

    @contextmanager
    def later() -> Iterator[Any]:
        app, loop = graph(), asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()

        def ask(number: int) -> str:
            future = asyncio.run_coroutine_threadsafe(app.ainvoke(asking(number)), loop)
            return str(future.result(HUNG)["answer"])

        yield refusing(ask)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(HUNG)

    @contextmanager
    def streamed() -> Iterator[Any]:
        app = graph()

        def ask(number: int) -> str:
            parts = app.stream(asking(number), stream_mode=["messages", "values"])
            texts, state = [], {}
            for mode, part in parts:
                if mode == "values":
                    state = part
                elif isinstance(part[0], AIMessageChunk):
                    texts.append(part[0].text)
            answer = str(state["answer"])
            assert not texts or "".join(texts) in ("", answer), (texts, answer)
            return answer

        yield refusing(ask)

    @contextmanager
    def batch() -> Iterator[Any]:
        chat = ChatDER(pool=flaky_pool(), agent=agent)

        def ask(number: int) -> str:
            results: list[Any] = chat.batch([asking(number)["messages"]], return_exceptions=True)
            if isinstance(results[0], Exception):
                raise results[0]
            return str(results[0].text)

        yield refusing(ask)

    @contextmanager
    def chat_stream() -> Iterator[Any]:
        chat = ChatDER(pool=flaky_pool(), agent=agent)
        yield refusing(
            lambda number: "".join(str(c.text) for c in chat.stream(asking(number)["messages"]))
        )

    @contextmanager
    def server(stream: bool) -> Iterator[Any]:
        with in_background(create_app(flaky_pool(), agent)) as address:

            def ask(number: int) -> bool:
                status, text = post(address, to_model("der", number, stream=stream))
                if '"experts_failed"' in text:
                    return False
                ended = text.rstrip().endswith("data: [DONE]") if stream else status == 200
                if not ended or "42" not in text:
                    raise RuntimeError(f"status {status}")
                return True

            yield ask

    return {
        "invoke": whole(), "ainvoke": later(), "stream": streamed(), "ChatDER.batch": batch(),
        "ChatDER.stream": chat_stream(), "server": server(False), "server, stream": server(True),
    }  # fmt: skip


# Budgets ---------------------------------------------------------------------------------------------------

QUESTION = "What is question 0?"


def says_ok(fails: float, question: str) -> str:
    """An expert that is out of order at times."""
    if random.random() < fails:
        raise ValueError("out of order")
    return "ok"


def random_pool(rng: random.Random) -> list[Expert]:
    """Up to seven experts, with prices a call or a token, that fail never, at times or always."""
    experts = []
    for i in range(rng.randint(1, 7)):
        cost = rng.choice([0, 0.1, 0.2, 0.3, 1, 7, rng.random() * 10, 1e-9, 1e9])
        fails = rng.choice([0, 0, 0.3, 1])
        kind = rng.choice(["function", "chat", "tokens", "tokens"])
        prices = (rng.random() * 50, rng.random() * 200) if kind == "tokens" else None
        say, wants = partial(says_ok, fails), rng.choice([1, 10, 500, 100_000])
        model: Any = Scripted(say=say, wants=wants)
        if kind == "function":

            async def model(question: str, say: Callable[[str], str] = say) -> str:
                return say(question)

        seconds = rng.choice([None, None, 0.01, 100.0])
        experts.append(
            as_expert(model, name=f"e{i}", cost=cost, token_prices=prices, seconds=seconds)
        )
    return experts


def random_bounds(rng: random.Random, experts: Sequence[Expert]) -> dict[str, Any]:
    """What a request allows."""
    names = [each.name for each in experts]
    total = sum(each.cost for each in experts)

    def some() -> list[str]:
        return rng.sample(names, rng.randint(1, len(names)))

    given: dict[str, Any] = {}
    if rng.random() < 0.7:
        given["max_cost"] = rng.choice([0, 0.1, 0.3, 1, total, rng.random() * 15])
    if rng.random() < 0.5:
        given["max_steps"] = rng.randint(1, 8)
    if rng.random() < 0.2:
        given["deadline"] = rng.choice([0.01, 1.0, 50.0])
    if rng.random() < 0.3:
        given["allowed_experts"] = some()
    if rng.random() < 0.2:
        given["forbidden_experts"] = some()[: len(names) - 1]
    return given


def broken_bounds(
    state: dict[str, Any],
    given: dict[str, Any],
    experts: Sequence[Expert],
    longest: int,
    repeat: bool,
) -> list[str]:
    """Which bounds a route has broken."""
    price = {each.name: each.cost for each in experts}
    answers = [step["answer"] for step in state["route"] if step["answer"] is not None]
    asked = Counter(each["expert"] for each in answers)
    spent = sum(each["cost"] for each in answers)
    good = [each for each in answers if each["error"] is None]
    exact = 1 + 1e-9
    checks = {
        "max_cost": spent <= given.get("max_cost", float("inf")) * exact + 1e-12,
        "an expert's cost": all(each["cost"] <= price[each["expert"]] * exact for each in answers),
        "the state's cost": abs(spent - state["cost"]) <= 1e-9 * max(1.0, spent),
        "max_steps": len(good) <= min(longest, given.get("max_steps", longest)),
        "allowed_experts": set(asked) <= set(given.get("allowed_experts") or price),
        "forbidden_experts": not set(asked) & set(given.get("forbidden_experts", ())),
        "asked once": repeat or not asked or max(asked.values()) == 1,
        "a failed one again": all(
            each["error"] is None or each["expert"] not in {a["expert"] for a in answers[i + 1 :]}
            for i, each in enumerate(answers)
        ),
        "the answer": state["answer"] == "ok",
    }
    return [name for name, held in checks.items() if not held]


async def route(experts: Sequence[Expert], decider: Decider, context: DERContext) -> dict[str, Any]:
    """A route by the rules, decisions, calls and charges of the graph, without LangGraph's own work."""
    rules, steps, spent = decider.rules, list[Any](), 0.0
    by_name = {each.name: each for each in experts}

    async def at_once(work: Callable[[], Any], seen: Any) -> Any:
        return work()

    while True:
        answers, passed = answers_of(steps), elapsed(steps)
        down = [each.name for each in experts if not each.health.breaker.allows()]
        situation = situation_of(
            rules, context, question=QUESTION, conversation=QUESTION, answers=answers, spent=spent,
            elapsed=passed, refused=[], unavailable=down, last_experts=[], stickiness=0.0,
        )  # fmt: skip
        decision = await decider.adecide(situation, {}, at_once)
        if decision["choice"] == END_CHOICE:
            return {"route": steps, "cost": spent, "answer": good_answers(answers)[-1]["text"]}
        expert, left = by_name[decision["choice"]], situation["time_left"]
        free = {name for name, allowed in decision["mask"].items() if allowed} - {expert.name}
        prompt = expert.prompt([], QUESTION, answers, TEMPLATES["default"])
        answer = await expert.aask(
            prompt,
            time_left=None if left is None else left - decision["seconds"],
            fallback="answer" if END_CHOICE in free else "expert" if free else "none",
            insist=expert.name in down,
        )
        steps.append({**decision, "answer": answer})
        spent += answer["cost"]


def budgets(runs: int, seed: int = 0, per_pool: int = 10, share: float = 0.02) -> Row:
    """Random requests to random pools; per pool ten, so that what is known of failures matters too.

    A share of the pools is asked through the compiled graph, the others by `route`.
    """
    logging.disable(logging.CRITICAL)
    found, broken = Counter[str](), Counter[str]()

    async def ten(rng: random.Random, number: int) -> None:
        experts = random_pool(rng)
        longest, repeat = rng.randint(1, 6), rng.random() < 0.3
        agent = Random([e.name for e in experts], [e.cost for e in experts])
        rules = RouteRules.of(experts, max_steps=longest, repeat_experts=repeat)
        graph = None
        if rng.random() < share:
            graph = create_der_graph(
                experts, agent=agent, max_steps=longest, repeat_experts=repeat
            ).compile()
        for i in range(min(per_pool, runs - number)):
            given, agent.seed = random_bounds(rng, experts), number + i
            context = DERContext(**given)
            try:
                if graph is not None:
                    state = await graph.ainvoke(asking(0), context=context)
                else:
                    state = await route(experts, Decider(agent, rules, "raise"), context)
            except DERError as error:
                found[f"refused: {type(error).__name__}"] += 1
                continue
            found["answered"] += 1
            found["through the graph"] += graph is not None
            broken.update(broken_bounds(state, given, experts, longest, repeat))

    async def everything() -> None:
        rng = random.Random(seed)
        random.seed(seed)
        with tqdm(total=runs, unit="run", smoothing=0, mininterval=5) as bar:
            for number in range(0, runs, per_pool):
                await ten(rng, number)
                bar.update(min(per_pool, runs - number))

    with suppress(KeyboardInterrupt):  # Ctrl-C: what was done is reported
        asyncio.run(everything())
    logging.disable(logging.NOTSET)
    done = sum(count for name, count in found.items() if name != "through the graph")
    return {"runs": done, **found, "broken": dict(broken), "met": not broken and done == runs}


def main() -> None:
    subjects: dict[str, Callable[[argparse.Namespace], Row]] = {
        "hanging": lambda args: hanging(),
        "bystanders": lambda args: bystanders(),
        "flaky": lambda args: flaky(),
        "budgets": lambda args: budgets(args.runs, args.seed),
    }
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("subject", nargs="*", default=list(subjects), help=", ".join(subjects))
    parser.add_argument("--runs", type=int, default=100_000, help="requests of `budgets`")
    parser.add_argument("--seed", type=int, default=0, help="of `budgets`")
    parser.add_argument("--out", type=Path, help="write what was found as JSON")
    args = parser.parse_args()
    found = {}
    for name in args.subject:
        if name not in subjects:
            parser.error(f"there is no subject {name!r}; there are: {', '.join(subjects)}")
        start = time.perf_counter()
        found[name] = row = subjects[name](args)
        shown = ", ".join(
            f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}"
            for key, value in row.items()
            if key not in ("met", "ways")
        )
        verdict = "met" if row["met"] else "MISSED"
        print(f"{name}: {verdict} ({shown}; {time.perf_counter() - start:.0f} s)", flush=True)
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.exit(0 if all(row["met"] for row in found.values()) else 1)


if __name__ == "__main__":
    main()
