from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpmtools.report.html_charts import HEIGHT, WIDTH, Axis, Series, chart, pareto, pareto_edge

POINT = st.tuples(st.floats(0.01, 1e6), st.floats(-50, 50))


def picture(text: str) -> ET.Element:
    return ET.fromstring(text)


def ticks(figure: ET.Element, anchor: str) -> list[str]:
    found = figure.findall(f"./svg/text[@text-anchor='{anchor}']")
    return [str(text.text) for text in found if text.get("class") != "axis"]


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


@given(
    st.lists(st.tuples(st.floats(1e-8, 1e8), st.floats(1e-8, 1e8)), min_size=1, max_size=9),
    st.booleans(),
    st.booleans(),
)
def test_everything_lies_on_the_picture_and_has_ticks(points, log_x, log_y):
    figure = picture(chart("t", [Series("a", points, 0, markers=True)], Axis("x (s)", log_x), Axis("y", log_y)))
    assert 2 <= len(ticks(figure, "middle")) <= 28
    assert len(ticks(figure, "end")) >= 1
    for dot in figure.findall("./svg/path[@transform]"):
        x, y = map(float, re.findall(r"[-\d.]+", dot.get("transform", "")))
        assert 60 <= x <= WIDTH
        assert 0 <= y <= HEIGHT - 45


def test_a_longer_time_is_further_right_and_a_higher_quality_higher():
    figure = picture(chart("t", [Series("a", [(1, 5), (10, 7)], 0, markers=True)], Axis("x", log=True), Axis("y")))
    (x1, y1), (x2, y2) = (
        map(float, re.findall(r"[-\d.]+", dot.get("transform", ""))) for dot in figure.findall("./svg/path[@transform]")
    )
    assert x2 > x1
    assert y2 < y1


def test_names_are_escaped_and_axes_have_units():
    figure = picture(
        chart("<i>", [Series('</svg><script>"&', [(1, 2), (2, 3)], 9)], Axis("time (s)"), Axis("PSNR (dB)"))
    )
    assert [bdi.text for bdi in figure.iter("bdi")] == ['</svg><script>"&']
    assert not list(figure.iter("script"))
    assert {str(text.text) for text in figure.findall("./svg/text[@class='axis']")} == {"time (s)", "PSNR (dB)"}


@pytest.mark.parametrize("points", [[], [(0.0, 1.0)], [(1.0, math.nan)], [(-1.0, 2.0)]])
def test_what_cannot_be_drawn_is_said(points):
    assert "no data" in chart("t", [Series("a", points, 0)], Axis("x", log=True), Axis("y"))
