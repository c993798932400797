from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from der_graph.nodes.values import extract_value, normalize_text, normalize_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # the last number, written in one way
        ("She has 1,200 apples left.", "1200"),
        ("It costs $3.50", "3.5"),
        ("First 7, then 8.", "8"),
        ("-4", "-4"),
        ("It is -4 degrees.", "-4"),
        ("12.00", "12"),
        ("about 3/4 of it", "0.75"),
        ("in 2024", "2024"),
        # marked answers win over what follows elsewhere
        ("The answer is 12. I checked it in 3 ways", "3"),
        ("Answer: 12\nI checked it in 3 ways", "12"),
        ("5 boxes of 4\n#### 20", "20"),
        ("The final answer is: 1,000", "1000"),
        ("answer = 7", "7"),
        # boxed answers win over everything
        (r"so \boxed{42}, as 7 * 6 = 42. The answer is 41", "42"),
        (r"\boxed{1} or rather \boxed{\frac{1}{2}}", "0.5"),
        (r"\boxed{\frac{\sqrt{3}}{2}}", "sqrt(3)/2"),
        (r"\boxed{-\sqrt{2}} of 7", "-sqrt(2)"),
        (r"\boxed{\text{Paris}}", "paris"),
        (r"\boxed{\text{The Red Fox}}", "red fox"),
        (r"\boxed{New York}", "new york"),
        (r"\boxed{c}", "C"),
        (r"\boxed{45 / 9}", "45/9"),
        (r"\boxed{}", None),
        # an expression that was left uncomputed is itself, never one of its numbers
        ("( 5 + 3 ) * 2", "(5+3)*2"),
        ("12 - 3", "12-3"),
        ("12-3", "12-3"),
        ("3 * -4", "3*-4"),
        ("-3 + 4", "-3+4"),
        ("3 / 4", "3÷4"),
        ("The answer is 12 - 3", "12-3"),
        # choices and short phrases
        ("(B)", "B"),
        ("c. because it is larger", "C"),
        ("Paris.", "paris"),
        ("The Nile", "nile"),
        # nothing short
        ("", None),
        ("   \n", None),
        ("I am sorry, but I really cannot tell you that.", None),
        ("!!!", None),
    ],
)
def test_the_part_that_counts(text: str, value: str | None) -> None:
    assert extract_value(text) == value


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("So 3 * 4 = 12. The answer is 12.00", "12"),
        ("He pays $1,200.50.", "The answer is 1200.50"),
        ("The Red Fox!", "a red fox"),
        (r"\boxed{0.5}", "1/2"),
        (r"\boxed{12 \text{ minutes}}", "It takes 12 minutes."),
    ],
)
def test_answers_that_agree_have_equal_values(one: str, other: str) -> None:
    assert extract_value(one) == extract_value(other)


@pytest.mark.parametrize(
    "text",
    [
        " + ".join(["1234"] * 3000) + " = ?",
        "1 " * 5000 + "!",
        "(" * 5000 + "1",
        r"\boxed{" * 3000,
        "answer" + " " * 5000 + "x",
        "1,5-" * 3000 + "!",
        "- " * 5000 + "1 +",
    ],
    ids=["sum", "digits", "brackets", "boxes", "spaces", "signs", "dashes"],
)
@pytest.mark.timeout(10)
def test_a_model_that_repeats_itself_takes_no_time(text: str) -> None:
    extract_value(text)


@given(st.floats(-1e9, 1e9, allow_nan=False).map(lambda x: round(x, 4)))
def test_a_number_is_written_in_one_way(number: float) -> None:
    assert normalize_value(f"{number:.4f}") == normalize_value(f"${number:,.6f}")
    assert normalize_value(normalize_value(str(number))) == normalize_value(str(number))


@given(st.text(max_size=200))
def test_any_text_has_a_value_or_none(text: str) -> None:
    value = extract_value(text)
    assert value is None or value


@given(st.text(max_size=100))
def test_normalizing_twice_changes_nothing(text: str) -> None:
    assert normalize_text(normalize_text(text)) == normalize_text(text)
