"""What Prometheus is told about the server.

Labels are names of the pool's experts and of keys, `der`, HTTP statuses, kinds of errors and the word
`unknown`: nothing that callers write, so the number of series is bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from der_graph.errors import require
from der_graph.nodes.parallel import HEDGE, PARALLEL
from der_graph.server.failures import kind_of

if TYPE_CHECKING:
    from der_graph.server.chat_replies import Outcome

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_MOST_KINDS = 40
_DECISION = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class Metrics:
    """Counters and histograms of one server, in a registry of their own."""

    def __init__(self) -> None:
        prometheus = require("prometheus_client", extra="serve", why="the server's metrics")
        self._prometheus = prometheus
        self.registry = prometheus.CollectorRegistry()
        counter, histogram = self._make(prometheus.Counter), self._make(prometheus.Histogram)
        gauge = self._make(prometheus.Gauge)
        self.requests = counter(
            "der_requests", "Chat completions, by model and HTTP status.", ["model", "status"]
        )
        self.seconds = histogram(
            "der_request_seconds", "Chat completions, end to end.", ["model"], buckets=_SECONDS
        )
        self.in_flight = gauge("der_requests_in_flight", "Chat completions being worked on.")
        self.ready = gauge("der_ready", "1 once experts and agent are loaded.")
        self.route_length = histogram(
            "der_route_length", "Calls of experts on a route.", ["model"], buckets=range(1, 11)
        )
        self.route_cost = counter(
            "der_route_cost", "Cost of all routes, in the pool's unit.", ["model"]
        )
        self.tokens = counter("der_tokens", "Tokens of all experts.", ["direction"])
        self.expert_seconds = histogram(
            "der_expert_seconds",
            "Calls of an expert, waiting included.",
            ["expert"],
            buckets=_SECONDS,
        )
        self.expert_errors = counter(
            "der_expert_errors", "Failed calls of an expert, by kind.", ["expert", "kind"]
        )
        self.key_requests = counter(
            "der_key_requests", "Requests of an API key.", ["key", "status"]
        )
        self.key_cost = counter("der_key_cost", "Cost of an API key's requests.", ["key"])
        self._kinds: set[str] = set()
        self.available = gauge(
            "der_expert_available",
            "0 while an expert is not asked, as it failed again.",
            ["expert"],
        )
        self.hung = gauge("der_expert_hung_calls", "Threads that calls hang in.", ["expert"])
        self.suspected = gauge(
            "der_expert_suspected",
            "1 while an expert agrees with the others far less than it used to.",
            ["expert"],
        )
        self.evidence = gauge(
            "der_expert_drift_evidence", "What speaks for an expert having become bad.", ["expert"]
        )
        self.agent_failures = counter(
            "der_agent_failures", "Decisions that a rule made, as the agent failed."
        )
        self.decision_seconds = histogram(
            "der_decision_seconds", "Decisions of the agent.", buckets=_DECISION
        )
        self.cache = counter(
            "der_cache_lookups", "Looks into the answer cache.", ["expert", "result"]
        )

    def _make(self, kind: Any) -> Any:
        def make(name: str, text: str, labels: Any = (), **more: Any) -> Any:
            return kind(name, text, labels, registry=self.registry, **more)

        return make

    def health(self, views: Mapping[str, Mapping[str, Any]]) -> None:
        """Note how the experts are: the view of each one's health, by name."""
        for name, view in views.items():
            self.available.labels(name).set(view["state"] == "closed")
            self.hung.labels(name).set(view["hung"])

    def drift(self, views: Mapping[str, Mapping[str, Any]]) -> None:
        """Note which experts have become bad: the view of a `DriftWatch`."""
        for name, view in views.items():
            self.suspected.labels(name).set(view["suspected"])
            self.evidence.labels(name).set(view["evidence"])

    def page(self) -> tuple[bytes, str]:
        """The page for Prometheus, and its content type."""
        prometheus = self._prometheus
        return prometheus.generate_latest(self.registry), prometheus.CONTENT_TYPE_LATEST

    def event(self, event: Mapping[str, Any]) -> None:
        """Note an event of a route."""
        if event["type"] == "der.decision":
            if event["reason"] not in (PARALLEL, HEDGE):  # decided with another one
                self.decision_seconds.observe(event["seconds"])
            if event["reason"] == "agent_failed":
                self.agent_failures.inc()
        elif event["type"] == "der.answer":
            self.expert_seconds.labels(event["expert"]).observe(event["seconds"])
            if event["error"] is not None:
                self.expert_errors.labels(event["expert"], self._kind(event["error"])).inc()

    def _kind(self, error: str) -> str:
        """The kind of an error; the names of exceptions are the libraries', so only so many become labels."""
        kind = kind_of(error)
        if kind not in self._kinds and len(self._kinds) >= _MOST_KINDS:
            return "other"
        self._kinds.add(kind)
        return kind

    def key(self, name: str, status: int, cost: float) -> None:
        """Note the end of a request that came with a key."""
        self.key_requests.labels(name, str(status)).inc()
        self.key_cost.labels(name).inc(cost)

    def outcome(self, model: str, outcome: Outcome) -> None:
        """Note the end of a route."""
        self.route_length.labels(model).observe(len(outcome.experts))
        self.route_cost.labels(model).inc(outcome.cost)
        self.tokens.labels("input").inc(outcome.usage["prompt_tokens"])
        self.tokens.labels("output").inc(outcome.usage["completion_tokens"])

    def request(self, model: str, status: int, seconds: float) -> None:
        """Note the end of a request."""
        self.requests.labels(model, str(status)).inc()
        if status < 400:
            self.seconds.labels(model).observe(seconds)

    def looked_up(self, expert: str, hit: bool) -> None:
        """Note a look into the answer cache."""
        self.cache.labels(expert, "hit" if hit else "miss").inc()
