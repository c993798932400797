"""Experts of a plant shop's support desk: programs that stand for a search, a tool, a model, a person."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

UNKNOWN = "I do not know."
PAGES = {
    "open opening close hours time sunday": "We are open from 9 to 18, on Sundays from 11 to 16.",
    "shipping postage delivery charge costs ship": "Shipping is 4.90 euros.",
    "free threshold spend": "Shipping is free from 60 euros.",
    "return returns send back days": "You have 30 days to return a plant.",
    "pay payment card paypal invoice": "We take cards, PayPal and invoices.",
    "gift voucher card valid expire": "Vouchers are valid for 3 years.",
    "repot pot soil change": "Repot every 2 years, in spring.",
    "water watering often": "Water once the top 2 cm of soil are dry.",
    "warranty guarantee dies dead": "Plants have a guarantee of 60 days.",
    "newsletter unsubscribe mail": "Use the link at the end of each newsletter.",
    "country abroad switzerland austria ship": "We ship to Germany, Austria and the Netherlands.",
    "phone number call telephone": "Call us at 0711 555 0199.",
}  # fmt: skip


class Order(NamedTuple):
    """What the shop's system knows of an order."""

    state: str
    total: float
    days: int
    """Since it was delivered; 0 before."""
    potted: bool
    """A plant that was repotted is paid back by half."""


ORDERS = {
    f"F{1000 + 37 * i}": Order(
        ("packed", "shipped", "delivered", "delivered")[i % 4],
        round(12.5 + 7.35 * (i % 23), 2),
        (5 + 11 * i) % 70 if i % 4 > 1 else 0,
        i % 3 == 0,
    )
    for i in range(80)
}


def refund_of(order: Order) -> float:
    """All within 30 days, half of it for what was repotted; nothing later or before it was delivered."""
    if order.state != "delivered" or order.days > 30:
        return 0.0
    return round(order.total / 2 if order.potted else order.total, 2)


def faq(question: str) -> str:
    """The help page that shares most words with the question."""
    words = set(re.findall(r"[a-z]+", question.lower()))
    shared = {page: len(words & set(page.split())) for page in PAGES}
    best = max(PAGES, key=shared.__getitem__)
    return PAGES[best] if shared[best] else UNKNOWN


def orders(question: str) -> str:
    """The record of the order that is named."""
    number = re.search(r"F\d{4}", question)
    order = ORDERS.get(number[0]) if number else None
    if number is None or order is None:
        return UNKNOWN
    state, total, days, potted = order
    since = f", {days} days ago" if days else ""
    return f"Order {number[0]} is {state}{since}; {total:.2f} euros, {'repotted' if potted else 'as it was'}."


def refunds(question: str) -> str:
    """The amount to pay back, from the record that another expert has found."""
    found = re.search(
        r"is (\w+)(?:, (\d+) days ago)?; ([\d.]+) euros, (repotted|as it was)", question
    )
    if found is None:
        return UNKNOWN
    state, days, total, potted = found.groups()
    order = Order(state, float(total), int(days or 0), potted == "repotted")
    return f"{refund_of(order):.2f} euros"


@cache
def _solved() -> dict[str, str]:
    rows = [
        json.loads(line)
        for name in ("train", "test")
        for line in (Path(__file__).parent / f"{name}.jsonl").read_text().splitlines()
    ]
    return {row["question"]: row["answer"] for row in rows}


def person(question: str) -> str:
    """Somebody who knows everything: here, whoever wrote the questions."""
    asked = next((text for text in _solved() if question.startswith(text)), None)
    return UNKNOWN if asked is None else _solved()[asked]
