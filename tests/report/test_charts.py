from __future__ import annotations

import io
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fpmtools.report import charts
from fpmtools.report.charts import Axis, Chart, Series, figure, pareto, pareto_edge, thinned

POINT = st.tuples(st.floats(0.01, 1e6), st.floats(-50, 50))
TIME, QUALITY = Axis("time (s)", log=True), Axis("PSNR (dB)")


def chart(*series: Series, x: Axis = TIME, y: Axis = QUALITY) -> Chart:
    return Chart("c", "Title", series, x, y)


def dots(svg: str) -> list[tuple[float, float]]:
    return [(float(dot.get("x", "")), float(dot.get("y", ""))) for dot in ET.fromstring(svg).iter("use")]


@given(st.lists(POINT, min_size=1, max_size=40), st.booleans())
def test_pareto_is_what_no_point_beats(points, higher):
    front = pareto(points, higher)
    sign = 1 if higher else -1

    def beaten(one):
        return any(other[0] <= one[0] and sign * other[1] >= sign * one[1] and other[:2] != one[:2] for other in points)

    assert set(front) == {point for point in points if not beaten(point)}
    assert front == sorted(front)
    edge = pareto_edge(points, higher)
    assert edge[1:-1] == front
    assert edge[-1][0] == max(cost for cost, _ in points)


def test_thinning_keeps_few_points_and_the_middle_of_many():
    few = [(float(k), 1.0) for k in range(5)]
    assert thinned(few) == few[1:]  # a logarithm has no 0
    many = thinned([(1.0 + k, math.exp(-k / 300)) for k in range(1000)])
    assert len(many) <= 36
    assert many == sorted(many)


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.tuples(st.floats(1e-8, 1e8), st.floats(1e-8, 1e8)), min_size=1, max_size=9),
    st.booleans(),
    st.booleans(),
)
def test_everything_lies_on_the_picture_and_has_ticks(points, log_x, log_y):
    drawing = figure(chart(Series("a", points, 0, markers=True), x=Axis("x", log_x), y=Axis("y", log_y)))
    drawing.draw_without_rendering()
    (axes,) = drawing.axes
    (line,) = axes.lines
    places = axes.transData.transform(line.get_xydata())
    box = axes.get_window_extent()
    assert box.x0 - 1 <= places[:, 0].min() <= places[:, 0].max() <= box.x1 + 1
    assert box.y0 - 1 <= places[:, 1].min() <= places[:, 1].max() <= box.y1 + 1
    for axis in (axes.xaxis, axes.yaxis):
        assert 1 <= len([label for label in axis.get_ticklabels() if label.get_text()]) <= 28


def test_a_longer_time_is_further_right_and_a_higher_quality_higher():
    (x1, y1), (x2, y2) = dots(chart(Series("a", [(1, 5), (10, 7)], 0, markers=True)).svg())
    assert x2 > x1
    assert y2 < y1


def test_the_page_has_the_same_numbers_as_the_paper():
    """One drawing: the same series, in the same colours, at the same ticks."""
    one = chart(Series("a", [(1, 5), (10, 7), (300, 9)], 2, markers=True), Series("front", [(1, 5), (300, 9)], -1))
    drawing = figure(one)
    assert [line.get_color() for line in drawing.axes[0].lines] == [charts.COLOURS["s2"], charts.COLOURS["sn"]]
    assert [list(map(tuple, line.get_xydata())) for line in drawing.axes[0].lines] == [s.points for s in one.series]
    root = ET.fromstring(one.svg())
    assert {part.get("class") for part in root.iter("g") if part.get("class")} == {"series s2", "series sn"}
    shown = {text.text for text in root.iter("text")}
    assert {"1", "10", "100", "time (s)", "PSNR (dB)"} <= shown
    assert {label.get_text() for label in drawing.axes[0].get_xticklabels()} <= shown


def test_colours_on_the_page_are_the_style_sheets():
    svg = chart(Series("a", [(1, 2), (2, 3)], 9, markers=True)).svg()
    assert not re.search("#[0-9a-fA-F]{6}", svg)
    assert "var(--s1)" in svg
    sheet = (Path(charts.__file__).parent / "report.css").read_text()
    for name, colour in charts.COLOURS.items():
        if name != "card":  # the page's card is not as white as paper
            assert re.search(rf"--{name}: light-dark\({colour},", sheet), name


def test_inline_svg_needs_nothing_and_leaks_nothing():
    svg = chart(Series("a", [(1, 2), (2, 3)], 0, markers=True), Series("b", [(2, 1)], 1)).svg()
    assert not re.search(r"url\(|https?:|<style|font-family|xlink|<metadata", svg)
    ids = re.findall(r' id="([^"]+)"', svg)
    assert len(set(ids)) == len(ids)
    other = chart(Series("a", [(1, 2), (2, 3)], 0, markers=True), Series("b", [(2, 2)], 1)).svg()
    assert not set(ids) & set(re.findall(r' id="([^"]+)"', other))
    assert svg == chart(Series("a", [(1, 2), (2, 3)], 0, markers=True), Series("b", [(2, 1)], 1)).svg()


def test_names_are_escaped_and_what_lies_under_the_pointer_is_said():
    hostile = '</svg><script>"&\x1b\ud800$x^2$'
    drawn = chart(Series(hostile, [(1, 2), (2, 3)], 9, markers=True))
    root = ET.fromstring(drawn.svg())
    assert not list(root.iter("script"))
    titles = [title.text for title in root.iter("title")]
    assert titles[-1] == '</svg><script>"&��$x^2$'
    assert titles[0] == f"{titles[-1]}: time (s) 1, PSNR (dB) 2"
    figure(drawn).savefig(io.BytesIO(), format="png")


@pytest.mark.parametrize("points", [[], [(0.0, 1.0)], [(1.0, math.nan)], [(-1.0, 2.0)]])
def test_what_cannot_be_drawn_is_left_out(points):
    assert chart(Series("a", points, 0)).series == ()


def test_a_long_name_does_not_take_the_picture(tmp_path):
    name = "laboratory-of-somebody-adaptive-solver:preset=paper:learning_rate=0.001:seed=7"
    drawing = figure(chart(Series(name, [(1, 5), (10, 7)], 0), Series("b", [(1, 4), (9, 5)], 1)))
    drawing.savefig(tmp_path / "a.png", dpi=300)
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (1050, 810)
    (legend,) = drawing.legends
    assert legend.get_window_extent().width < 0.9 * drawing.bbox.width
    assert legend.get_texts()[0].get_text().endswith("seed=7")


def test_swatches_are_the_markers():
    shapes = {Series("a", [(1, 1)], k).swatch for k in range(8)}
    assert len(shapes) == 8
    for shape in shapes:
        numbers = [float(text) for text in re.findall(r"-?\d+\.\d", shape)]
        assert 0 < min(numbers[::2]) < max(numbers[::2]) < 28
