"""Experts that become bad in service: how soon they are noticed, how often wrongly, and what it saves.

    python benchmarks/drift.py --data recorded_pool [--repeats 5] [--asked 3] [--half first|second]
        [--calm 20000] [--bound] [--served] [--out drift.json]

The profiles come from 700 questions, the traffic from the others, in random order. Each question is
answered by `--asked` experts drawn at random, or by two and a third where they differ. After 200 questions
one expert is replaced: by noise (each answer a value of its own), or by the commonest wrong value of the
question. It counts as noticed if it is suspected within 100 of its calls; where the questions are used up
they come again in another order, so that each has its 100 calls. Without any replacement everything that is
suspected is a false alarm; `--calm` calls are made for each watch.

Intervals are of 95 %: of shares over the repeats (resampled whole, as one profile serves all experts of a
repeat), of false alarms as of rare events (Poisson).

The watch was worked out on the first half of the questions (`--half first`; profiles from 400 of them). The
second half says what it is worth on others. `--bound` adds what a test would reach that knows everything but
when: how often each order of three experts agrees so or so, well and bad, counted on the very questions of
the traffic, with the limit that gives less than 0.02 false alarms in 1,000 calls.

Quality: two strong experts are asked, a third where they differ; the majority counts, else the strongest.
The strongest one turns bad after 200 questions; what is lost afterwards is compared with and without the
watch. With `--served` the same questions go through the graph as well, routed by the planner that was fitted
to the profiles, and the expert that it asks most turns bad.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import logging
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from recorded_data import SIZES
from scipy.stats import chi2

from der_graph import DERContext, create_der_graph
from der_graph.nodes.langchain import as_expert
from der_graph.nodes.reliability.drift import DriftWatch
from der_graph.policies.planning import Planner

WELL, CALLS = 200, 100


class Question(NamedTuple):
    """What each expert's answer to one question came to, and whether it is right."""

    values: dict[str, str | None]
    right: dict[str, bool]

    def common_wrong(self) -> str:
        """The value that most wrong answers have."""
        wrong = Counter(v for n, v in self.values.items() if v is not None and not self.right[n])
        return wrong.most_common(1)[0][0] if wrong else "nonsense"


def read(folder: Path) -> list[Question]:
    """All questions of the recorded pool."""
    found = []
    for name in ("train.jsonl.gz", "dev.jsonl.gz"):
        with gzip.open(folder / name, "rt", encoding="utf-8") as lines:
            for line in lines:
                said = json.loads(line)["candidates"]
                found.append(
                    Question(
                        {c["model"]: c.get("answer") for c in said},
                        {c["model"]: c["scores"]["accuracy"] >= 0.5 for c in said},
                    )
                )
    return found


def watch_of(names: Sequence[str], profile: Sequence[Question], given: bool) -> DriftWatch:
    """A watch that knows the profiles, or one that has to learn."""
    if not given:
        return DriftWatch(names)
    share = [
        [
            sum(q.values[a] is not None and q.values[a] == q.values[b] for q in profile)
            / max(1, sum(None not in (q.values[a], q.values[b]) for q in profile))
            for b in names
        ]
        for a in names
    ]
    quality = [sum(q.right[name] for q in profile) / len(profile) for name in names]
    return DriftWatch(names, share, quality)


def turned(question: Question, bad: str | None, kind: str, number: int) -> dict[str, str | None]:
    """The values of a question once an expert has turned bad."""
    if bad is None:
        return question.values
    worse = f"noise {number}" if kind == "noise" else question.common_wrong()
    return {**question.values, bad: worse}


def again(traffic: Sequence[Question], rng: random.Random) -> Iterator[Question]:
    """Questions in their order, and then again and again in others, without end."""
    yield from traffic
    while True:
        yield from rng.sample(traffic, len(traffic))


