"""The best fixed orders of a world: the same experts in the same order for every question, with transfer."""

from __future__ import annotations

from collections.abc import Sequence

from .world import Question, Said, World

Order = tuple[str, ...]


def best_orders(
    world: World, questions: Sequence[Question], prices: Sequence[float]
) -> list[Order]:
    """Try every order on training questions, as the training's judge sees them.

    Of experts that are alike only the cheapest is tried.

    Args:
        world: Where the experts answer.
        questions: The training questions.
        prices: Of cost.

    Returns:
        The order worth most at each price.
    """
    cheapest: dict[str, str] = {}
    for name in sorted(world.names, key=world.costs.__getitem__):
        cheapest.setdefault(world.model(name), name)
    found: list[tuple[Order, float]] = []

    def extend(order: Order, shown: Sequence[Said | None]) -> None:
        for name in cheapest.values():
            if name not in order:
                asked = list(zip(questions, shown, strict=True))
                said = [world.say(question.text, name, earlier) for question, earlier in asked]
                judged = [world.judged(q.text, s) for q, s in zip(questions, said, strict=True)]
                found.append(((*order, name), sum(judged) / len(judged)))
                if len(order) + 1 < world.max_steps:
                    extend((*order, name), said)

    extend((), [None] * len(questions))
    shares = [sum(world.costs[name] for name in order) / world.total for order, _ in found]
    return [
        max(zip(found, shares, strict=True), key=lambda each: each[0][1] - price * each[1])[0][0]
        for price in prices
    ]
