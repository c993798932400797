"""What the questions of the worlds are about: templates by topic, told apart by their words alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Topics = Mapping[str, Sequence[str]]
"""Templates by topic; `{a}`, `{b}` and `{c}` are numbers."""

FIELDS: Topics = {
    "code": (
        "Which exit status does script {a} return when test suite {b} fails on branch {c}?",
        "How many bytes does the struct in header {a} take with {b} fields and padding {c}?",
        "At which line does the compiler stop in source file {a}, revision {b}, target {c}?",
    ),
    "law": (
        "Which section of the lease act governs clause {a} of agreement {b}, file {c}?",
        "How many days may the defendant appeal under article {a} in case {b}-{c}?",
        "What fine does the court set for violation {a} of ordinance {b}, count {c}?",
    ),
    "medicine": (
        "How many milligrams of drug {a} should a patient of {b} kilograms on ward {c} get?",
        "Which diagnosis code fits symptom group {a} in the blood test {b} of patient {c}?",
        "After how many days does the surgeon remove suture type {a} at age {b}, chart {c}?",
    ),
    "mathematics": (
        "What is the determinant of matrix {a} in exercise {b} of algebra sheet {c}?",
        "Find the remainder of {a} to the power of {b} modulo {c}.",
        "Integrate polynomial {a} from zero to {b} in calculus problem {c}.",
    ),
    "travel": (
        "From which gate does flight {a} to airport {b} board at hour {c}?",
        "What does room {a} of the beach hotel cost for {b} nights in season {c}?",
        "How many minutes does the ferry need from pier {a} to island {b} on tour {c}?",
    ),
}
"""Five fields of knowledge."""

CALCULATION: Topics = {
    "sum": ("What is {a} * {b} + {c}?", "Compute {a} + {b} * {c}.", "Work out ( {a} - {b} ) * {c}."),
    "problem": (
        "A farmer fills {a} crates with {b} pears each and keeps {c} more. How many pears are there?",
        "Anna buys {a} packs of {b} pencils and finds {c} pencils. How many does she own?",
        "A lorry carries {b} boxes on each of {a} trips, and {c} are left. How many boxes are there?",
    ),
    "story": (
        "From the old diary: the caravan of {a} camels met {b} merchants, lost {c} carpets in a storm and "
        "talked of home all night; which total did the scribe note at the end?",
        "Letter from an aunt: after the wedding with {a} tables she tells of {b} guests, {c} cakes, the rain "
        "and the neighbours; which sum did she write below?",
        "Minutes of the council: {a} motions, {b} speakers, {c} complaints and a long quarrel about the "
        "bridge; which figure was finally agreed?",
    ),
    "service": (
        "Customer {a} kindly asks which extension handles complaint {b} about order {c}.",
        "Please tell subscriber {a} which help page explains plan {b} and error {c}.",
        "Hello, which desk should guest {a} call about voucher {b}, category {c}?",
    ),
    "trivia": (
        "In which year did landmark {a} of district {b} open, according to guide {c}?",
        "How many medals did team {a} win at games {b}, table {c}?",
        "How many metres high is tower {a} in skyline {b}, plate {c}?",
    ),
}
"""Sums, problems in words and long stories, beside questions that no calculator answers."""

WRITING: Topics = {
    "letter": (
        "Write a letter to landlord {a} about heater {b} in flat {c}.",
        "Draft an apology to client {a} for delivery {b} of invoice {c}.",
    ),
    "summary": (
        "Summarise chapter {a} of novel {b}, edition {c}.",
        "Sum up the main findings of report {a} on project {b}, page {c}.",
    ),
    "recipe": (
        "Describe how to cook dish {a} for {b} guests in {c} minutes.",
        "Explain the baking of bread {a} with {b} grams of flour at oven mark {c}.",
    ),
}
"""Open questions, answered with a text."""
