"""A customer-support chatbot: a conversation with history, over cheap and dear experts, within a budget.

Run it with `python examples/support_chatbot.py`, or with `--chat` to type the questions yourself. The
experts are functions here, so that it runs anywhere; any chat model goes in their place (see `own_pool.py`).
The agent is a router that learns from a few labelled questions, and needs scikit-learn.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.checkpoint.memory import InMemorySaver

from der_graph import create_der_graph
from der_graph.errors import BudgetError
from der_graph.nodes.langchain import as_expert
from der_graph.policies.baselines import OneShotRouter
from der_graph.policies.baselines.routers import Neighbours
from der_graph.policies.observation import SentenceEncoder, TextEncoder
from der_graph.pool import Pool, pool_from

ORDERS = {"1234": ("on its way", "Tuesday"), "5678": ("being packed", "Friday")}
FAQ = {
    "open": "The shop is open from 9 to 18.",
    "ship": "We ship to all of Europe.",
    "pay": "You can pay by card or by invoice.",
}

LABELLED = {
    "faq": [
        "When do you open?", "What are your opening hours?", "Do you ship to France?", "How can I pay?",
        "Can I pay by invoice?", "Are you open on Sunday?",
    ],
    "orders": [
        "Where is my order 5678?", "When will my order arrive?", "Has order 1234 been sent?",
        "What about order 5678?", "I am waiting for order 1234.", "Has my parcel left?",
    ],
    "specialist": [
        "The kettle is broken, I want my money back.", "I want to complain about a broken lamp.",
        "You charged me twice and I want my money back.", "My parcel came broken, who pays?",
        "This does not work, give me a refund.", "I am very unhappy with your service.",
    ],
}  # fmt: skip


def faq(question: str) -> str:
    """Knows the opening hours and the like."""
    return next(
        (answer for word, answer in FAQ.items() if word in question.lower()), "See our website."
    )


def orders(messages: list[BaseMessage]) -> str:
    """Looks orders up. The number may have been said earlier in the conversation."""
    numbers = re.findall(r"\b\d{4}\b", " ".join(m.text for m in messages if m.type == "human"))
    if not numbers or numbers[-1] not in ORDERS:
        return "Which order number is it?"
    state, day = ORDERS[numbers[-1]]
    if "when" in messages[-1].text.lower():
        return f"Order {numbers[-1]} arrives on {day}."
    return f"Order {numbers[-1]} is {state}."


def specialist(question: str) -> str:
    """Dear: in real life the largest model, or a person."""
    return "I am sorry about that. You get your money back today."


class Chatbot:
    """One customer's conversation.

    Args:
        budget: What the whole conversation may cost.
        encoder: Turns questions into vectors; a small sentence encoder if left out.
    """

    def __init__(self, budget: float = 20.0, encoder: TextEncoder | None = None) -> None:
        pool: Pool = pool_from(
            [
                as_expert(faq, name="faq", cost=0.1, ktp="none"),
                as_expert(orders, name="orders", cost=0.5, ktp="none"),
                as_expert(specialist, name="specialist", cost=8.0, ktp="none"),
            ]
        )
        labelled = [(question, expert) for expert, rows in LABELLED.items() for question in rows]
        agent = OneShotRouter(
            pool.names, pool.rules.costs, encoder or SentenceEncoder(), Neighbours(k=3)
        ).fit(
            [question for question, _ in labelled],
            [[float(name == expert) for name in pool.names] for _, expert in labelled],
        )
        self.left = budget
        # With a checkpointer the thread remembers the conversation; the agent reads a follow-up with it.
        self._app = create_der_graph(pool, agent=agent).compile(checkpointer=InMemorySaver())

    def say(self, text: str) -> tuple[str, list[str]]:
        """Answer one message of the customer; gives the answer, and who was asked."""
        config: Any = {"configurable": {"thread_id": "customer-1"}}
        try:
            state = self._app.invoke(
                {"messages": [("user", text)]}, config, context={"max_cost": self.left}
            )
        except BudgetError:
            return "A colleague will write to you.", []
        self.left -= state["cost"]
        return state["answer"], [step["choice"] for step in state["route"][:-1]]


def main(questions: Iterable[str] | None = None, encoder: TextEncoder | None = None) -> list[str]:
    """Hold a conversation; returns the experts that answered."""
    bot = Chatbot(encoder=encoder)
    asked: list[str] = []
    for question in questions or (
        "When do you open?",
        "Where is my order 1234?",
        "And when will it arrive?",
        "It came broken, I want my money back.",
    ):
        answer, experts = bot.say(question)
        asked += experts
        print(f"> {question}\n  {answer}  ({', '.join(experts) or 'nobody'}; {bot.left:.1f} left)")
    return asked


if __name__ == "__main__":
    main(iter(lambda: input("you: "), "") if "--chat" in sys.argv else None)
