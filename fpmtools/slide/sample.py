"""A sample without end: transmission as a function of the place, so that any part of it can be made alone.

Cells, one near each point of a grid, on a texture of the same strength in every octave. All that is drawn at random
belongs to a square of a grid, and has a generator of its own from the seed and the square's place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

OCTAVES_UM = (1.2, 2.4, 4.8, 9.6, 19.2, 38.4)  # distance of the texture's nodes
LATTICE = 64  # nodes along an axis that are drawn at once
CELL_UM = 15.0  # side of the square that has one cell
THICKNESS, STAIN = 0.10, 0.03  # of each octave, rad and nepers

Floats = NDArray[np.float64]
Span = tuple[int, int]  # from and to, the latter left out


def transmission(seed: int, pixel_um: float, y: Span, x: Span) -> NDArray[np.complex64]:
    """Pixels y and x of the sample, [y, x]; pixel (0, 0) may be anywhere in it."""
    shape = y[1] - y[0], x[1] - x[0]
    phase, density = np.zeros(shape), np.zeros(shape)
    for octave, distance in enumerate(OCTAVES_UM):
        texture = _texture([seed, octave], distance / pixel_um, y, x)
        phase += THICKNESS * texture
        density += STAIN * texture
    for middle, radius_um, dark in _cells(seed, pixel_um, y, x):
        reach = math.ceil(1.6 * radius_um / pixel_um)
        spans = [(max(round(m) - reach, a), min(round(m) + reach, b)) for m, (a, b) in zip(middle, (y, x), strict=True)]
        if any(a >= b for a, b in spans):
            continue
        rows, columns = ((np.arange(*span) - m) * pixel_um / radius_um for span, m in zip(spans, middle, strict=True))
        distance = np.hypot(rows[:, None], columns)
        disc = 0.5 * np.tanh(4 * (1 - distance)) + 0.5
        box = tuple(slice(a - first, b - first) for (a, b), (first, _) in zip(spans, (y, x), strict=True))
        phase[box] += disc * (0.8 - 0.35 * np.exp(-4 * distance**2))  # thinner in the middle, as red cells are
        density[box] += dark * disc
    return np.asarray(np.exp(1j * phase - np.maximum(density + 0.08, 0)), dtype=np.complex64)


def _generator(seed: list[int], row: int, column: int) -> np.random.Generator:
    return np.random.default_rng([*seed, row % (1 << 32), column % (1 << 32)])


def _cells(seed: int, pixel_um: float, y: Span, x: Span) -> Iterator[tuple[tuple[float, float], float, float]]:
    """Middle (y, x) in pixels, radius in µm and stain of the cells that can reach into a part, always in one order."""
    step = CELL_UM / pixel_um
    rows, columns = (range(math.floor(a / step) - 1, math.floor(b / step) + 2) for a, b in (y, x))
    for row in rows:
        for column in columns:
            down, along, size, dark = _generator([seed, 100], row, column).random(4).tolist()
            yield ((row + down) * step, (column + along) * step), 2.8 + 1.6 * size, 0.25 * dark


def _texture(seed: list[int], step: float, y: Span, x: Span) -> Floats:
    """A cubic B-spline [y, x] whose nodes, ``step`` pixels apart, have values of unit variance."""
    rows, columns = ((math.floor(a / step) - 1, math.floor(b / step) + 4) for a, b in (y, x))
    nodes = np.zeros((rows[1] - rows[0], columns[1] - columns[0]))
    for row in range(rows[0] // LATTICE, (rows[1] - 1) // LATTICE + 1):
        for column in range(columns[0] // LATTICE, (columns[1] - 1) // LATTICE + 1):
            values = _generator(seed, row, column).standard_normal((LATTICE, LATTICE))
            corner, spans = (row * LATTICE, column * LATTICE), []
            for first, (low, high) in zip(corner, (rows, columns), strict=True):
                spans.append((max(first, low), min(first + LATTICE, high)))
            there = tuple(slice(a - low, b - low) for (a, b), (low, _) in zip(spans, (rows, columns), strict=True))
            here = tuple(slice(a - first, b - first) for (a, b), first in zip(spans, corner, strict=True))
            nodes[there] = values[here]
    by_row, by_column = (_spline(span, nodes_at, step) for span, nodes_at in ((y, rows), (x, columns)))
    return np.asarray(by_row @ nodes @ by_column.T)


def _spline(pixels: Span, nodes: Span, step: float) -> Floats:
    """What each node counts at each pixel, [pixel, node]."""
    away = np.abs(np.arange(*pixels)[:, None] / step - np.arange(*nodes))
    near, far = 2 / 3 - away**2 + away**3 / 2, np.maximum(2 - away, 0) ** 3 / 6
    return np.asarray(np.where(away < 1, near, far))
