"""How an agent should read a follow-up question: five ways, judged by a router on twenty conversations.

    python benchmarks/follow_ups.py

A router learns from single questions of five kinds, by the shipped sentence encoder, and is then asked
follow-ups: ones that mean nothing alone, and ones that change the subject. Counts how many are put into the
right kind. `conversation_text` is the way that the graph uses.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from der_graph.nodes.conversation import conversation_text
from der_graph.policies.baselines.routers import Logistic, Neighbours
from der_graph.policies.observation import SentenceEncoder

KINDS = {
    "faq": [
        "When do you open?", "What are your opening hours?", "Do you ship to France?", "How can I pay?",
        "Can I pay by invoice?", "Are you open on Sunday?",
    ],
    "orders": [
        "Where is my order 5678?", "When will my order arrive?", "Has order 1234 been sent?",
        "What about order 5678?", "I am waiting for order 1234.", "Has my parcel left?",
    ],
    "complaints": [
        "The kettle is broken, I want my money back.", "I want to complain about a broken lamp.",
        "You charged me twice and I want my money back.", "My parcel came broken, who pays?",
        "This does not work, give me a refund.", "I am very unhappy with your service.",
    ],
    "sums": [
        "What is 37 * 4?", "Add 12 and 30.", "How much is 15 percent of 80?",
        "A box holds 12 eggs. How many eggs are in 7 boxes?", "What is half of 90?",
    ],
    "places": [
        "What is the capital of France?", "Which river flows through Vienna?", "How high is Mont Blanc?",
        "Where is Peru?", "Which country is larger, Spain or Italy?",
    ],
}  # fmt: skip

_HOURS = ("When do you open?", "The shop is open from 9 to 18.")
_ORDER = ("Where is my order 1234?", "Order 1234 is on its way.")
_WHEN = ("And when will it arrive?", "Order 1234 arrives on Tuesday.")
_LAMP = ("The lamp is broken and I want a refund.", "I am sorry. You get your money back today.")
_SUM = ("What is 37 * 4?", "148")
_TWICE = ("And twice that?", "296")
_PERU = ("What is the capital of Peru?", "Lima")
_CHILE = ("And of Chile?", "Santiago")
_BOOKS = ("A shelf holds 9 books. How many are on 4 shelves?", "36")
_SEINE = ("Which river flows through Paris?", "The Seine.")
_THAMES = ("And through London?", "The Thames.")

CASES: list[tuple[list[tuple[str, str]], str, str]] = [
    ([], "When do you open?", "faq"),
    ([_HOURS], "Where is my order 1234?", "orders"),
    ([_HOURS, _ORDER], "And when will it arrive?", "orders"),
    ([_ORDER, _WHEN], "It came broken, I want my money back.", "complaints"),
    ([_ORDER], "And the other one?", "orders"),
    ([_ORDER], "How can I pay for it?", "faq"),
    ([("Do you ship to France?", "We ship to all of Europe.")], "And to Spain?", "faq"),
    ([_LAMP], "When exactly?", "complaints"),
    ([_LAMP], "Thanks. Are you open tomorrow?", "faq"),
    ([_HOURS], "And on Sunday?", "faq"),
    ([_SUM], "And twice that?", "sums"),
    ([_SUM, _TWICE], "Minus 50?", "sums"),
    ([_SUM, _TWICE], "What is the capital of Peru?", "places"),
    ([_PERU], "And of Chile?", "places"),
    ([_PERU, _CHILE], "How many people live there?", "places"),
    ([_PERU, _CHILE], "A shelf holds 9 books. How many are on 4 shelves?", "sums"),
    ([_BOOKS], "And on 6?", "sums"),
    ([_BOOKS], "Which river flows through Paris?", "places"),
    ([_SEINE], "And through London?", "places"),
    ([_SEINE, _THAMES], "Thanks! Where is my parcel?", "orders"),
]

Way = Callable[[list[tuple[str, str]], str], str]


def in_the_graph(turns: list[tuple[str, str]], question: str) -> str:
    """What the graph does."""
    messages: list[BaseMessage] = []
    for human, answer in turns:
        messages += [HumanMessage(human), AIMessage(answer)]
    return conversation_text(messages, question)


def said(turns: list[tuple[str, str]], count: int, *more: str) -> str:
    """The last human turns, and more, a line each."""
    return "\n".join([*(human for human, _ in turns[-count:]), *more])


WAYS: dict[str, Way] = {
    "the question alone": lambda turns, question: question,
    "the turn before, the question": lambda turns, question: said(turns, 1, question),
    "two turns before, the question": lambda turns, question: said(turns, 2, question),
    "two turns, the last answer, the question": lambda turns, question: said(
        turns, 2, *(answer for _, answer in turns[-1:]), question
    ),
    "conversation_text": in_the_graph,
}


def main() -> None:
    """Print how many of the cases each way gets right, by each kind of router."""
    encoder, kinds = SentenceEncoder(), list(KINDS)
    labelled = [(question, kind) for kind, questions in KINDS.items() for question in questions]
    known = encoder.encode([question for question, _ in labelled]).astype(np.float64)
    labels = np.array([[float(kind == each) for each in kinds] for _, kind in labelled])
    wanted = [kinds.index(kind) for _, _, kind in CASES]
    for name, way in WAYS.items():
        vectors = encoder.encode([way(turns, question) for turns, question, _ in CASES])
        right = []
        for router in (Neighbours(k=3), Logistic()):
            router.fit(known, labels)
            guesses = router.predict(vectors.astype(np.float64)).argmax(axis=1).tolist()
            right.append(sum(a == b for a, b in zip(guesses, wanted, strict=True)))
        print(
            f"{name:<42} nearest neighbours {right[0]:>2}, logistic {right[1]:>2} of {len(CASES)}"
        )


if __name__ == "__main__":
    main()
