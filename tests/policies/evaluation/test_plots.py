"""Plots: they are drawn, say what they show, and come out the same twice."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluated import toy_evaluation, toy_report

from der_graph.errors import DataError
from der_graph.policies.evaluation import Report
from der_graph.policies.evaluation.plots import (
    draw_report,
    label_points,
    new_figure,
    quality_cost,
    route_flow,
    save,
)
from der_graph.policies.evaluation.report_schema import Estimate
from der_graph.policies.evaluation.study_plots import (
    Effect,
    Point,
    effects,
    sensitivity,
    training_curves,
)


@pytest.fixture(scope="module")
def report() -> Report:
    return toy_report(toy_evaluation())


def texts(figure: Any) -> set[str]:
    from matplotlib.text import Text

    return {text.get_text() for text in figure.findobj(Text)}


def test_a_report_has_its_plots_as_png_and_svg(report: Report, tmp_path: Path) -> None:
    drawn = draw_report(report, tmp_path)
    assert list(drawn) == ["quality_cost", "tasks", "route_flow", "wall_clock"]
    for name, svg in drawn.items():
        assert svg.read_text().startswith("<?xml")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    again = draw_report(report, tmp_path / "again")
    assert all(svg.read_bytes() == again[name].read_bytes() for name, svg in drawn.items())


def test_every_method_is_named_at_its_point(report: Report) -> None:
    figure = quality_cost(report)
    shown = " ".join(texts(figure)).replace(",\n", " ").split()
    for method in report.methods:
        if method.family == "single":
            assert method.name.removeprefix("single:") in shown
    assert "DER" in shown
    assert any("billions of parameters" in text for text in texts(figure))


def test_the_flow_shows_counts(report: Report) -> None:
    figure = route_flow(report)
    assert {"all questions", "fact", "sum", "START", "END", "10"} <= texts(figure)
    assert "parrot" not in texts(figure)  # never asked


def test_labels_do_not_cover_each_other() -> None:
    figure, axes = new_figure(4, 3)
    points = [(0.5, 0.5), (0.51, 0.5), (0.5, 0.52), (0.9, 0.9)]
    axes.plot(*zip(*points, strict=True), "o")
    label_points(axes, points, ["first", "second", "third", "last"])
    renderer = figure.canvas.get_renderer()
    boxes = [t.get_window_extent(renderer) for t in axes.texts if t.get_text()]
    assert len(boxes) == 4
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def curve(folder: Path, values: list[float]) -> Path:
    folder.mkdir()
    with (folder / "progress.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time/steps", "dev/quality", "rollout/reward"])
        for i, value in enumerate(values, 1):
            writer.writerow([i * 1000, value, ""])
            writer.writerow([i * 1000 + 500, "", value / 2])
    return folder


def test_training_curves_of_several_seeds(tmp_path: Path) -> None:
    runs = [curve(tmp_path / "a", [0.1, 0.5, 0.9]), curve(tmp_path / "b", [0.3, 0.5, 0.7])]
    figure = training_curves(runs, references={"best single": 0.4})
    quality, reward = figure.axes
    mean = quality.lines[2].get_xydata().tolist()
    assert [x for x, _ in mean] == [1000, 2000, 3000]
    assert [y for _, y in mean] == pytest.approx([0.2, 0.5, 0.8])
    assert reward.lines[0].get_xydata().shape == (3, 2)
    assert "best single" in texts(figure)
    given = training_curves([{"dev/quality": np.array([[1.0, 0.2], [2.0, 0.4]])}])
    assert given.axes[0].lines[0].get_ydata().tolist() == [0.2, 0.4]
    save(figure, tmp_path, "training")
    assert (tmp_path / "training.png").is_file()


def test_curves_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"progress\.csv: cannot be read"):
        training_curves([tmp_path])
    (tmp_path / "progress.csv").write_text("time/steps,other\n1,2\n")
    with pytest.raises(DataError, match="no run has all of dev/quality"):
        training_curves([tmp_path])
    (tmp_path / "progress.csv").write_text("time/steps,dev/quality\n1,x\n")
    with pytest.raises(DataError, match="column dev/quality"):
        training_curves([tmp_path])


def test_effects_and_sensitivity(tmp_path: Path) -> None:
    some = Estimate(estimate=0.1, low=0.05, high=0.15)
    none = Estimate(estimate=0.0, low=-0.1, high=0.1)
    rows = [Effect("a → b", some, 12, 2, 100), Effect("b → a", none, 5, 5, 100)]
    figure = effects(rows, "difference", "Transfer")
    assert {"a → b", "b → a", "+12  −2  of 100"} <= texts(figure)
    save(figure, tmp_path, "effects")
    # Qualities, of which nothing was counted.
    plain = texts(effects([Effect("a", some)], "quality", zero=False))
    assert "quality\n(bars: 95 % intervals)" in plain
    assert not any("helped" in text or " of " in text for text in plain)
    points = [Point(0.1, some, 3.0), Point(10.0, none, 1.0)]
    figure = sensitivity({"beta": points, "p0": points})
    assert {"beta", "p0"} <= texts(figure)
    assert figure.axes[0].get_xscale() == "log"
    save(figure, tmp_path, "sensitivity")
