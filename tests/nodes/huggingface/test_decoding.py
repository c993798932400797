from __future__ import annotations

import pytest
from tiny_models import tiny_tokenizer

from der_graph.nodes.huggingface.decoding import TokenReader
from der_graph.nodes.providers import AnswerReader

TAGS = ("<think>", "</think>")


def read(text: str, *, size: int = 1, **options: object) -> tuple[str, str, str]:
    """Feed a text in pieces; gives what was shown, the answer and the thought."""
    reader = AnswerReader(**options)  # type: ignore[arg-type]
    shown = "".join(reader.feed(text[i : i + size]) for i in range(0, len(text), size))
    shown += reader.close()
    return shown, reader.answer, reader.thought


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize(
    ("text", "answer", "thought"),
    [
        ("plain answer", "plain answer", ""),
        ("<think>one\ntwo</think>\n\n42", "42", "one\ntwo"),
        ("  <think>x</think>y", "y", "x"),
        ("<think>never closed", "", "never closed"),
        ("<thinner> is no tag", "<thinner> is no tag", ""),
        ("<thi", "<thi", ""),
        ("", "", ""),
    ],
)
def test_a_thought_is_put_aside(text: str, answer: str, thought: str, size: int) -> None:
    assert read(text, size=size, tags=TAGS) == (answer, answer, thought)


def test_a_thought_that_the_prompt_opened() -> None:
    assert read("hm, well</think> 42", tags=TAGS, thinking=True) == ("42", "42", "hm, well")
    assert read("hm, well", tags=TAGS, thinking=True) == ("", "", "hm, well")


def test_a_closing_tag_alone_is_seen_at_the_end() -> None:
    _, answer, thought = read("so it is</think>42", tags=TAGS)
    assert (answer, thought) == ("42", "so it is")


@pytest.mark.parametrize("size", [1, 2, 50])
def test_stop_strings_end_the_answer_and_are_never_shown(size: int) -> None:
    assert read("Paris \nQ: next", size=size, stop=["\nQ:"])[:2] == ("Paris", "Paris")
    assert read("a\nb", size=size, stop=["\nQ:"])[0] == "a\nb"
    assert read("ab STOP cd END", size=size, stop=["END", "STOP"])[0] == "ab"


def test_stop_strings_do_not_count_inside_a_thought() -> None:
    shown, answer, thought = read("<think>1\n2</think>\n3\n4", tags=TAGS, stop=["\n"])
    assert (shown, answer, thought) == ("3", "3", "1\n2")


def test_a_reader_can_be_opened_again() -> None:
    reader = AnswerReader(TAGS, ["x"])
    reader.feed("abcx")
    assert reader.stopped
    fresh = reader.reopened()
    assert not fresh.stopped
    assert fresh.feed("abd") == "abd"


def test_token_reader_skips_special_tokens_and_waits_for_whole_characters() -> None:
    tokenizer = tiny_tokenizer()
    reader = TokenReader(tokenizer)
    ids = [*tokenizer("hi", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    assert [reader.feed(i) for i in ids] == ["h", "i", ""]

    class Bytes:
        """Two tokens make one character."""

        all_special_ids: tuple[int, ...] = ()
        added_tokens_decoder: dict[int, object] = {}  # noqa: RUF012

        def decode(self, ids: list[int], **_: object) -> str:
            return bytes(ids).decode("utf-8", errors="replace")

    split = TokenReader(Bytes())
    assert [split.feed(byte) for byte in "é!".encode()] == ["", "é", "!"]
    broken = TokenReader(Bytes())
    assert broken.feed(0xC3) == ""
    assert broken.close() == "�"
