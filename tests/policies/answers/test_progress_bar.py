"""What a long run says where no bar can be drawn: a line a minute, and no more."""

from __future__ import annotations

import pytest

from der_graph.progress_bar import AnswerBar, TrainingBar


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which tests set."""
    now = [1000.0]
    monkeypatch.setattr("der_graph.progress_bar.time.monotonic", lambda: now[0])
    return now


def test_a_line_a_minute(clock: list[float]) -> None:
    said: list[str] = []
    with AnswerBar("first answers", 400, show=True, say=said.append) as bar:
        for _ in range(20):
            clock[0] += 10
            bar.advance(10)
    assert said == [
        "first answers: 60 of 400 answers in 60 s, at most 340 s left",
        "first answers: 120 of 400 answers in 120 s, at most 280 s left",
        "first answers: 180 of 400 answers in 180 s, at most 220 s left",
    ]


def test_what_is_asked_after_them_is_told_apart(clock: list[float]) -> None:
    said: list[str] = []
    with AnswerBar("first answers", 4, show=True, say=said.append) as bar:
        bar.advance(4)
    clock[0] += 61
    bar.advance(2)
    assert said == ["first answers: all 4, and 2 further answers, in 61 s"]


def test_without_a_total_and_without_a_wish_to_show(clock: list[float]) -> None:
    said: list[str] = []
    for show in (True, False):
        with AnswerBar("der", None, show=show, unit="question", say=said.append) as bar:
            clock[0] += 61
            bar.advance(1)
    assert said == ["der: 1 question in 61 s"]


def test_figures_of_training_come_once_a_minute_and_stay_apart(clock: list[float]) -> None:
    said: list[str] = []
    bar = TrainingBar(1000, 0, show=True, say=said.append)
    row = {
        "time/steps": 10,
        "rollout/quality": 0.698,
        "rollout/cost": 0.0003201,
        "rollout/calls": 1.0,
    }
    bar.figures(row)
    clock[0] += 61
    bar.figures(row)
    bar.figures(row)
    bar.table_row({**row, "dev/utility": 0.5, "dev/quality": 0.8, "dev/cost": 0.0004976}, best=True)
    clock[0] += 59
    bar.figures(row)
    bar.close()
    assert len(said) == 3
    assert said[1].split() == ["10", "0.698", "0.0003201", "1.00"]
    assert said[2].split()[:6] == ["10", "0.698", "0.0003201", "1.00", "0.800", "0.0004976"]
    assert said[2].endswith("best")
