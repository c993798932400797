"""What prompts have in common is read once, a row can be given up, and answers stay the same."""

from __future__ import annotations

import functools
import threading
from typing import Any

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from tiny_models import save_tiny

from der_graph.nodes.answering import Request
from der_graph.nodes.huggingface import HuggingFaceChat
from der_graph.nodes.prefix import padded_rows, shared_start

LONG = list(range(10, 20))


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> HuggingFaceChat:
    folder = save_tiny(tmp_path_factory.mktemp("tiny"))
    return HuggingFaceChat(model=str(folder), generation={"max_new_tokens": 12})


@pytest.mark.parametrize(
    ("prompts", "shared"),
    [
        ([[*LONG, 1], [*LONG, 2, 3]], 10),
        ([LONG, LONG], 9),  # one id is left for the first token's logits
        ([[*LONG, 1]], 0),  # nobody to share with
        ([[*LONG[:5], 1], [*LONG[:5], 2]], 0),  # too short to be worth a call
        ([[1, *LONG], [2, *LONG]], 0),
        ([[*LONG, 1], [7]], 0),
    ],
)
def test_how_much_is_shared(prompts: list[list[int]], shared: int) -> None:
    assert shared_start(prompts) == shared


def test_rows_are_padded_after_what_they_share() -> None:
    rows, mask = padded_rows([[5, 6, 1], [5, 6, 2, 3, 4]], 2, 0)
    assert rows == [[5, 6, 0, 0, 1], [5, 6, 2, 3, 4]]
    assert mask == [[1, 1, 0, 0, 1], [1, 1, 1, 1, 1]]
    rows, mask = padded_rows([[1], [2, 3]], 0, 9)
    assert rows == [[9, 1], [2, 3]]
    assert mask == [[0, 1], [1, 1]]


def test_a_shared_system_prompt_does_not_change_answers(
    chat: HuggingFaceChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = SystemMessage("Answer in one short word, please.")
    prompts = [
        [system, HumanMessage(text)] for text in ("a", "what is it?", "ten and two", "zz top")
    ]
    widths: list[tuple[int, int]] = []
    model = chat.load().model
    forward = model.forward

    @functools.wraps(forward)  # with its signature, which says what the model can do
    def spied(*given: Any, **named: Any) -> Any:
        ids: Any = named.get("input_ids", given[0] if given else None)
        widths.append(tuple(ids.shape))
        return forward(*given, **named)

    singles = [chat.invoke(prompt).content for prompt in prompts]
    monkeypatch.setattr(model, "forward", spied)
    batch = [message.content for message in chat.batch(list(prompts))]
    assert batch == singles
    rows, once = widths[0]
    assert rows == 1
    assert once > 30  # the system prompt, by one row alone
    assert widths[1][0] == 4
    assert widths[1][1] < 40  # the rest, by all


def test_one_row_is_given_up_and_the_others_go_on(chat: HuggingFaceChat) -> None:
    settings = chat._settings(None, {})
    stop = threading.Event()
    seen: list[str] = []

    def show(piece: str) -> None:
        seen.append(piece)
        stop.set()

    requests = [
        Request([HumanMessage("one")], settings, stop, show),
        Request([HumanMessage("one")], settings, threading.Event()),
    ]
    given_up, whole = chat.answer_all(requests, None)
    assert not isinstance(given_up, Exception)
    assert not isinstance(whole, Exception)
    short = given_up.generations[0].message.text
    assert seen
    assert len(short) < len(whole.generations[0].message.text)
    assert whole.generations[0].message.text == chat.invoke("one").content
