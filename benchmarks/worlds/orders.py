"""Fixed orders: the same experts in the same order for every question, each shown the answer before."""

from __future__ import annotations

from collections.abc import Sequence

from .world import Question, Said, World

Order = tuple[str, ...]


def in_order(world: World, order: Order, questions: Sequence[Question]) -> list[Said]:
    """The last answer to each question."""
    said: list[Said | None] = [None] * len(questions)
    for name in order:
        said = [world.say(q.text, name, shown) for q, shown in zip(questions, said, strict=True)]
    return [answer for answer in said if answer]


def best_orders(
    world: World, questions: Sequence[Question], prices: Sequence[float]
) -> dict[float, Order]:
    """Try every order on training questions, as the training's judge sees them.

    Of experts that are alike only the cheapest is tried.

    Returns:
        The order worth most at each price.
    """
    cheapest: dict[str, str] = {}
    for name in sorted(world.names, key=world.costs.__getitem__):
        cheapest.setdefault(world.model(name), name)
    found: dict[Order, float] = {}

    def extend(order: Order, shown: Sequence[Said | None]) -> None:
        for name in set(cheapest.values()) - set(order):
            pairs = list(zip(questions, shown, strict=True))
            said = [world.say(question.text, name, earlier) for question, earlier in pairs]
            judged = [world.judged(q.text, s) for q, s in zip(questions, said, strict=True)]
            found[(*order, name)] = sum(judged) / len(judged)
            if len(order) + 1 < world.max_steps:
                extend((*order, name), said)

    extend((), [None] * len(questions))
    share = {order: sum(world.costs[name] for name in order) / world.total for order in found}
    return {p: max(found, key=lambda order: found[order] - p * share[order]) for p in prices}