def noticed(
    watch: DriftWatch,
    traffic: Sequence[Question],
    bad: str | None,
    kind: str,
    asked: int | None,
    rng: random.Random,
    calm: int,
) -> tuple[int | None, int, int]:
    """After how many of its calls the bad one was suspected, the false alarms, and all calls.

    With `asked` None a third is asked where two differ. Without a bad one it ends after `calm` calls.
    """
    calls = false = total = 0
    for number, question in enumerate(again(traffic, rng)):
        ill = bad is not None and number >= WELL
        values = turned(question, bad if ill else None, kind, number)
        who = rng.sample(watch.names, asked or 3)
        if asked is None and values[who[0]] == values[who[1]]:
            who = who[:2]
        new = watch.note({name: values[name] for name in who})
        total += len(who)
        calls += ill and bad in who
        false += sum(not (ill and name == bad) for name in new)
        if ill and bad in new:
            return calls, false, total
        if calls >= CALLS or (bad is None and total >= calm):
            break
    return None, false, total


def quality(
    traffic: Sequence[Question], watch: DriftWatch | None, order: Sequence[str], bad: str | None
) -> float:
    """Mean quality after `WELL` questions, the bad one giving the commonest wrong value."""  # fmt: skip
    right = []
    for number, question in enumerate(traffic):
        ill = bad if number >= WELL else None
        values = turned(question, ill, "wrong", number)
        aside = frozenset() if watch is None else watch.set_aside()
        able = [name for name in order if name not in aside] or list(order)
        who = able[:2]
        if values[who[0]] is None or values[who[0]] != values[who[-1]]:
            who = able[:3]
        said = Counter(values[name] for name in who if values[name] is not None)
        top = said.most_common(1)[0] if said else (None, 0)
        final = next((n for n in who if top[1] > 1 and values[n] == top[0]), who[0])
        if watch is not None:
            watch.note({name: values[name] for name in who})
        if number >= WELL:
            right.append(question.right[final] and final != ill)
    return sum(right) / len(right)


class Served(NamedTuple):
    """What became of traffic that went through the graph."""

    quality: float
    calls: dict[str, int]
    suspected_after: dict[str, int]
    false_alarms: int


PRICE = 0.2
"""What the planner gives up for cost; two or three calls a question."""


def serve(
    profile: Sequence[Question],
    traffic: Sequence[Question],
    bad: str | None,
    kind: str,
    watch: DriftWatch | None,
) -> Served:
    """Send questions through the graph, one after the other.

    Returns:
        Mean quality after `WELL` questions; calls of each expert since; after how many of its calls since
        each was suspected; how many of those were well.
    """
    names = list(SIZES)
    current: dict[str, str | None] = {}

    def speaker(name: str) -> Any:
        return lambda question: current[name] or "I do not know."

    costs = [SIZES[name] for name in names]
    planner = Planner.fit(
        names,
        costs,
        [f"question {i}" for i in range(len(profile))],
        [[float(q.right[name]) for name in names] for q in profile],
        [[q.values[name] for name in names] for q in profile],
    )
    experts = [as_expert(speaker(n), name=n, cost=c) for n, c in zip(names, costs, strict=True)]
    graph = create_der_graph(experts, agent=planner, ktp="none", watch=watch).compile()
    right: list[bool] = []
    calls: Counter[str] = Counter()
    after: dict[str, int] = {}
    false = 0
    for number, question in enumerate(traffic):
        ill = bad if number >= WELL else None
        current.update(turned(question, ill, kind, number))
        before = frozenset() if watch is None else watch.suspected
        state = graph.invoke(
            {"messages": [("user", f"question {number}")]}, context=DERContext(cost_weight=PRICE)
        )
        asked = [step["choice"] for step in state["route"] if step["answer"] is not None]
        new = frozenset() if watch is None else watch.suspected - before
        false += len(new - {ill})
        if number >= WELL:
            calls.update(asked)
            right.append(question.right[asked[-1]] and asked[-1] != ill)
            after |= {name: calls[name] for name in new if name not in after}
    return Served(sum(right) / len(right), dict(calls), after, false)


