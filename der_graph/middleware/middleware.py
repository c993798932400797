"""`DERMiddleware`: experts of a pool as the models of a LangChain agent, chosen call by call.

    create_agent(model, tools, middleware=[DERMiddleware(pool, agent=...)])

    one model call = one route:  decision ──> an expert acts ──┬──> its message
                                    ^                          │
                                    +── it failed, or a second opinion is asked for

The same rules and agents choose as in the graph. What a tool refused counts as a failed answer of the expert
that called it, so a route that recovers opens with that. Bounds hold for the whole run: from a question to
the answer that calls no tool. Needs LangChain; knows nothing of training.
"""

from __future__ import annotations

import os
import time
from asyncio import CancelledError
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any, Literal

from langchain.agents.middleware import (
    AgentMiddleware,
    AgentState,
    ModelRequest,
    ModelResponse,
)
from langchain.agents.middleware.types import ExtendedModelResponse, ModelCallResult
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig, ensure_config
from langchain_core.runnables.config import run_in_executor
from langgraph.errors import GraphBubbleUp
from langgraph.runtime import Runtime
from langgraph.types import Command

from der_graph.errors import (
    BudgetError,
    ExpertError,
    PoolError,
    QuestionError,
    ToolsNotSupportedError,
    is_number,
)
from der_graph.middleware.attempts import (
    Attempt,
    Given,
    InLoop,
    Route,
    advance,
    as_failure,
    carried_out,
    config_of,
    ended,
    marked_with,
)
from der_graph.middleware.loop import (
    ToolFailed,
    failed_rounds,
    read_loop,
    says_error,
    text_for_agent,
)
from der_graph.middleware.models import (
    PromptCache,
    acting_model,
    messages_to_check,
    sampling_of,
    with_cached_prices,
    with_system,
)
from der_graph.middleware.run import (
    AgentStep,
    Clock,
    DERAgentState,
    agent_step,
    calls_so_far,
    experts_of_last_call,
)
from der_graph.nodes.conversation import last_experts
from der_graph.nodes.decision import Decider, RoutingAgent, agent_for_pool, situation_of
from der_graph.nodes.expert import Expert
from der_graph.nodes.ktp import KTPTemplate, ktp_template
from der_graph.nodes.model_settings import (
    can_call_tools,
    inputs_known,
    inputs_needed,
    without_blocks,
)
from der_graph.nodes.providers.exits import no_exit
from der_graph.nodes.reliability.calls import acall_task, configured
from der_graph.nodes.reliability.deadline import Limit
from der_graph.nodes.reliability.threads import StreamClosedError
from der_graph.nodes.rules import RouteRules
from der_graph.nodes.tools import reads_tools, without_tools
from der_graph.policies.agent import find_agent
from der_graph.pool import Pool, as_pool
from der_graph.state import (
    END_CHOICE,
    Answer,
    Decision,
    DERContext,
    LoopState,
    as_context,
    blank_answer,
    good_answers,
)

_DEFAULT_STICKINESS = 0.05


