"""Contrast of three bars: of targets whose transfer function is known, wherever they lie and however turned."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import erf

from fpmtools.errors import DataError
from fpmtools.metrics.targets import Bars, bar_contrast, field_contrast, from_file, usaf_per_mm

PIXEL = (0.4, 0.5)  # µm, y and x
SHAPE = (220, 180)


def target(bars: Bars, blur_um: float, low: float = 0.2, high: float = 0.8) -> NDArray[np.float64]:
    """Bright bars on a dark ground, blurred by a Gaussian across them (and along)."""
    y, x = ((np.arange(n) + 0.5) * p for n, p in zip(SHAPE, PIXEL, strict=True))
    a = math.radians(bars.angle_deg)
    dx, dy = x[None] - bars.x_um, y[:, None] - bars.y_um
    u, v = dx * math.cos(a) + dy * math.sin(a), dy * math.cos(a) - dx * math.sin(a)
    w = bars.width_um
    across = sum(box(u - 2 * k * w, w, blur_um) for k in (-1, 0, 1))
    return low + (high - low) * across * box(v, 5 * w, blur_um)


def box(u: NDArray[np.float64], width: float, blur: float) -> NDArray[np.float64]:
    """A bar of 1, blurred: the difference of two error functions."""
    return (erf((u + width / 2) / (blur * math.sqrt(2))) - erf((u - width / 2) / (blur * math.sqrt(2)))) / 2


def expected(bars: Bars, blur_um: float, low: float = 0.2, high: float = 0.8) -> float:
    """Contrast of the same profile, by its own integral over the flat halves of bars and gaps."""
    w, t = bars.width_um, np.linspace(-0.25, 0.25, 201)

    def mean(places: tuple[int, ...]) -> float:
        u = np.concatenate([(place + t) * w for place in places])
        return float(low + (high - low) * sum(box(u - 2 * k * w, w, blur_um) for k in (-1, 0, 1)).mean())

    bar, gap = mean((-2, 0, 2)), mean((-1, 1))
    return (bar - gap) / (bar + gap)


def test_usaf_frequencies() -> None:
    assert usaf_per_mm(0, 1) == 1
    assert usaf_per_mm(7, 1) == 128
    assert usaf_per_mm(9, 3) == pytest.approx(645.1, abs=0.05)
    with pytest.raises(DataError, match="elements are 1 to 6"):
        usaf_per_mm(7, 7)


@pytest.mark.parametrize("angle", [0.0, 90.0, 28.0, -130.0])
@pytest.mark.parametrize("blur", [0.05, 0.8, 1.5])
def test_the_contrast_is_that_of_the_known_blur(angle: float, blur: float) -> None:
    bars = Bars(45.0, 44.0, 160.0, angle)
    found = bar_contrast(target(bars, blur), PIXEL, bars)
    assert found.contrast == pytest.approx(expected(bars, blur), abs=0.012)
    assert abs(found.moved_um) < 0.3 * bars.width_um
    assert found.across_um[0] == pytest.approx(-3.5 * bars.width_um, abs=0.1 * bars.width_um)
    if blur < 0.1:
        assert found.contrast == pytest.approx(0.6, abs=0.012)


def test_contrast_falls_to_nothing_beyond_what_is_passed() -> None:
    contrasts = [bar_contrast(target(b := Bars(45, 44, f, 0.0), 1.2), PIXEL, b).contrast for f in (60, 120, 200, 400)]
    assert contrasts == sorted(contrasts, reverse=True)
    assert contrasts[0] > 0.55
    assert contrasts[-1] < 0.02


def test_a_place_that_is_nearly_half_a_bar_off_is_found() -> None:
    bars = Bars(45.0, 44.0, 160.0, 28.0)
    off = Bars(45.0 + 0.4 * bars.width_um * math.cos(math.radians(28)), 44.0 + 0.4 * bars.width_um * 0.469, 160.0, 28.0)
    found = bar_contrast(target(bars, 0.3), PIXEL, off)
    assert found.moved_um == pytest.approx(-0.4 * bars.width_um, abs=0.15 * bars.width_um)
    assert found.contrast == pytest.approx(expected(bars, 0.3), abs=0.03)


def test_a_phase_is_told_in_radians_whatever_its_offset() -> None:
    bars = Bars(45.0, 44.0, 100.0, 90.0)
    phase = target(bars, 0.05, low=0.3, high=1.1)
    assert bar_contrast(phase - 5, PIXEL, bars, phase=True).contrast == pytest.approx(0.8, abs=0.02)
    assert bar_contrast(-phase, PIXEL, bars, phase=True).contrast == pytest.approx(0.8, abs=0.02)


def test_fields_are_measured_by_intensity_or_by_phase_across_a_wrap() -> None:
    bars = Bars(45.0, 44.0, 100.0, 0.0)
    image = target(bars, 0.05)
    assert field_contrast(np.sqrt(image), PIXEL, bars).contrast == pytest.approx(0.6, abs=0.02)
    wrapped = np.exp(1j * (image + np.pi - 0.5))
    assert field_contrast(wrapped, PIXEL, bars, phase=True).contrast == pytest.approx(0.6, abs=0.02)
    assert field_contrast(wrapped, PIXEL, bars).contrast < 1e-3


def test_bars_that_reach_out_of_the_image_are_refused() -> None:
    with pytest.raises(DataError, match="out of the image"):
        bar_contrast(np.ones(SHAPE), PIXEL, Bars(3.0, 44.0, 100.0))


def test_lists_of_bars(tmp_path: Path) -> None:
    table, listed = tmp_path / "bars.csv", tmp_path / "bars.json"
    table.write_text("# USAF\nx_um,y_um,group,element,angle_deg\n10,20,7,2,90\n30,20.5,7,3,\n")
    assert from_file(table) == [
        Bars(10, 20, usaf_per_mm(7, 2), 90.0, "7.2"),
        Bars(30, 20.5, usaf_per_mm(7, 3), 0, "7.3"),
    ]
    listed.write_text(
        json.dumps([{"x_um": 1, "y_um": 2, "pitch_um": 4, "label": "fine"}, {"x_um": 1, "y_um": 2, "per_mm": 9}])
    )
    assert [bars.per_mm for bars in from_file(listed)] == [250, 9]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no list of bars"),
        ("x_um,y_um\n1,2\n", "bars 1: says no group"),
        ("x_um,group,element\n1,7,2\n", "bars 1: y_um missing"),
        ("x_um,y_um,per_mm\n1,2,fine\n", "per_mm 'fine' is no number"),
        ("x_um,y_um,group,element\n1,2,7.5,1\n", "whole numbers"),
        ("x_um,y_um,per_mm\n1,2,-3\n", "the last > 0"),
    ],
)
def test_a_list_that_says_too_little_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bars.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=says):
        from_file(path)
