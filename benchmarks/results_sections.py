"""What the results page asks, in order: a section per question, with the command that answers it."""

from __future__ import annotations

from typing import NamedTuple


class Section(NamedTuple):
    """One question.

    Attributes:
        title: Heading.
        question: What is asked.
        stage: Whose command answers it.
        picture: Name of its picture, without `results-`; empty for none.
        alt: What the picture shows.
        body: Name of the body.
    """

    title: str
    question: str
    stage: str
    picture: str
    alt: str
    body: str


RECORDED = "Recorded pool: real answers of eleven open models"
LIVE = "Live pool: the demo's models"
SECTIONS: dict[str, list[Section]] = {
    RECORDED: [
        Section(
            "Quality against cost",
            "Is a learnt route better than single models, one-shot routers and "
            "cascades at the same cost?",
            "comparison",
            "quality-cost",
            "quality against cost: DER's curve, routers' curves, single models and cascades",
            "comparison",
        ),
        Section(
            "Other projects' routers",
            "And better than routers of other projects, on the same embeddings, "
            "questions and accounting?",
            "peers",
            "",
            "",
            "peers",
        ),
        Section(
            "Training",
            "How do trainings go, and how far do seeds differ?",
            "comparison",
            "training",
            "quality and cost on the test folds over the decisions trained on, a line per seed",
            "training",
        ),
        Section(
            "Longest route",
            "How many calls should a route be allowed (the paper's T_max)?",
            "ablations",
            "max-steps",
            "quality over the longest route",
            "max_steps",
        ),
        Section(
            "Size of the pool",
            "What do more experts bring?",
            "ablations",
            "pool-size",
            "quality over the number of experts",
            "pool_size",
        ),
        Section(
            "Number of training questions",
            "How much data does training need?",
            "ablations",
            "questions",
            "quality over the number of training questions",
            "questions",
        ),
        Section(
            "A task never trained on",
            "Does an agent route a task that it never saw?",
            "ablations",
            "left-out",
            "quality on each task, trained with it and never trained on it",
            "left_out",
        ),
        Section(
            "The reward",
            "How much depends on beta, p0 and the price of cost?",
            "ablations",
            "reward",
            "quality against cost of agents trained with several rewards",
            "reward",
        ),
        Section(
            "Route stability",
            "Do two trainings choose the same routes?",
            "ablations",
            "stability",
            "share of questions whose route differs, over the price of cost",
            "stability",
        ),
        Section(
            "A bad expert",
            "What if one of the experts returns noise, or is wrong on purpose?",
            "ablations",
            "bad-expert",
            "differences in quality when an expert is spoiled",
            "bad_expert",
        ),
        Section(
            "An expert that joins later",
            "How much of the gain of training with an expert do 30 probe questions bring?",
            "new_expert",
            "new-expert",
            "quality against cost without, with the added and with the trained expert",
            "new_expert",
        ),
        Section(
            "A thousand experts, simulated: routes",
            "Does routing still work when each expert has many copies?",
            "ablations",
            "clones",
            "quality against cost with 11, 110 and 1,000 experts",
            "clones",
        ),
        Section(
            "A thousand experts, simulated: time",
            "How long does a decision take?",
            "large_pool",
            "large-pool",
            "time of a decision over the number of experts",
            "large_pool",
        ),
    ],
    LIVE: [
        Section(
            "Against every baseline",
            "Is DER better than everything that it could be replaced by?",
            "demo",
            "demo",
            "quality against cost of all methods on the demo pool",
            "demo",
        ),
        Section(
            "The Knowledge Transfer Prompt",
            "What does showing the earlier answer bring on DER's routes?",
            "ktp",
            "ktp",
            "differences in quality with and without transfer",
            "ktp",
        ),
        Section(
            "Which earlier answers help, and which mislead",
            "What does every expert make of every other's answer?",
            "ktp",
            "pairs",
            "differences in quality of the second expert of a pair, by whether the first was right",
            "pairs",
        ),
        Section(
            "Under a deadline",
            "What is left of the quality when time is short?",
            "deadline",
            "deadline",
            "quality and time of a request over the deadline",
            "deadline",
        ),
        Section(
            "An expert that injects instructions",
            "What if an expert answers with an instruction to those who read it?",
            "injection",
            "injection",
            "differences in quality when an expert is replaced by an injection or a useless text",
            "injection",
        ),
    ],
}
INTRO = """\
# Results

Made by `make results` from the data in this repository and in `../shared/data` (`DER_DATA` names another
folder): do not edit. Each section names its command; what that writes to `runs/results/` is read here, and
every sentence with a number is computed from it. A target that was missed is called missed.

Costs are billions of parameters run for a question (B). The recorded pool is real greedy answers of eleven
open models from 2.6 B to 72.7 B to 1,987 questions of GSM8K, CRUX and MATH level 5, each judged right or
wrong; asking all of them costs 315.5 B. Its folder `recorded_pool/` holds `train.jsonl.gz` and
`dev.jsonl.gz` in the MixInstruct layout, from the outputs published by WildEval/ZeroEval (Apache-2.0);
without it those sections are left as they are. Settings are the same for all folds and seeds, but they were
not chosen blindly: about forty variants of head, features, length and beginning of training were compared
by held-out folds of these same questions, and differed by up to two points. DER's figures are therefore
somewhat optimistic; the routers ran with the defaults of this package. The test split is not touched by this.
"""
