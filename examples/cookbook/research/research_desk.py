"""Experts of a research assistant: programs that stand for a search engine and three models.

The lakes are invented, so that nobody knows them without the documents.
"""

from __future__ import annotations

import re
import zlib
from typing import NamedTuple

UNKNOWN = "I do not know."


class Lake(NamedTuple):
    """What a document says of a lake."""

    depth: int
    area: int
    surveyed: int
    river: str


_NAMES = (
    "Aldra Belna Corvi Dusk Elva Farn Gorrel Hesta Irmin Jorva Kelda Lomra Mirna Norva Ostra Pelda Quill "
    "Rensa Sorrel Tamra Ulva Vensa Wyra Yolda"
).split()
_RIVERS = ("Sarn", "Teel", "Orle", "Wend", "Isk", "Marl")
LAKES = {
    name: Lake(18 + 29 * i % 211, 3 + 17 * i % 97, 1841 + 13 * i % 160, _RIVERS[i * 5 % 6])
    for i, name in enumerate(_NAMES)
}


def passage(name: str) -> str:
    """The document about a lake."""
    lake = LAKES[name]
    return (
        f"Lake {name} lies in the northern uplands, where winters are long and the shores are "
        f"mostly forest. Its greatest depth is {lake.depth} metres, its surface covers {lake.area} "
        f"square kilometres, and it was first surveyed in {lake.surveyed}. The water leaves the "
        f"lake by the river {lake.river}, on which timber was floated to the coast."
    )


def named(text: str) -> list[str]:
    """The lakes that a text names, each once."""
    return [name for name in dict.fromkeys(re.findall(r"[A-Z][a-z]+", text)) if name in LAKES]


def search(question: str) -> str:
    """The passages about the lakes that the question names."""
    return " ".join(map(passage, named(question))) or UNKNOWN


def _read(text: str) -> dict[str, Lake]:
    pattern = (
        r"Lake (\w+) lies.*?depth is (\d+) metres, its surface covers (\d+) .*?surveyed in (\d+)\. "
        r".*?river (\w+),"
    )
    return {
        name: Lake(int(depth), int(area), int(year), river)
        for name, depth, area, year, river in re.findall(pattern, text, re.DOTALL)
    }


def _fact(question: str, lake: Lake) -> str:
    for word, fact in (
        ("river", lake.river), ("surveyed", lake.surveyed), ("large", lake.area), ("deep", lake.depth),
    ):  # fmt: skip
        if word in question:
            return str(fact)
    return UNKNOWN


def reader(question: str) -> str:
    """One fact, from the first passage that it is shown."""
    lakes = _read(question)
    asked = question.split("\n")[0]
    return _fact(asked, next(iter(lakes.values()))) if lakes else UNKNOWN


def analyst(question: str) -> str:
    """A fact or a comparison, from the passages that it is shown."""
    return _reasoned(question.split("\n")[0], _read(question))


def _reasoned(asked: str, lakes: dict[str, Lake]) -> str:
    wanted = [lakes[name] for name in named(asked) if name in lakes]
    if not wanted:
        return UNKNOWN
    if len(wanted) == 1:
        return _fact(asked, wanted[0])
    first, second = wanted[:2]
    if "deeper" in asked:
        return str(first.depth - second.depth)
    if "together" in asked:
        return str(first.area + second.area)
    return str(abs(first.surveyed - second.surveyed))


def frontier(question: str) -> str:
    """Does everything by itself, and is wrong on one question in twenty."""
    asked = question.split("\n")[0]
    if zlib.crc32(asked.encode()) % 20 == 0:
        return UNKNOWN
    return _reasoned(asked, {name: LAKES[name] for name in named(asked)})