def served(questions: Sequence[Question], repeats: int, known: int) -> dict[str, Any]:
    """The figures of traffic that the planner routes."""
    rows: list[dict[str, Any]] = []
    for seed in range(repeats):
        shuffled = random.Random(seed).sample(questions, len(questions))
        profile, traffic = shuffled[:known], shuffled[known:]
        well = serve(profile, traffic, None, "", watch_of(list(SIZES), profile, True))
        bad = max(well.calls, key=well.calls.__getitem__)
        row = {
            "expert": bad,
            "false alarms in 1,000 calls": 1000 * well.false_alarms / sum(well.calls.values()),
            "quality": well.quality,
        }
        for kind in ("noise", "wrong"):
            without = serve(profile, traffic, bad, kind, None)
            watched = serve(profile, traffic, bad, kind, watch_of(list(SIZES), profile, True))
            row[kind] = {
                "noticed after calls": watched.suspected_after.get(bad),
                "calls without": without.calls.get(bad, 0),
                "lost without": without.quality - well.quality,
                "lost with": watched.quality - well.quality,
            }
        rows.append(row)
    return {"served": rows}


def alarms_of(
    questions: Sequence[Question],
    repeats: int,
    known: int,
    given: bool,
    asked: int | None,
    calm: int,
) -> dict[str, Any]:
    """How soon experts that turn bad are noticed, and how often wrongly."""
    names = sorted(questions[0].values)
    found: dict[str, list[list[int | None]]] = {"noise": [], "wrong": []}
    false = calls = instead = 0
    for seed in range(repeats):
        rng = random.Random(seed)
        shuffled = rng.sample(questions, len(questions))
        profile, traffic = shuffled[:known], shuffled[known:]
        _, alarms, number = noticed(
            watch_of(names, profile, given), traffic, None, "", asked, rng, calm
        )
        false, calls = false + alarms, calls + number
        for kind, after in found.items():
            after.append([])
            for bad in names:
                watch = watch_of(names, profile, given)
                when, others, _ = noticed(watch, traffic, bad, kind, asked, rng, calm)
                after[-1].append(when)
                instead += others
    row: dict[str, Any] = {
        "calls": calls,
        "false alarms": false,
        "false alarms in 1,000 calls": per_1000(false, calls),
        "others suspected before the bad one": instead,
    }
    for kind, after in found.items():
        row |= {f"{kind}: {what}": figure for what, figure in soon(after).items()}
    return row


