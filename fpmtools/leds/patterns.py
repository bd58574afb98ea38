"""Regular arrangements of LEDs, in mm on the board, and the direction sines that they light from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fpmtools.errors import DataError, OptionError, printable

MOST_LEDS = 100_000
_HEADINGS = {"+x": (1, 0), "-x": (-1, 0), "+y": (0, 1), "-y": (0, -1), "x": (1, 0), "y": (0, 1)}


def raster(ny: int, nx: int, pitch_mm: float) -> NDArray[np.float64]:
    """``ny`` rows of ``nx`` LEDs, row by row with x fastest; [led, (x, y)] in mm, centred on (0, 0).

    With an even number of rows or columns no LED stands on the axis: the nearest are half a pitch away.
    """
    _check_count("rows and columns", ny, nx)
    y, x = np.mgrid[:ny, :nx]
    return np.stack([x.ravel() - (nx - 1) / 2, y.ravel() - (ny - 1) / 2], axis=1) * pitch_mm


def spiral(count: int, pitch_mm: float, first: str = "+x", then: str = "+y", even: bool = False) -> NDArray[np.float64]:
    """``count`` LEDs of a square grid from the middle outwards: +x, +y, −x, −x, −y, −y, +x, +x, +x, …

    ``first`` and ``then`` are the directions of the first two steps, such as "-y" and "+x". The first LED is at
    (0, 0), or with ``even``, as on a board of 8 × 8, half a pitch before the middle both ways, so that the first four
    LEDs stand around it. Returns [led, (x, y)] in mm.
    """
    _check_count("LEDs", count)
    if first not in _HEADINGS or then not in _HEADINGS or first.lstrip("+-") == then.lstrip("+-"):
        raise OptionError(
            f"spiral: first {printable(first)!r} and then {printable(then)!r} must be one of +x, -x and one of +y, -y, "
            "in either order"
        )
    (ax, ay), (bx, by) = _HEADINGS[first], _HEADINGS[then]
    headings = ((ax, ay), (bx, by), (-ax, -ay), (-bx, -by))
    positions, (x, y) = [(0, 0)], (0, 0)
    leg = 0
    while len(positions) < count:
        dx, dy = headings[leg % 4]
        for _ in range(leg // 2 + 1):
            x, y = x + dx, y + dy
            positions.append((x, y))
        leg += 1
    middle = np.array([ax + bx, ay + by]) / 2 if even else 0.0
    return np.asarray((np.array(positions[:count]) - middle) * pitch_mm)


def rings(counts: Sequence[int], pitch_mm: float) -> NDArray[np.float64]:
    """``counts[k]`` LEDs on a circle of radius k ``pitch_mm``, ring by ring, each from angle 0 (+x) towards +y.

    Returns [led, (x, y)] in mm, centred on (0, 0). The first count is the centre's: 1, or 0 for none.
    """
    if len(counts) == 0 or min(counts) < 0 or not 0 < sum(counts) <= MOST_LEDS or counts[0] > 1:
        raise OptionError(
            f"rings: counts {printable(list(counts))} must start with the centre's 1 or 0 and hold at least one "
            f"LED, and {MOST_LEDS} at most"
        )
    positions = []
    for ring, count in enumerate(counts):
        angle = 2 * np.pi * np.arange(count) / max(count, 1)
        positions.append(ring * pitch_mm * np.stack([np.cos(angle), np.sin(angle)], axis=1))
    return np.concatenate(positions)


def direction_sines(positions_mm: ArrayLike, height_mm: float) -> NDArray[np.float64]:
    """Direction sines p / sqrt(|p|² + h²) of LEDs at ``positions_mm`` [led, (x, y)], ``height_mm`` from the sample."""
    height_mm, p = positive_height(height_mm), pairs(positions_mm, "positions_mm")
    return np.asarray(p / np.sqrt(np.square(p).sum(axis=1, keepdims=True) + height_mm**2))


def positive_height(value: Any) -> float:
    """A height in mm that an LED can have; :class:`OptionError` where it is none."""
    height_mm = float(value)
    if not (math.isfinite(height_mm) and height_mm > 0):
        raise OptionError(f"LEDs: height_mm must be a positive number, got {height_mm:g}")
    return height_mm


def seen_from(
    na: NDArray[np.float64], height_mm: NDArray[np.float64], away_mm: tuple[float, float]
) -> NDArray[np.float64]:
    """Direction sines [led, (x, y)] at a point ``away_mm`` (x, y) on the sample from the one where they are ``na``.

    The LEDs' planes are ``height_mm`` [led] away, over which they stand at p = h na / √(1 - |na|²); at r they are
    (p - r) / √(|p - r|² + h²). One that shines from |na| ≥ 1 stands nowhere in air, and stays.
    """
    height, axial = height_mm[:, None], 1 - np.square(na).sum(axis=1, keepdims=True)
    p = height * na / np.sqrt(np.where(axial > 0, axial, 1.0)) - np.asarray(away_mm)
    return np.where(axial > 0, p / np.sqrt(np.square(p).sum(axis=1, keepdims=True) + height**2), na)


def orient(na: NDArray[np.float64], axes: str) -> NDArray[np.float64]:
    """Direction sines [led, (x, y)] on the image's axes, from those on the LED board's.

    ``axes`` names the board axis that runs along the image's x, and the one along its y, each with its sign:
    ``"x,y"`` keeps them, ``"-x,-y"`` turns both round, ``"-y,x"`` takes x from −(board y) and y from board x.
    """
    terms = [term.strip().removeprefix("+") for term in axes.split(",")]
    letters = [term.removeprefix("-") for term in terms]
    if sorted(letters) != ["x", "y"]:
        raise OptionError(
            f"LEDs: axes {printable(axes)!r} must be x and y in either order, each with its sign, such as '-y,x'"
        )
    signs = np.array([-1.0 if term.startswith("-") else 1.0 for term in terms])
    return np.asarray(na[:, ["xy".index(letter) for letter in letters]] * signs)


def pairs(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """``values`` as finite [led, (x, y)]; :class:`DataError` when they are not."""
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 2 or found.shape[1] != 2:
        raise DataError(f"{name} must be a list of [x, y] pairs, got shape {found.shape}")
    if not np.isfinite(found).all():
        led = int((~np.isfinite(found)).any(axis=1).argmax())
        raise DataError(f"{name} must be finite numbers, and those of LED {led} are not")
    return found


def _check_count(what: str, *counts: int) -> None:
    if min(counts) < 1 or math.prod(counts) > MOST_LEDS:
        got = printable(counts)
        raise OptionError(f"LED pattern: {what} must be at least 1 and at most {MOST_LEDS} together, got {got}")
