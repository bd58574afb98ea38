"""LED patterns, their direction sines, and the files that list them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpmtools import leds
from fpmtools.errors import DataError, FpmError, OptionError
from fpmtools.formats import load


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


@pytest.mark.parametrize(
    ("first", "then", "even", "begin"),
    [
        ("+x", "+y", False, [[0, 0], [1, 0], [1, 1], [0, 1], [-1, 1]]),
        ("-y", "+x", False, [[0, 0], [0, -1], [1, -1], [1, 0], [1, 1]]),
        ("y", "-x", False, [[0, 0], [0, 1], [-1, 1], [-1, 0], [-1, -1]]),
        ("+x", "+y", True, [[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5], [-1.5, 0.5]]),
        ("-x", "+y", True, [[0.5, -0.5], [-0.5, -0.5], [-0.5, 0.5], [0.5, 0.5], [1.5, 0.5]]),
    ],
)
def test_spirals_start_and_turn_as_told(first: str, then: str, even: bool, begin: list[list[float]]) -> None:
    np.testing.assert_array_equal(leds.spiral(5, 4.0, first, then, even), 4.0 * np.array(begin))
    side = 6 if even else 5
    board = leds.spiral(side**2, 1.0, first, then, even)
    assert sorted(map(tuple, board.tolist())) == sorted(map(tuple, leds.raster(side, side, 1.0).tolist()))


@pytest.mark.parametrize(("first", "then"), [("+x", "-x"), ("x", "x"), ("right", "+y"), ("+x", "")])
def test_spirals_that_do_not_turn(first: str, then: str) -> None:
    with pytest.raises(OptionError, match=r"one of \+x, -x and one of \+y, -y"):
        leds.from_mapping({"rule": "spiral", "count": 4, "pitch_mm": 1, "height_mm": 1, "first": first, "then": then})


def test_an_even_board_has_no_led_on_the_axis() -> None:
    board = leds.raster(8, 8, 2.0)
    np.testing.assert_allclose(np.linalg.norm(board, axis=1).min(), np.sqrt(2))
    np.testing.assert_allclose(board.mean(axis=0), 0, atol=1e-15)


def test_a_board_stands_off_the_axis_before_it_is_turned() -> None:
    spec = {"rule": "raster", "ny": 2, "nx": 3, "pitch_mm": 4, "height_mm": 80, "offset_mm": [1.5, -2], "axes": "y,x"}
    x, y = (leds.raster(2, 3, 4.0) + np.array([1.5, -2])).T
    np.testing.assert_allclose(leds.from_mapping(spec).na, leds.direction_sines(np.stack([y, x], axis=1), 80))


LISTS = {"gain": [1, 0.5, 2], "exposure_ms": [20, 10, 100], "background": [0, 3, 4.5], "used": [1, 0, True]}


def test_what_else_is_known_of_each_led(tmp_path: Path) -> None:
    na = [[0.2, 0], [0.01, 0], [0, 0.3]]
    lines = ["na_x,na_y,note,gain,exposure_ms,background,used"]
    lines += ["0.2,0,a,1,20,0,1", "0.01,0,b,0.5,10,3,no", "0,0.3,c,2,100,4.5,yes"]
    (tmp_path / "leds.csv").write_text("\n".join(lines))
    for board in (leds.from_mapping({"na": na, **LISTS}), leds.from_file(tmp_path / "leds.csv")):
        np.testing.assert_array_equal(board.na, na)
        assert board.gain is not None
        np.testing.assert_allclose(board.gain, [2, 0.5, 20])  # exposures relative to that of the LED nearest the axis
        np.testing.assert_array_equal(board.background, [0, 3, 4.5])
        np.testing.assert_array_equal(board.used, [True, False, True])
    plain = leds.from_mapping({"na": na})
    assert (plain.gain, plain.background, plain.used, plain.patterns) == (None, None, None, None)


def test_it_ends_in_the_calibration(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((3, 9, 10)) + np.arange(3)[:, None, None])
    optics = {"wavelength_um": 0.5, "na": 0.1, "magnification": 4, "camera_pixel_um": 4}
    spec = {"na": [[0.05, 0], [0.01, 0], [0, 0.08]], **LISTS}
    found = load(tmp_path / "a.npy", optics=optics, leds=spec).calibration
    np.testing.assert_allclose(found.gain, [2, 0.5, 20])
    np.testing.assert_array_equal(found.background, LISTS["background"])
    assert found.used.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"gain": [1, 2]}, "gain must be a list of 3 numbers, one per LED"),
        ({"gain": 1}, "gain must be a list of 3 numbers"),
        ({"gain": [1, -1, 1]}, "gain must be finite and 0 or more, and that of LED 1 is not"),
        ({"background": [1, float("nan"), 1]}, "background must be finite"),
        ({"exposure_ms": [1, 0, 1]}, "exposure_ms must be positive"),
        ({"used": [1, 2, 0]}, "used must be 1 or 0"),
        ({"gain": [1, "a", 1]}, "could not convert"),
        ({"patterns": [[1, 0, 0], [0, 1, 0]], "used": [1, 0, 1]}, "patterns are of 2 images, and used is of 3"),
        ({"patterns": [[1, 0]]}, "a column for each of the 3 LEDs"),
        ({"offset_mm": [1, 2]}, "unknown entry 'offset_mm'"),
    ],
)
def test_columns_that_do_not_fit(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(FpmError, match=reason) as caught:
        leds.from_mapping({"na": [[0, 0], [0.1, 0], [0, 0.1]], **change}, "board.json")
    assert "\n" not in str(caught.value)
    assert "board.json" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "na_x,na_y,used\n0,0,perhaps\n",
            r"line 2 does not hold a number \(used: 1 or 0\) in each of na_x, na_y, used",
        ),
        ("na_x,na_y,exposure_ms\n0,0,0\n", r"leds\.csv: exposure_ms must be positive"),
        ("na_x,na_y,gain\n0,0,\n", "line 2"),
    ],
)
def test_columns_of_a_file_that_do_not_fit(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "leds.csv").write_text(text)
    with pytest.raises(DataError, match=reason):
        leds.from_file(tmp_path / "leds.csv")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 0\n0 x\n", "line 2 holds something else than numbers"),
        ("1,0\n# note\n1\n", "line 3 has 1 numbers, the first one has 2"),
        ("# only a note\n", "holds no patterns"),
    ],
)
def test_files_of_patterns(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text(text)
    with pytest.raises(DataError, match=rf"p\.txt: {reason}"):
        leds.patterns_from_file(tmp_path / "p.txt")
    (tmp_path / "p.txt").write_text("1, 0  # left\n0.5 2\n")
    np.testing.assert_array_equal(leds.patterns_from_file(tmp_path / "p.txt"), [[1, 0], [0.5, 2]])


def test_the_elfpie_board_is_an_even_spiral(measured_data: Callable[[str], Path]) -> None:
    rule = {"rule": "spiral", "count": 64, "even": True, "pitch_mm": 8, "height_mm": 180}
    listed = leds.from_file(measured_data("elfpie_usaf") / "leds.csv")
    np.testing.assert_allclose(leds.from_mapping(rule).na, listed.na, atol=1e-12)