def soon(after: Sequence[Sequence[int | None]]) -> dict[str, Any]:
    """Which share was noticed, and after how many calls, of experts by repeat."""
    shares = np.array([[when is not None for when in each] for each in after]).mean(axis=1)
    resampled = np.random.default_rng(0).choice(shares, (10_000, len(shares))).mean(axis=1)
    calls = sorted(when for each in after for when in each if when is not None)
    return {
        "noticed": float(shares.mean()),
        "interval": np.quantile(resampled, [0.025, 0.975]).tolist(),
        "median calls": calls[len(calls) // 2] if calls else None,
    }


def per_1000(alarms: int, calls: int) -> list[float]:
    """How many in 1,000 calls, with the ends of the interval."""
    least = float(chi2.ppf(0.025, 2 * alarms)) / 2 if alarms else 0.0
    return [1000 * n / calls for n in (alarms, least, float(chi2.ppf(0.975, 2 * alarms + 2)) / 2)]


def bound(questions: Sequence[Question], asked: int | None) -> dict[str, Any]:
    """What is reached by one that knows how often what happens, well and bad, but not since when."""
    names = sorted(questions[0].values)
    rng = random.Random(0)

    def pattern(values: Sequence[str | None]) -> tuple[bool, ...]:
        first, second, third = values
        if asked is None and first == second:
            return (True,)
        return first == second, first == third, second == third

    def steps(bad: str, kind: str) -> dict[tuple[str, ...], dict[tuple[bool, ...], float]]:
        """What each pattern speaks for one expert being bad, by who was asked."""
        ill = [turned(q, bad, kind, n) for n, q in enumerate(questions)]
        found: dict[tuple[str, ...], dict[tuple[bool, ...], float]] = {}
        for who in (w for w in itertools.permutations(names, 3) if bad in w):
            well = Counter(pattern([q.values[n] for n in who]) for q in questions)
            worse = Counter(pattern([values[n] for n in who]) for values in ill)
            found[who] = {
                seen: math.log((worse[seen] + 0.5) / (well[seen] + 0.5))
                for seen in itertools.product((True, False), repeat=3)
            } | {(True,): math.log((worse[True,] + 0.5) / (well[True,] + 0.5))}
        return found

    def run(told: dict[Any, Any], bad: str, kind: str | None, calls: int) -> Iterator[float]:
        """The evidence against one expert after each of its calls."""
        evidence = 0.0
        while calls:
            number = rng.randrange(len(questions))
            others = rng.sample([name for name in names if name != bad], 2)
            others.insert(rng.randrange(3), bad)
            values = questions[number].values
            if kind is not None:
                values = turned(questions[number], bad, kind, number)
            seen = pattern([values[name] for name in others])
            if seen == (True,) and others[2] == bad:
                continue  # it was not asked
            evidence = max(0.0, evidence + told[tuple(others)][seen])
            calls -= 1
            yield evidence

    row: dict[str, Any] = {}
    for kind in ("noise", "wrong"):
        tables = {bad: steps(bad, kind) for bad in names}
        well = [list(run(tables[bad], bad, None, 20_000)) for bad in names]
        ill = [[list(run(tables[bad], bad, kind, CALLS)) for bad in names] for _ in range(20)]
        for limit in np.arange(3.0, 15.0, 0.25).tolist():
            alarms = 0
            for each in well:
                above = False  # since it was zero
                for evidence in each:
                    alarms += evidence >= limit and not above
                    above = evidence >= limit or (above and evidence > 0)
            if 1000 * alarms < 0.02 * sum(map(len, well)):
                break
        after = [
            [next((n for n, e in enumerate(each, 1) if e >= limit), None) for each in every]
            for every in ill
        ]
        row |= {f"{kind}: {what}": figure for what, figure in soon(after).items()}
        row[f"{kind}: limit"] = limit
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--asked", type=int, default=3, help="experts that answer a question")
    parser.add_argument(
        "--half", choices=["first", "second"], help="of the questions (default: all)"
    )
    parser.add_argument("--calm", type=int, default=20_000, help="calls of ordinary traffic")
    parser.add_argument(
        "--bound", action="store_true", help="what could be reached; with three asked"
    )
    parser.add_argument("--served", action="store_true", help="through the graph as well")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    logging.getLogger("der_graph").setLevel(logging.ERROR)
    questions, known = read(args.data), 700
    if args.half:
        questions, known = questions[args.half == "second" :: 2], 400
    names = sorted(questions[0].values)
    result: dict[str, Any] = {}
    for given, asked in itertools.product((True, False), (args.asked, None)):
        label = ("with profiles" if given else "learning") + (
            "" if asked else ", a third if two differ"
        )
        result[label] = alarms_of(questions, args.repeats, known, given, asked, args.calm)
    if args.bound:
        for asked in (args.asked, None):
            label = "bound" + ("" if asked else ", a third if two differ")
            result[label] = bound(questions, asked)
    lost: dict[str, list[float]] = {"without": [], "with": []}
    for seed in range(args.repeats):
        rng = random.Random(seed)
        shuffled = rng.sample(questions, len(questions))
        profile, traffic = shuffled[:known], shuffled[known:]
        order = sorted(names, key=lambda n: -sum(q.right[n] for q in profile))
        well = quality(traffic, None, order, None)
        lost["without"].append(quality(traffic, None, order, order[0]) - well)
        lost["with"].append(
            quality(traffic, watch_of(names, profile, True), order, order[0]) - well
        )
    result["quality, strongest wrong"] = {k: sum(v) / len(v) for k, v in lost.items()}
    if args.served:
        result |= served(questions, args.repeats, known)
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
