"""An evaluation of the toy pool, and its report, for the tests of evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from toy import WordEncoder, toy_examples, toy_experts, toy_rules

from der_graph.graph import create_der_graph
from der_graph.nodes.decision import Choice
from der_graph.policies.answers import AnswerCache
from der_graph.policies.baselines import Baseline, certain
from der_graph.policies.evaluation import Report
from der_graph.policies.evaluation.evaluate import Evaluation, evaluate
from der_graph.policies.evaluation.provenance import agent_info, data_info, pool_info, run_info
from der_graph.policies.evaluation.summary import is_live, summarize
from der_graph.policies.evaluation.timing import measure_wall_clock
from der_graph.policies.quality import get_metric
from der_graph.pool import Pool, pool_from
from der_graph.state import Situation

NAMES = ("writer", "counter", "facts", "parrot")
COSTS = (1.0, 0.1, 2.0, 0.5)


class BestAgent(Baseline):
    """Knows the toy pool: writer and counter for sums, facts for facts; at a high price, the parrot."""

    cost_weight_range = (0.1, 10.0)

    def decide(self, situations: Sequence[Situation]) -> list[Choice]:
        return [certain(self.allowed(self.choose(seen), seen), seen) for seen in situations]

    def choose(self, situation: Situation) -> int:
        step = len(situation.answers)
        if (situation.cost_weight or 0.0) > 5:
            return 3 if step == 0 else 4
        route = [0, 1] if "pebbles" in situation.question else [2]
        return route[step] if step < len(route) else 4


def toy_evaluation(cache: AnswerCache | None = None, **more: object) -> Evaluation:
    experts = toy_experts()
    return evaluate(
        experts, BestAgent(NAMES, COSTS), toy_examples(20), get_metric("match"),
        rules=toy_rules(experts), encoder=WordEncoder(), cost_weights=[0.1, 10.0], cache=cache,
        **more,  # type: ignore[arg-type]
    )  # fmt: skip


def toy_report(found: Evaluation, pool: Pool | None = None) -> Report:
    toy = pool_from(toy_experts(), max_steps=3)
    agent = BestAgent(NAMES, COSTS)
    clock = measure_wall_clock(
        lambda mine: create_der_graph(toy, agent=mine).compile(),
        agent,
        [[("user", example.question)] for example in found.examples[:3]],
    )
    return summarize(
        found,
        run=run_info(0, found, ["/usr/bin/der", "eval", "--out", "a b"]),
        pool=pool_info(pool or toy, "toy", live=is_live(found)),
        agent=agent_info(agent, "best"),
        data=data_info(found.examples, "toy.jsonl", "match", toy_examples(10)),
        wall_clock=clock,
    )
