"""Many questions at once: answered within one budget, written as they come, gone on with after a stop.

    questions ──graph, several at a time──> a line of JSON each ──> answers.jsonl

Every line is written as soon as its question is answered, so a run that was killed has lost what was in
flight. The same run goes on from the file: what is answered there is not asked again. What failed is asked
once more when all others have been. Who would be asked, and no more, is `first_decisions`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from langchain_core.messages import HumanMessage

from der_graph.data import Example
from der_graph.data.leaks import same_question
from der_graph.data.saving import save_text, sole_writer, told
from der_graph.data.untrusted import check_regular
from der_graph.errors import (
    AgentError,
    AllExpertsFailedError,
    BudgetError,
    DataError,
    DERError,
    ExpertError,
    PoolError,
)
from der_graph.graph import create_der_graph
from der_graph.nodes.answer import finished
from der_graph.nodes.conversation import conversation_text, history_for_experts, messages_of
from der_graph.nodes.decision import Decider, RoutingAgent, agent_for_pool, situation_of
from der_graph.nodes.expert import unable_experts
from der_graph.nodes.ktp import ktp_template
from der_graph.nodes.providers.secrets import mask_secrets
from der_graph.nodes.rules import COST_TOLERANCE
from der_graph.policies.agent import find_agent
from der_graph.policies.answers import AnswerCache, with_cache
from der_graph.pool import Pool
from der_graph.progress_bar import AnswerBar
from der_graph.state import Decision, DERContext

CONCURRENCY = 8
"""Questions in flight at a time."""
GIVE_UP = 20
"""Questions of which none could be answered, after which nothing more is tried."""

Say = Callable[[str], None]


@dataclass
class BatchResult:
    """What a run over many questions did.

    Attributes:
        answered: Questions with an answer, those of earlier runs included.
        failed: Questions that no expert could answer.
        left: Questions that were not asked, because the budget was used up.
        cost: Of this run and those before it, in the pool's unit.
        before: How many of the answered ones earlier runs had answered.
        error: What the first failed question says; empty where none failed.
    """

    answered: int = 0
    failed: int = 0
    left: int = 0
    cost: float = 0.0
    before: int = 0
    error: str = ""


def answer_file(
    pool: Pool,
    agent: RoutingAgent | str | os.PathLike[str] | None,
    examples: Sequence[Example],
    out: str | os.PathLike[str],
    *,
    context: DERContext | None = None,
    budget: float | None = None,
    concurrency: int = CONCURRENCY,
    cache: AnswerCache | None = None,
    progress: bool = False,
    say: Say = lambda line: None,
) -> BatchResult:
    """Answer many questions into a file, or go on with that.

    Args:
        pool: The experts.
        agent: Who decides; see `create_der_graph`.
        examples: The questions; references are not read.
        out: File of the answers, JSON Lines: `id`, `question`, `answer`, `experts`, `cost`, `seconds`; in
            the order of the questions once the run is over. A question that failed has an `error`, and is
            asked again by the next run.
        context: Settings of every request.
        budget: Most that the whole file may cost, earlier runs included, in the pool's unit. Hard: money is
            set aside for a question before it is asked.
        concurrency: Questions in flight at a time.
        cache: Answers of experts that were given before; new ones are kept there.
        progress: Draw a bar on a terminal, or say how far it is once a minute.
        say: Receives one-line messages.

    Returns:
        What was done. After Ctrl-C the file is in order, and KeyboardInterrupt goes on.

    Raises:
        DataError: If the file holds answers to other questions, or of a run with other settings; another
            process writes it; or it cannot be written.
        BudgetError: If the settings leave nobody to ask.
        ExpertError: If none of the first questions could be answered.
    """
    if concurrency < 1:
        raise BudgetError(f"concurrency is {concurrency}; it must be at least 1")
    context = context or DERContext()
    run = _Run(
        pool, examples, Path(out), _settings_of(pool, agent, context), context, budget, concurrency
    )
    with sole_writer(run.out):
        run.open()
        if budget is not None and (dear := _too_dear(pool, context, budget)):
            say(
                f"warning: one call of {', '.join(dear)} may cost more than the whole budget of {budget:g} "
                "(`cost` in the pool file), so nobody of these is asked; raise the budget to change that"
            )
        members = pool if cache is None else _cached(pool, cache)
        graph = create_der_graph(members, agent=agent).compile(name="der")
        todo = len(run.groups)
        if run.result.before:
            say(f"{run.out}: {run.result.before:,} answered before, {todo:,} questions to ask")
        try:
            with AnswerBar("questions", todo, show=progress, unit="question", say=say) as bar:
                asyncio.run(run.go(graph, bar))
        finally:
            run.close()
    return run.result


def _too_dear(pool: Pool, context: DERContext, budget: float) -> list[str]:
    """The experts that might be asked if the budget covered a call."""
    barred = pool.rules.barred(context)
    limit = budget * (1 + COST_TOLERANCE)
    return [each.name for each in pool if each.name not in barred and each.cost > limit]


def _cached(pool: Pool, cache: AnswerCache) -> Pool:
    return replace(pool, experts=tuple(with_cache(expert, cache) for expert in pool))


def _settings_of(pool: Pool, agent: Any, context: DERContext) -> str:
    """What answers depend on, as far as it is the same in another process; as a digest."""
    named = agent if isinstance(agent, (str, os.PathLike, type(None))) else type(agent).__name__
    words = [*pool.names, str(named or pool.settings.agent), repr(context)]
    return hashlib.sha256("\x00".join(words).encode()).hexdigest()[:12]


class Purse:
    """A budget that several questions draw on at once.

    Args:
        total: What there is.
    """

    def __init__(self, total: float) -> None:
        self.left = total
        self._out = 0
        self._changed = asyncio.Condition()

    async def take(self, most: float, least: float) -> float | None:
        """Set money aside for a question.

        Args:
            most: What it may cost; less only where others will give nothing back.
            least: What its cheapest route costs.

        Returns:
            How much; None if the budget is used up.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self.left >= most or not self._out)
            share = min(most, self.left)
            if share < least:
                return None
            self.left -= share
            self._out += 1
            return share

    async def give_back(self, share: float, spent: float) -> None:
        """Return what a question did not spend."""
        async with self._changed:
            self.left += share - spent
            self._out -= 1
            self._changed.notify_all()