class DERMiddleware(AgentMiddleware[AgentState[Any], Any, Any]):
    """Chooses, for each model call of a LangChain agent, which expert of a pool acts.

    Args:
        experts: A pool, or a list of chat models, model strings, functions and experts, in the order that the
            agent knows. Where tools are bound, only those that can call tools are asked.
        agent: Chooses: `load_agent(...)`, its name, any other routing agent, or `"planner"`, which needs no
            training. Where left out, the agent that the pool file names, else the planner.
        bounds: Budget, deadline and whom to ask where the run's own context says nothing, as a `DERContext`
            or a dict; `max_cost` and `deadline` hold for the whole run, tools included.
        max_steps: Most experts that answer one model call; calls that fail are not counted. The pool's
            setting where left out, or 4.
        second_opinion: May the routing agent ask another expert about a message before it is used? That one
            gets it by the Knowledge Transfer Prompt, and what it says is used.
        ktp: Template of that prompt; the pool's setting where left out.
        stickiness: The expert of the last model call acts again if its probability is at most this much
            below the best.
        cached_prices: By expert, the price per million input tokens that its provider has cached, in the
            pool's unit, in place of the one in its `token_prices`. The last expert then goes on where that
            makes it the cheaper one; see `PromptCache.keeps`.
        tool_failed: Says whether a tool's result is a failure; its `status` where left out.
        on_error: `continue`: where an expert fails, another is asked; `raise`: its error goes to the
            middleware around this one, such as LangChain's retries and fallbacks.
        exit_behavior: Where budget or time do not suffice for another call of a run that has begun: `end` it
            with a message that says so, or raise `BudgetError` (`error`).

    Raises:
        PoolError: If there is no expert, a name is used twice, or a setting cannot be used.
        AgentPoolMismatchError: If the agent was trained for other experts.

    Examples:
        ```python
        from langchain.agents import create_agent

        der = DERMiddleware(load_pool("pool.yaml"), agent=load_agent("runs/agent"))
        agent = create_agent(der.model, tools=[search, book], middleware=[der])
        agent.invoke({"messages": [("user", "Book a quiet room for two.")]})["der_route"]
        ```
    """

    # Of a subclass: lists of several middleware type-check only by the base.
    state_schema = DERAgentState

    def __init__(
        self,
        experts: Pool | Sequence[Any],
        *,
        agent: RoutingAgent | str | os.PathLike[str] | None = None,
        bounds: DERContext | Mapping[str, Any] | None = None,
        max_steps: int | None = None,
        second_opinion: bool = False,
        ktp: str | KTPTemplate | None = None,
        stickiness: float = _DEFAULT_STICKINESS,
        cached_prices: Mapping[str, float] | None = None,
        tool_failed: ToolFailed = says_error,
        on_error: Literal["continue", "raise"] = "continue",
        exit_behavior: Literal["end", "error"] = "end",
    ) -> None:
        super().__init__()
        pool = as_pool(experts)
        settings = pool.settings
        if on_error not in ("continue", "raise"):
            raise PoolError(f"on_error is {on_error!r}; allowed: 'continue', 'raise'")
        if exit_behavior not in ("end", "error"):
            raise PoolError(f"exit_behavior is {exit_behavior!r}; allowed: 'end', 'error'")
        if not callable(tool_failed):
            raise PoolError(
                f"tool_failed is {tool_failed!r}; it must be a function of a tool's result"
            )
        if not is_number(stickiness) or not 0 <= stickiness <= 1:
            raise PoolError(f"stickiness is {stickiness!r}; it must be from 0 to 1")
        members = with_cached_prices(list(pool), cached_prices or {})
        self._experts = {expert.name: expert for expert in members}
        self._rules = RouteRules.of(
            members,
            max_steps=max_steps or settings.max_steps,
            cost_unit=settings.cost_unit
            if isinstance(experts, Pool)
            else "",  # a list does not say
        )
        self._agent = agent_for_pool(find_agent(agent, pool), self._rules)
        self._bounds = _bounds_of(bounds)
        sampling_of(self._bounds)
        self._second_opinion = second_opinion
        self._ktp = ktp_template(ktp or settings.ktp)
        self._stickiness = stickiness
        self._cache = PromptCache(members, cached_prices or ())
        self._tool_failed = tool_failed
        self._on_error = on_error
        self._exit_behavior = exit_behavior
        self._callers = frozenset(e.name for e in members if can_call_tools(e.model))
        self._clock = Clock()
        # States of model calls that no expert could answer, with the model that they came with.
        self._given_up: deque[tuple[Any, BaseChatModel]] = deque(maxlen=32)

    @property
    def model(self) -> BaseChatModel:
        """A model to create the agent with. It is replaced in every call, whichever it is."""
        callers = [e for e in self._experts.values() if e.name in self._callers]
        first = (callers or list(self._experts.values()))[0]
        return first.model if isinstance(first.model, BaseChatModel) else acting_model(first)

    def before_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any]:
        """Open a run."""
        self._clock.mark(runtime)
        return {
            "der_route": [],
            "der_cost": 0.0,
            "der_elapsed": 0.0,
            "der_question": text_for_agent(state["messages"]),
        }

    async def abefore_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any]:
        """Open a run."""
        return self.before_agent(state, runtime)

    def wrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], ModelResponse[Any]],
    ) -> ModelCallResult[Any]:
        """Choose who acts, and let it act.

        Raises:
            ToolsNotSupportedError: If tools are bound and no expert can call them.
            QuestionError: If nobody who could act reads the pictures or files of the question.
            BudgetError: If the bounds leave no expert at first; any time with `exit_behavior="error"`.
            AllExpertsFailedError: If every expert that could be asked failed.
        """
        if self._is_fallback(request):
            return handler(request)
        route = self._route(request)
        with ended(route):
            step = advance(route, None)
            while isinstance(step, Attempt):
                start = time.perf_counter()
                given: ModelResponse[Any] | Exception
                try:
                    with no_exit(), configured(step.config):
                        given = handler(step.request)
                except (GraphBubbleUp, StreamClosedError):
                    raise
                except (Exception, CancelledError) as error:
                    given = as_failure(error)
                step = advance(route, Given(given, time.perf_counter() - start))
            return step.result

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelCallResult[Any]:
        """As `wrap_model_call`; a call that is still running at the deadline is given up."""
        if self._is_fallback(request):
            return await handler(request)
        route = self._route(request)
        with ended(route):
            step = await run_in_executor(None, advance, route, None)
            while isinstance(step, Attempt):
                start = time.perf_counter()
                given: ModelResponse[Any] | Exception
                try:
                    with configured(step.config):
                        work = partial(handler, step.request)
                        given = await acall_task(work, None, Limit(step.time_left, True))
                    if isinstance(given, BaseException):
                        given = as_failure(given)
                except GraphBubbleUp:
                    raise
                except Exception as error:
                    given = error
                done = Given(given, time.perf_counter() - start)
                step = await run_in_executor(None, advance, route, done)
            return step.result

    def _route(self, request: ModelRequest[Any]) -> Route:
        """One model call as a route: asks for attempts, and returns what the call gives."""
        state: Any = request.state
        config = ensure_config()
        run: list[AgentStep] = list(state.get("der_route") or [])
        spent = before = float(state.get("der_cost") or 0.0)
        start, elapsed = time.monotonic(), self._clock.read(request.runtime, state)
        context = self._context(request)
        sampling = sampling_of(context)
        loop = read_loop(request.messages, calls_so_far(run), self._tool_failed)
        unable = self._unable(request)
        refused = self._refused(request, context, unable)
        asked: list[Answer] = []
        steps: list[AgentStep] = []
        response: ModelResponse[Any] | None = None
        used: Answer | None = None
        while True:
            situation = self._situation(
                request, context, run, loop, [*refused, *asked], unable,
                spent=spent, elapsed=elapsed + time.monotonic() - start,
            )  # fmt: skip
            try:
                decision = self._decide(situation, loop, request, run, len(refused), config)
            except BudgetError as error:
                if not run or self._exit_behavior == "error":
                    raise
                response = ModelResponse(result=[AIMessage(f"The run was ended: {error}")])
                break
            except (ExpertError, QuestionError, ToolsNotSupportedError):
                if response is None:
                    self._given_up.append((request.state, request.model))
                    raise
                break  # all that came is a message without words, as some models end their runs
            _emit(request, "der.decision", decision)
            if decision["choice"] == END_CHOICE:
                steps.append(agent_step(decision, None, loop))
                break
            expert = self._experts[decision["choice"]]
            draft = self._second_opinion and len(asked) + 1 < self._rules.steps(context.max_steps)
            attempt = Attempt(
                self._request_to(expert, request, asked, context, sampling),
                config_of(config, expert, len(steps), draft=draft),
                situation["time_left"],
            )
            given, answer = yield from carried_out(
                attempt,
                expert,
                insist=sum(decision["mask"].values()) == 1  # nobody else
                or expert.name in situation["unavailable"],
                settings=sampling,
            )
            spent += answer["cost"]
            asked.append(answer)
            steps.append(agent_step(decision, answer, loop))
            _emit(request, "der.answer", {"step": decision["step"], **answer})
            if isinstance(given.result, ModelResponse):
                # What says nothing takes the place of no message that says something.
                if answer["error"] is None or not good_answers(asked):
                    response, used = given.result, answer
                if answer["error"] is None and not self._second_opinion:
                    break
            elif self._on_error == "raise":
                self._given_up.append((request.state, request.model))
                raise given.result
        elapsed += time.monotonic() - start
        self._clock.mark(request.runtime)
        assert response is not None  # the rules allow END only once there is an answer
        update = {"der_route": [*run, *steps], "der_cost": spent, "der_elapsed": elapsed}
        # Whose message is used stands last; `expert_of` goes by it.
        order = [*(a for a in asked if a is not used), *([] if used is None else [used])]
        names = [answer["expert"] for answer in order]
        return ExtendedModelResponse(
            marked_with(response, names, spent - before), Command(update=update)
        )

    def _situation(
        self,
        request: ModelRequest[Any],
        context: DERContext,
        run: Sequence[AgentStep],
        loop: LoopState,
        answers: list[Answer],
        unable: Mapping[str, str],
        *,
        spent: float,
        elapsed: float,
    ) -> dict[str, Any]:
        """What there is to decide."""
        state: Any = request.state
        question = state.get("der_question") or ""
        return situation_of(
            self._rules,
            context,
            question=question,
            conversation=question or text_for_agent(request.messages),
            answers=answers,
            spent=spent,
            elapsed=elapsed,
            refused=[],
            unavailable=self._unavailable(),
            unable=unable,
            last_experts=experts_of_last_call(run) or last_experts(request.messages),
            stickiness=self._stickiness,
            loop=vars(loop),
        )

    def _decide(
        self,
        situation: dict[str, Any],
        loop: LoopState,
        request: ModelRequest[Any],
        run: Sequence[AgentStep],
        refused: int,
        config: RunnableConfig,
    ) -> Decision:
        answers, context = situation["answers"], situation["context"]
        # A route that takes no second opinion ends with its first good answer, and the agent should know it.
        steps = self._rules.steps(context.max_steps)
        if not self._second_opinion:
            steps = min(steps, len(answers) - refused + 1)
        rules = replace(self._rules, max_steps=refused + steps)
        own = {**situation, "context": replace(context, max_steps=None)}
        decision = Decider(InLoop(self._agent, loop), rules).decide(own, config)
        last = loop.last_expert
        if last is None or answers or not decision["mask"].get(last):
            return decision
        earlier = [step["answer"] for step in run if step["answer"] is not None]
        if self._cache.keeps(last, decision["choice"], request.messages, earlier):
            decision["choice"], decision["reason"] = last, "prompt_cache"
        return decision

    def _unavailable(self) -> list[str]:
        """Experts that fail again and again; see `nodes/reliability/breaker.py`."""
        return sorted(n for n, e in self._experts.items() if not e.health.breaker.allows())

    def _unable(self, request: ModelRequest[Any]) -> dict[str, str]:
        """Experts that cannot act in this call, and why.

        They cannot call tools, are known not to read what the question holds beside its text, or read no
        conversation of this length.
        """
        acts = bool(request.tools) or request.response_format is not None
        asked = [m for m in request.messages if isinstance(m, HumanMessage)]
        wants = inputs_needed(asked[-1:])
        unable = {}
        for name, expert in self._experts.items():
            if acts and name not in self._callers:
                unable[name] = "no_tools"
            elif wants - expert.reads and inputs_known(expert.model):
                unable[name] = "no_inputs"
            else:
                system = with_system(expert.system, request.system_message)
                read = [*([system] if system else []), *_conversation(expert, request)]
                if not expert.can_read(read):
                    unable[name] = "context_length"
        return unable

    def _context(self, request: ModelRequest[Any]) -> DERContext:
        """The bounds of the run."""
        asked = as_context(request.runtime.context if request.runtime else None)
        own = {f.name: getattr(asked, f.name) for f in fields(DERContext)}
        given = {k: getattr(self._bounds, k) if v is None else v for k, v in own.items()}
        return DERContext(**given)

    def _refused(
        self, request: ModelRequest[Any], context: DERContext, unable: Mapping[str, str]
    ) -> list[Answer]:
        """Failed answers of those whose tool calls have just failed, if a dearer expert may be asked instead.

        Otherwise none: who knows most sees what went wrong, and tries again.
        """
        errors = {
            round_.expert: round_.error
            for round_ in reversed(failed_rounds(request.messages, self._tool_failed))
            if round_.expert in self._experts
        }
        # Their cost and time are counted already.
        refused = [blank_answer(e, error=why) for e, why in errors.items() if e is not None]
        if not refused:
            return []
        prices = self._rules.prices
        dearest = max(prices[answer["expert"]] for answer in refused)
        state: Any = request.state
        spent = state.get("der_cost") or 0.0
        rules = replace(self._rules, max_steps=len(refused) + 1)
        try:
            mask, _ = rules.mask(
                refused, replace(context, max_steps=None), spent=spent, unable=unable
            )
        except ExpertError:
            return []
        dearer = (free and prices[name] > dearest for name, free in zip(prices, mask, strict=False))
        return refused if any(dearer) else []

    def _request_to(
        self,
        expert: Expert,
        request: ModelRequest[Any],
        drafts: Sequence[Answer],
        context: DERContext,
        sampling: Mapping[str, Any],
    ) -> ModelRequest[Any]:
        messages: Any = _conversation(expert, request)
        alone = expert.name in getattr(self._agent, "alone", ())
        if any(draft["error"] is None for draft in drafts) and not alone:
            template = ktp_template(context.ktp) if context.ktp else self._ktp
            messages = messages_to_check(messages, drafts, expert.ktp or template)
        if inputs_known(expert.model):
            messages = without_blocks(messages, expert.reads)
        return request.override(
            model=acting_model(expert, sampling),
            messages=messages,
            system_message=with_system(expert.system, request.system_message),
        )

    def _is_fallback(self, request: ModelRequest[Any]) -> bool:
        """Has a middleware around this one put in another model, as no expert could answer?"""
        return any(
            state is request.state and model is not request.model for state, model in self._given_up
        )


def _conversation(expert: Expert, request: ModelRequest[Any]) -> Sequence[BaseMessage]:
    """The conversation as far as an expert reads it: models of text alone get no calls of tools."""
    messages = request.messages
    return messages if reads_tools(expert.model) else without_tools(messages)


def _emit(request: ModelRequest[Any], kind: str, content: Mapping[str, Any]) -> None:
    if request.runtime:
        request.runtime.stream_writer({"type": kind, **content})


def _bounds_of(given: DERContext | Mapping[str, Any] | None) -> DERContext:
    if isinstance(given, Mapping):
        return DERContext(**given)  # which refuses names that it does not have
    if not isinstance(given, (DERContext, type(None))):
        raise PoolError(f"bounds is {given!r}; it must be a DERContext, or a dict with its fields")
    return given or DERContext()
