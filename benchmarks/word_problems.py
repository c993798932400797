"""Answer accuracy of the DER graph, and of every expert alone, on word problems in a data file.

    python benchmarks/word_problems.py --data word_problems/dev.jsonl [--limit N] [--held-out]

`--held-out` keeps the rows that the translator's training left out of that same file. Reads `{"question",
"answer"}` rows. Routes run in lockstep, so experts answer in batches; the answers of the
experts go to the answer cache, so a second run is fast. Prints accuracy with Wilson 95 % intervals, the mean
cost, and the routes taken.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from importlib import import_module
from pathlib import Path

from tqdm import tqdm

from der_graph.data import load_examples
from der_graph.policies.agent import load_agent
from der_graph.policies.answers import AnswerSource, open_cache
from der_graph.policies.baselines import Single
from der_graph.policies.evaluation.statistics import wilson_interval
from der_graph.policies.quality import get_metric
from der_graph.policies.training.mdp import Episode, run_routes
from der_graph.pool import load_pool


def left_out(identifier: str) -> bool:
    """Did the translator's training leave this row out? Its own rule says."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts" / "demo_pool"))
    rule = import_module("translator_data").is_held_out
    return bool(rule({"id": identifier}))


def report(name: str, episodes: list[Episode]) -> None:
    """Print one method's line."""
    right = sum(episode.quality >= 0.5 for episode in episodes)
    interval = wilson_interval(right, len(episodes))
    cost = sum(episode.cost for episode in episodes) / len(episodes)
    print(
        f"{name:<12} {right / len(episodes):.3f}  [{interval.low:.3f}, {interval.high:.3f}]  "
        f"{right}/{len(episodes)}  cost {cost:.4f}"
    )


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="word problems, JSON Lines")
    parser.add_argument("--pool", default="demo")
    parser.add_argument("--agent", default="demo")
    parser.add_argument("--limit", type=int, help="only the first N questions")
    parser.add_argument("--held-out", action="store_true", help="only rows not trained on")
    parser.add_argument("--cache", help="answer cache; ':memory:' for none")
    args = parser.parse_args()
    pool, agent = load_pool(args.pool), load_agent(args.agent)
    agent.check_pool(pool.names)
    examples = load_examples(args.data)
    if args.held_out:
        examples = [example for example in examples if left_out(example.id)]
    examples = examples[: args.limit]
    rules = pool.rules
    start = time.perf_counter()
    with open_cache(args.cache) as cache, tqdm(unit="answer", file=sys.stderr, leave=False) as bar:
        source = AnswerSource(
            list(pool),
            examples,
            get_metric("numeric"),
            ktp=pool.settings.ktp,
            cache=cache,
            on_asked=bar.update,
        )
        routed = run_routes(agent, source, rules)
        report("DER", routed)
        routes = Counter(" -> ".join(rules.names[i] for i in episode.experts) for episode in routed)
        for expert in pool:
            report(
                expert.name,
                run_routes(Single(rules.names, rules.costs, expert.name), source, rules),
            )
    print(
        "routes of DER: " + ", ".join(f"{route}: {count}" for route, count in routes.most_common(5))
    )
    seconds = time.perf_counter() - start
    print(f"{len(examples)} questions, {source.generated} answers generated, {seconds:.0f} s")


if __name__ == "__main__":
    main()