@dataclass
class _Run:
    """One run over a file's questions."""

    pool: Pool
    examples: Sequence[Example]
    out: Path
    settings: str
    context: DERContext
    budget: float | None
    concurrency: int
    result: BatchResult = field(default_factory=BatchResult)
    groups: list[list[Example]] = field(default_factory=list)
    _rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    _spent: dict[str, float] = field(default_factory=dict)  # on questions that failed before
    _failed: list[list[Example]] = field(default_factory=list)
    _file: TextIO | None = None

    def open(self) -> None:
        """Read what earlier runs answered, and open the file for more."""
        known = {example.id: example for example in self.examples}
        latest: dict[str, dict[str, Any]] = {}
        for number, row in _rows_of(self.out):
            example = known.get(str(row.get("id")))
            if example is None or row.get("question") != example.question:
                raise DataError(
                    f"{self.out}, line {number}: holds an answer to another question than those to ask "
                    f"({str(row.get('question'))[:60]!r}); give another --out"
                )
            if row.get("run") != self.settings:
                raise DataError(
                    f"{self.out}, line {number}: was answered with another pool, agent or limits; give "
                    "another --out, or delete the file to begin anew"
                )
            latest[example.id] = row  # what failed may have been asked twice
        for name, row in latest.items():
            self.result.cost += row.get("cost", 0.0)
            if "error" in row:
                self._spent[name] = row.get("cost", 0.0)
            else:
                self._rows[name] = row
        self.result.before = self.result.answered = len(self._rows)
        same: dict[str, list[Example]] = {}
        for example in self.examples:
            if example.id not in self._rows:
                same.setdefault(same_question(example), []).append(example)
        self.groups = list(same.values())  # a question that comes twice is asked once
        self._write_in_order()
        with told(self.out):
            self._file = self.out.open("a", encoding="utf-8")

    def close(self) -> None:
        """Leave the file in the order of the questions."""
        if self._file is not None:
            with told(self.out):
                self._file.close()
            self._write_in_order()

    def _write_in_order(self) -> None:
        rows = [self._rows[e.id] for e in self.examples if e.id in self._rows]
        save_text(self.out, "".join(map(_line, rows)))

    async def go(self, graph: Any, bar: AnswerBar) -> None:
        """Ask everything that is left, and once more what failed."""
        purse = None if self.budget is None else Purse(self.budget - self.result.cost)
        await self._pass(graph, self.groups, purse, bar)
        again, self._failed = self._failed, []
        self.result.failed, self.result.error = 0, ""  # an outage may be over
        await self._pass(graph, again, purse, bar)

    async def _pass(
        self, graph: Any, groups: Sequence[list[Example]], purse: Purse | None, bar: AnswerBar
    ) -> None:
        waiting = iter(groups)
        workers = [
            asyncio.create_task(self._work(graph, waiting, purse, bar))
            for _ in range(min(self.concurrency, len(groups)))
        ]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        self.result.left += sum(len(group) for group in waiting)

    async def _work(
        self, graph: Any, waiting: Iterator[list[Example]], purse: Purse | None, bar: AnswerBar
    ) -> None:
        most, least = self._bounds()
        for group in waiting:
            share = most if purse is None else await purse.take(most, least)
            if share is None:
                self.result.left += len(group)
                return
            spent = 0.0
            try:
                row = await self._ask(graph, group[0], share, most)
                spent = row["cost"]
            finally:
                if purse is not None:
                    await purse.give_back(share, spent)
            self._keep(group, row)
            if "error" not in row:
                bar.advance(1)

    def _bounds(self) -> tuple[float, float]:
        """The most and the least that a route may cost; all that there is where nothing bounds it."""
        rules = self.pool.rules
        barred = rules.barred(self.context)
        costs = [
            float("inf") if name in rules.unbounded else cost
            for name, cost in zip(rules.names, rules.costs, strict=True)
            if name not in barred
        ]
        steps = rules.steps(self.context.max_steps)
        dearest = sorted(costs, reverse=True)
        most = steps * dearest[0] if rules.repeat_experts else sum(dearest[:steps])
        if self.context.max_cost is not None:
            most = min(most, self.context.max_cost)
        return most, min(costs)

    async def _ask(self, graph: Any, example: Example, share: float, most: float) -> dict[str, Any]:
        # An agent that is told a budget may choose otherwise: only one that binds is told.
        context = self.context if share >= most else replace(self.context, max_cost=share)
        messages = [*messages_of(example.history), HumanMessage(example.question)]
        row: dict[str, Any] = {"id": example.id, "question": example.question}
        try:
            state = finished(await graph.ainvoke({"messages": messages}, context=context))
        except (BudgetError, PoolError, AgentError):
            raise  # of the settings: no other question would fare better
        except DERError as error:
            answers = error.answers if isinstance(error, AllExpertsFailedError) else ()
            return row | {
                "error": mask_secrets(str(error)),
                "cost": sum(answer["cost"] for answer in answers),
                "run": self.settings,
            }
        answers = [step["answer"] for step in state["route"] if step.get("answer")]
        return row | {
            "answer": state["answer"],
            "experts": [answer["expert"] for answer in answers],
            "cost": float(state["cost"]),
            "seconds": round(sum(answer["seconds"] for answer in answers), 3),
            "run": self.settings,
        }

    def _keep(self, group: Sequence[Example], row: dict[str, Any]) -> None:
        assert self._file is not None
        self.result.cost += row["cost"]
        lines = []
        for number, example in enumerate(group):
            mine = row | {"id": example.id, "question": example.question}
            mine["cost"] = self._spent.pop(example.id, 0.0) + (0.0 if number else row["cost"])
            if "error" in row:
                self._spent[example.id] = mine["cost"]
            self._rows[example.id] = mine
            lines.append(_line(mine))
        with told(self.out):
            self._file.write("".join(lines))
            self._file.flush()
        if "error" not in row:
            self.result.answered += len(group)
            return
        self._failed.append(list(group))
        self.result.failed += len(group)
        self.result.error = self.result.error or row["error"]
        if self.result.answered == 0 and self.result.failed >= GIVE_UP:
            raise ExpertError(
                f"none of the first {self.result.failed} questions could be answered; the first error: "
                f"{self.result.error}"
            )


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _rows_of(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines of earlier runs; the last one may have been cut short by a kill, and counts for nothing."""
    try:
        check_regular(path)
        # Not `splitlines`: texts may hold line separators that JSON does not escape.
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); give another --out") from None
    for number, line in enumerate(lines, 1):
        row = None
        with suppress(ValueError):
            row = json.loads(line)
        if isinstance(row, dict):
            yield number, row
        elif number < len(lines):
            raise DataError(
                f"{path}, line {number}: no answer of an earlier run ({line[:60]!r}); give another --out"
            )


def first_decisions(
    pool: Pool,
    agent: RoutingAgent | str | os.PathLike[str] | None,
    examples: Sequence[Example],
    context: DERContext | None = None,
) -> list[Decision]:
    """Whom each question would be asked first; nobody is asked.

    Args:
        pool: The experts.
        agent: Who decides; see `create_der_graph`.
        examples: The questions.
        context: Settings of every request.

    Returns:
        One decision a question.
    """
    rules, template = pool.rules, ktp_template(pool.settings.ktp)
    decider = Decider(agent_for_pool(find_agent(agent, pool), rules), rules, on_error="raise")
    unable = partial(unable_experts, list(pool), template)
    found = []
    for example in examples:
        history = history_for_experts(messages_of(example.history))
        task: Any = {"messages": history, "tail": [], "question": example.question, "route": []}
        situation = situation_of(
            rules,
            context or DERContext(),
            spent=0.0,
            elapsed=0.0,
            stickiness=0.0,
            question=example.question,
            conversation=conversation_text(history, example.question),
            answers=[],
            refused=[],
            unavailable=[],
            unable=unable(task),
            last_experts=[],
        )
        found.append(decider.decide(situation, {}))
    return found
