"""The Knowledge Transfer Prompt (KTP): how an expert receives what earlier experts said.

    question, earlier answers  ──template──>  one human message

Paper: Hu et al., arXiv 2412.07448, section 3.2; authors' code `environment.py:35`. The `paper` template
keeps the substance of theirs: the question, the answer of "another student", the request to use it as
additional advice, to answer more satisfactorily and directly, and not to mention other students. The
`default` template (D4 in docs/fidelity.md) quotes the answer as data between marks and says that it may be
wrong, because an answer is model output and must never be read as an instruction.

Answers are shortened in the middle to a budget; the question never is. Control tokens of chat templates
are broken up in everything that people, experts and tools wrote, on this route and in earlier turns
(`nodes/quoting.py`), so that no text can open a turn of its own.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from langchain_core.messages import BaseMessage, HumanMessage

from der_graph.errors import PluginError, PoolError
from der_graph.nodes.quoting import neutral_message, neutralize
from der_graph.plugins import find_plugin, known_names
from der_graph.state import Answer, good_answers

KTP_VERSION = 2
"""Raise it when the text that a template produces changes: cached answers depend on it."""

FIELDS = frozenset({"question", "answer", "answers"})
"""What a template may use: the question, the last answer, all answers numbered."""

PAPER_TRANSFER = (
    "{question}\n\n"
    "Another student answered this question as follows: {answer}\n\n"
    "Taking that answer as additional advice, give a more satisfactory answer directly. "
    "Do not mention other students."
)

DEFAULT_TRANSFER = (
    "{question}\n\n"
    "An earlier answer to this question is quoted between the marks. It is only a hint and may be wrong.\n"
    "<earlier_answer>\n{answer}\n</earlier_answer>\n\n"
    "Use it where it helps, correct it where it is wrong, and answer the question directly, "
    "without mentioning the earlier answer."
)

DEFAULT_ALL_TRANSFER = (
    "{question}\n\n"
    "Earlier answers to this question are quoted between the marks. They are only hints and may be wrong.\n"
    "<earlier_answer>\n{answers}\n</earlier_answer>\n\n"
    "Use them where they help, correct them where they are wrong, and answer the question directly, "
    "without mentioning the earlier answers."
)


def check_fields(text: str, allowed: frozenset[str], where: str) -> None:
    """Check the `{fields}` of a template text.

    Raises:
        PoolError: If it uses a field that is not allowed, or braces that do not match.
    """
    try:
        used = [field for field in string.Formatter().parse(text) if field[1] is not None]
    except ValueError as error:
        raise PoolError(
            f"{where}: {error} in {text!r}; write literal braces as {{{{ and }}}}"
        ) from None
    fields = ", ".join(f"{{{name}}}" for name in sorted(allowed))
    for _, name, layout, conversion in used:
        if name not in allowed:
            raise PoolError(f"{where}: unknown field {{{name}}}; allowed: {fields}")
        if layout or conversion:
            extra = (f"!{conversion}" if conversion else "") + (f":{layout}" if layout else "")
            raise PoolError(
                f"{where}: {{{name}{extra}}} is more than a name; write {{{name}}}, "
                "and literal braces as {{ and }}"
            )


@dataclass(frozen=True)
class KTPTemplate:
    """How a question and the earlier answers become one message.

    Attributes:
        name: Shown in traces and kept in caches.
        transfer: Text used once there is an earlier answer. Fields: `{question}`, `{answer}` (the last
            one), `{answers}` (all, numbered).
        first: Text used while there is none. Field: `{question}`.
        max_answer_tokens: Longest share of the prompt that earlier answers may take, in tokens (estimated
            at four characters each unless a counter is given). Longer answers lose their middle.

    Raises:
        PoolError: If a text uses an unknown field, or the budget is not positive.
    """

    name: str
    transfer: str = DEFAULT_TRANSFER
    first: str = "{question}"
    max_answer_tokens: int = 512

    def __post_init__(self) -> None:
        check_fields(self.transfer, FIELDS, f"ktp '{self.name}': transfer")
        check_fields(self.first, frozenset({"question"}), f"ktp '{self.name}': first")
        if self.max_answer_tokens < 1:
            raise PoolError(
                f"ktp '{self.name}': max_answer_tokens is {self.max_answer_tokens}; it must be at least 1"
            )

    @property
    def shows(self) -> Literal["last", "all"] | None:
        """What of the earlier answers an expert is shown."""
        if "{answers}" in self.transfer:
            return "all"
        return "last" if "{answer}" in self.transfer else None

    @property
    def fingerprint(self) -> str:
        """Everything that the produced text depends on."""
        return f"{KTP_VERSION}|{self.max_answer_tokens}|{self.first}|{self.transfer}"


TEMPLATES: dict[str, KTPTemplate] = {
    template.name: template
    for template in (
        KTPTemplate("default"),
        KTPTemplate("paper", PAPER_TRANSFER),
        KTPTemplate("default_all", DEFAULT_ALL_TRANSFER),
        KTPTemplate("none", "{question}"),  # no transfer: the ablation
    )
}


def ktp_template(given: str | KTPTemplate | None) -> KTPTemplate:
    """Look a template up by name, among those of other packages too; None is the default one.

    Raises:
        PoolError: If there is no such template.
        PluginError: If the template of another package is none.
    """
    if isinstance(given, KTPTemplate):
        return given
    name = given or "default"
    if name in TEMPLATES:
        return TEMPLATES[name]
    found = find_plugin("ktp_templates", name)
    if found is None:
        known = known_names("ktp_templates", TEMPLATES)
        raise PoolError(f"ktp '{given}' is unknown; choose one of: {known}")
    if not isinstance(found, KTPTemplate):
        raise PluginError(f"ktp_templates '{name}' is {found!r}; it must be a KTPTemplate")
    return found


def ktp_text(
    question: str,
    answers: Sequence[Answer],
    template: KTPTemplate = TEMPLATES["default"],
    *,
    count_tokens: Callable[[str], int] | None = None,
) -> str:
    """Write the Knowledge Transfer Prompt.

    Args:
        question: The question; it is never shortened.
        answers: The earlier answers, in order; failed ones are left out.
        template: The wording.
        count_tokens: Counts the tokens of a text; estimated at four characters each if left out.

    Returns:
        The text of the human message for the next expert.
    """
    question = neutralize(question)
    given = [answer["text"] for answer in good_answers(list(answers)) if answer["text"].strip()]
    if not given:
        return template.first.format(question=question)
    count = count_tokens or estimate_tokens
    budget = template.max_answer_tokens
    all_answers = "{answers}" in template.transfer
    share = max(1, budget // len(given)) if all_answers else budget
    quoted = [quote(text, share, count) for text in given]
    numbered = "\n".join(f"{i}. {text}" for i, text in enumerate(quoted, 1))
    return template.transfer.format(question=question, answer=quoted[-1], answers=numbered)


def knowledge_text(
    question: str, answers: Sequence[Answer], template: KTPTemplate = TEMPLATES["default"]
) -> str:
    """What the answers have taught so far, as the next expert would read it; empty if nothing."""
    return ktp_text(question, answers, template) if good_answers(list(answers)) else ""


def ktp_messages(
    history: Sequence[BaseMessage],
    question: str,
    answers: Sequence[Answer],
    template: KTPTemplate = TEMPLATES["default"],
    *,
    count_tokens: Callable[[str], int] | None = None,
    tail: Sequence[BaseMessage] = (),
) -> list[BaseMessage]:
    """The whole prompt of an expert: the conversation before the question, then the KTP as the human turn.

    Whatever people, experts and tools wrote has its control tokens broken up; system prompts are the
    application's.

    With a tail (tool calls and their results) the order of events is kept: the question, the tail, and
    after it the KTP, as the earlier answers were given by experts who had read the tail.
    """
    text = ktp_text(question, answers, template, count_tokens=count_tokens)
    history = [neutral_message(message) for message in history]
    if not tail:
        return [*history, HumanMessage(text)]
    first = ktp_text(question, [], template, count_tokens=count_tokens)
    knowledge = [HumanMessage(text)] if text != first else []
    return [*history, HumanMessage(first), *map(neutral_message, tail), *knowledge]


def estimate_tokens(text: str) -> int:
    """Tokens of an English text, at the usual four characters each."""
    return -(-len(text) // 4)


def quote(text: str, max_tokens: int, count_tokens: Callable[[str], int] = estimate_tokens) -> str:
    """Make model output safe to put into a prompt: control tokens broken up, length bounded."""
    short = shorten_middle(neutralize(text.strip()), max_tokens, count_tokens)
    return neutralize(short)  # the cut may have brought the two ends of something together


def shorten_middle(
    text: str, max_tokens: int, count_tokens: Callable[[str], int] = estimate_tokens
) -> str:
    """Cut out the middle until the rest has at most `max_tokens` tokens (the mark of the cut not counted).

    Both ends are kept, because answers open with what they are about and close with the result.
    """
    if count_tokens(text) <= max_tokens:
        return text
    low, high = 0, len(text)  # characters kept; the count grows with them, so bisect
    while low < high:
        middle = (low + high + 1) // 2
        head, tail = (middle + 1) // 2, middle // 2
        kept = text[:head] + text[len(text) - tail :]
        low, high = (middle, high) if count_tokens(kept) <= max_tokens else (low, middle - 1)
    head, tail = (low + 1) // 2, low // 2
    cut = len(text) - head - tail
    return f"{text[:head]} [... {cut} characters left out ...] {text[len(text) - tail :]}"
