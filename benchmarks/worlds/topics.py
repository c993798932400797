"""What the questions of the worlds are about: templates by topic, told apart by their words alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Topics = Mapping[str, Sequence[str]]
"""Templates by topic; `{a}`, `{b}` and `{c}` are numbers."""

FIELDS: Topics = {
    "code": (
        "Which exit status does script {a} return when test suite {b} fails on branch {c}?",
        "At which line does the compiler stop in source file {a}, revision {b}, target {c}?",
    ),
    "law": (
        "Which section of the lease act governs clause {a} of agreement {b}, court file {c}?",
        "How many days may the defendant appeal under article {a} in case {b}-{c}?",
    ),
    "medicine": (
        "How many milligrams of drug {a} should a patient of {b} kilograms on ward {c} get?",
        "After how many days does the surgeon remove suture type {a} at age {b}, chart {c}?",
    ),
    "mathematics": (
        "What is the determinant of matrix {a} in exercise {b} of algebra sheet {c}?",
        "Find the remainder of {a} to the power of {b} modulo {c}.",
    ),
    "travel": (
        "From which gate does flight {a} to airport {b} board at hour {c}?",
        "What does room {a} of the beach hotel cost for {b} nights in season {c}?",
    ),
}
"""Five fields of knowledge."""

CALCULATION: Topics = {
    "sum": ("What is {a} * {b} + {c}?", "Compute {a} + {b} * {c}."),
    "problem": (
        "A farmer fills {a} crates with {b} pears each and keeps {c} more. How many pears are there?",
        "Anna buys {a} packs of {b} pencils and finds {c} pencils. How many does she own?",
    ),
    "story": (
        "From the old diary: the caravan of {a} camels met {b} merchants, lost {c} carpets in a storm and "
        "talked of home all night; which total did the scribe note at the end?",
        "Minutes of the council: {a} motions, {b} speakers, {c} complaints and a long quarrel about the "
        "bridge; which figure was finally agreed?",
    ),
    "service": (
        "Customer {a} kindly asks which extension handles complaint {b} about order {c}.",
        "Please tell subscriber {a} which help page explains plan {b} and error {c}.",
    ),
    "trivia": (
        "In which year did landmark {a} of district {b} open, according to guide {c}?",
        "How many medals did team {a} win at games {b}, table {c}?",
    ),
}
"""Sums, problems in words and long stories, beside questions that no calculator answers."""

WRITING: Topics = {
    "letter": ("Write a letter to landlord {a} about heater {b} in flat {c}.",),
    "summary": ("Sum up the main findings of report {a} on project {b}, page {c}.",),
    "recipe": ("Describe how to cook dish {a} for {b} guests in {c} minutes.",),
}
"""Open questions, answered with a text."""
