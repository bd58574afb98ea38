"""LED patterns, their direction sines, and the files that list them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpmtools import leds
from fpmtools.errors import DataError, FpmError, OptionError


def test_raster_runs_along_x_first_and_is_centred() -> None:
    p = leds.raster(3, 4, 2.0)
    np.testing.assert_array_equal(p[:5], [[-3, -2], [-1, -2], [1, -2], [3, -2], [-3, 0]])
    np.testing.assert_allclose(p.mean(axis=0), 0, atol=1e-15)


def test_spiral_goes_right_then_down_then_left() -> None:
    steps = [[0, 0], [1, 0], [1, 1], [0, 1], [-1, 1], [-1, 0], [-1, -1], [0, -1], [1, -1], [2, -1], [2, 0]]
    np.testing.assert_array_equal(leds.spiral(11, 4.0), 4.0 * np.array(steps))


@given(st.integers(0, 8))
def test_a_full_spiral_is_the_raster_in_another_order(k: int) -> None:
    side = 2 * k + 1
    assert sorted(map(tuple, leds.spiral(side**2, 1.0))) == sorted(map(tuple, leds.raster(side, side, 1.0)))


def test_rings_start_at_angle_zero() -> None:
    p = leds.rings([1, 4, 6], 9.0)
    np.testing.assert_allclose(p[:5], [[0, 0], [9, 0], [0, 9], [-9, 0], [0, -9]], atol=1e-12)
    np.testing.assert_allclose(np.hypot(*p[5:].T), 18)
    np.testing.assert_allclose(p[5], [18, 0])
    np.testing.assert_allclose(leds.rings([0, 4], 9.0), p[1:5])


def test_direction_sines() -> None:
    na = leds.direction_sines([[30, 40], [0, 0], [-50, 0]], 50)
    np.testing.assert_allclose(na, [[30 / np.sqrt(5000), 40 / np.sqrt(5000)], [0, 0], [-np.sqrt(0.5), 0]])


@pytest.mark.parametrize(
    ("axes", "expected"),
    [("x,y", [1, 2]), ("-x, -y", [-1, -2]), ("-y,x", [-2, 1]), ("y,-x", [2, -1]), ("+y,+x", [2, 1])],
)
def test_axes_turn_the_board(axes: str, expected: list[float]) -> None:
    board = leds.from_mapping({"na": [[0.1, 0.2], [0.1, 0.2]], "axes": axes})
    np.testing.assert_allclose(board.na, [np.array(expected) / 10] * 2)


@pytest.mark.parametrize(
    ("spec", "positions"),
    [
        ({"rule": "raster", "ny": 3, "nx": 5, "pitch_mm": 4, "height_mm": 80}, leds.raster(3, 5, 4)),
        ({"rule": "spiral", "count": 7, "pitch_mm": 4, "height_mm": 80}, leds.spiral(7, 4)),
        ({"rule": "rings", "counts": [1, 8], "pitch_mm": 4, "height_mm": 80}, leds.rings([1, 8], 4)),
        ({"positions_mm": [[1, 2], [3, 4], [5, 6]], "height_mm": 80}, np.array([[1, 2], [3, 4], [5, 6]])),
    ],
)
def test_descriptions(spec: dict[str, Any], positions: np.ndarray, tmp_path: Path) -> None:
    expected = leds.direction_sines(positions, 80)
    np.testing.assert_array_equal(leds.from_mapping(spec).na, expected)
    (tmp_path / "board.json").write_text(json.dumps(spec))
    np.testing.assert_array_equal(leds.from_file(tmp_path / "board.json").na, expected)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({}, "LED positions are"),
        ({"rule": "ring", "counts": [1], "pitch_mm": 1, "height_mm": 1}, "did you mean 'rings'"),
        ({"rule": "rings", "counts": [1, 8], "pitch_mm": 4}, "height_mm is missing"),
        ({"rule": "spiral", "count": 4, "pitch_mm": 4, "height_mm": 80, "pich": 1}, "unknown entry 'pich'"),
        ({"rule": "rings", "counts": [3, 8], "pitch_mm": 4, "height_mm": 80}, "centre's 1 or 0"),
        ({"rule": "raster", "ny": 0, "nx": 8, "pitch_mm": 4, "height_mm": 80}, "at least 1"),
        ({"rule": "raster", "ny": 2, "nx": 8, "pitch_mm": -4, "height_mm": 80}, "pitch_mm must be a positive"),
        ({"rule": "spiral", "count": 4, "pitch_mm": 4, "height_mm": 0}, "height_mm must be a positive"),
        ({"na": [[0.1, 0.2, 0.3]]}, "pairs"),
        ({"na": [[0.1, "a"]]}, "could not convert"),
        ({"na": [[0.1, 0.2]], "axes": "x,x"}, "axes 'x,x'"),
        ([[0.1, 0.2]], "LED positions are"),
    ],
)
def test_bad_descriptions_say_what_is_wrong(spec: Any, reason: str) -> None:
    with pytest.raises(FpmError, match=reason) as caught:
        leds.from_mapping(spec, "board.json")
    assert "\n" not in str(caught.value)
    assert "board.json" in str(caught.value)


def test_csv_of_direction_sines(tmp_path: Path) -> None:
    path = tmp_path / "leds.csv"
    path.write_text("# measured on Monday\nled, na_x, na_y\n1, 0.1, -0.2\n\n2, 0.3, 0\n")
    np.testing.assert_array_equal(leds.from_file(path).na, [[0.1, -0.2], [0.3, 0]])


def test_csv_of_positions(tmp_path: Path) -> None:
    path = tmp_path / "leds.csv"
    path.write_text("x_mm,y_mm,height_mm\n4,0,80\n0,-4,80\n3,1,75\n")
    expected = [leds.direction_sines([p], h)[0] for p, h in (((4, 0), 80), ((0, -4), 80), ((3, 1), 75))]
    np.testing.assert_allclose(leds.from_file(path).na, expected, rtol=1e-14)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x_mm,y_mm\n1,2\n", "needs columns na_x, na_y or x_mm, y_mm, height_mm; found: x_mm, y_mm"),
        ("na_x,na_y\n0.1,0.2\n0.1,wide\n", "line 3"),
        ("na_x,na_y\n0.1,0.2\n0.1\n", "line 3"),
        ("na_x,na_y\n", "holds no LED"),
        ("", "found: none"),
        ("x_mm,y_mm,height_mm\n1,2,0\n", "height_mm must be positive"),
        ('{"rule": "rings",', "not valid JSON"),
    ],
)
def test_bad_files_say_what_is_wrong(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "leds.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=reason):
        leds.from_file(path)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "leds.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(DataError, match="cannot be read as text"):
        leds.from_file(tmp_path / "leds.csv")


def test_patterns_need_an_led() -> None:
    with pytest.raises(OptionError, match="at least"):
        leds.spiral(0, 1.0)
    with pytest.raises(OptionError, match="at least one LED"):
        leds.rings([], 1.0)
