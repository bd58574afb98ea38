"""What brings tiles together: complex gain, phase ramp and bend of each, by least squares over all overlaps at once.

The phase of a reconstruction is known up to a constant; up to a ramp where its angles are slightly wrong, and up to a
slow curve where the pupil or the light's curvature is; its modulus up to what the light of its part of the field
differs by. Where two tiles overlap their quotient tells what one has more than the other, as a polynomial of second
order. Those of all overlaps together are solved for, each weighted by how well it is known, so that no error runs along
a chain of tiles. Lengths are in half a tile's side here unless they are called pixels, so that a coefficient is the
phase that it makes at a tile's border.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.fft
import scipy.sparse
import scipy.sparse.linalg
from numpy.typing import NDArray
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

Floats = NDArray[np.float64]
Complex = NDArray[np.complexfloating[Any, Any]]

TERMS = 6  # of a phase: 1, y, x, y², yx, x²
REWEIGHTED = 6  # times that the phase of a seam is fitted
OUTLYING = 2.0  # standard deviations: what is farther from the fit counts less and less
EXACT = 1e-8  # rad², the least variance of a seam's phase: what is known better spoils the numbers of the solve
INDEPENDENT = 10.0  # lengths λ/2NA that errors of a tile's phase go together over: slow ones are seen least
SPREAD_RAMP, SPREAD_GAIN = 1.0, 0.2  # that tiles are expected to have: rad, log
# The same where each tile was solved with the angles of its own place, which leave next to no ramp. But slow phase is
# seen by few LEDs, and what is slightly wrong with the model ends there.
KNOWN_RAMP, KNOWN_BEND = 0.01, 0.05
ROUNDS = 4  # of choosing whole turns and solving


@dataclass(frozen=True)
class Seam:
    """What the tile ``second`` lacks to ``first`` where they overlap.

    The phase is ``phase`` [6] · (1, y, x, y², yx, x²) rad, from ``centre`` (y, x), which is in pixels of the field;
    ``information`` [6, 6] is the inverse of its covariance. ``gain`` is a natural logarithm, known with the weight
    ``certainty``.
    """

    first: int
    second: int
    centre: Floats
    phase: Floats
    information: Floats
    gain: float
    certainty: float


@dataclass(frozen=True)
class Joined:
    """Of each tile the ``gain`` (log) and the phase: ``phase`` in its middle, rad, ``ramp`` [tile, (y, x)], rad per
    pixel, and ``bend`` [tile, (y², yx, x²)], rad per pixel²."""

    gain: Floats
    phase: Floats
    ramp: Floats
    bend: Floats


def seam(
    first: int,
    second: int,
    one: Complex,
    other: Complex,
    window: Floats,
    corner: tuple[int, int],
    alike: float,
    half: float,
) -> Seam | None:
    """Compare two fields [y, x] of the same pixels, the first of which is at ``corner`` of the field.

    ``window`` [y, x]: how far both can be trusted. Errors within ``alike`` pixels are one number; ``half`` a tile's
    side has so many. None where there is no light.
    """
    quotient = np.asarray(one, np.complex128) * np.conj(other)
    weight = window * np.abs(quotient)
    total = float(weight.sum())
    if not total > 1e-9 * window.sum():
        return None
    y, x = np.arange(one.shape[0])[:, None], np.arange(one.shape[1])[None, :]
    middle = np.array([(weight * y).sum(), (weight * x).sum()]) / total
    at = _terms((y - middle[0]) / half + 0 * x, (x - middle[1]) / half + 0 * y)
    phase = np.zeros(TERMS)
    phase[:3] = _coarse(window * quotient, middle) * (1, half, half)
    robust = weight
    variance = 1.0
    for _ in range(REWEIGHTED):
        left = np.angle(quotient * np.exp(-1j * np.tensordot(phase, at, 1)))
        normal = np.einsum("iyx,jyx,yx->ij", at, at, robust)
        phase = phase + np.linalg.solve(normal, np.einsum("iyx,yx,yx->i", at, left, robust))
        left = np.angle(quotient * np.exp(-1j * np.tensordot(phase, at, 1)))
        variance = max(float(np.average(left**2, weights=robust)), EXACT)
        robust = weight / (1 + left**2 / (OUTLYING**2 * variance))
    counts = robust / float(weight.max()) / alike**2
    information = np.einsum("iyx,jyx,yx->ij", at, at, counts) / variance
    powers = [float((robust * np.abs(field) ** 2).sum()) for field in (one, other)]
    phase[0] = math.remainder(phase[0], 2 * math.pi)
    gain = 0.5 * math.log(powers[0] / powers[1]) if min(powers) > 0 else 0.0
    return Seam(first, second, middle + corner, phase, information, gain, float(counts.sum()) / variance)


def curvature(seams: Sequence[Seam], centres: Floats, half: float, most: float) -> float:
    """What all tiles have in common of a phase a |s|², s from each tile's middle: a in rad per pixel², 0 … ``most``.

    It makes the phase of every seam slope along the line between the tiles, by 2 a times their distance; the weighted
    median over the seams is taken.
    """
    if not seams or most <= 0:
        return 0.0
    apart = np.array([centres[s.second] - centres[s.first] for s in seams])
    squared = np.square(apart).sum(axis=1)
    found = np.array([s.phase[1:3] @ step for s, step in zip(seams, apart, strict=True)]) / (2 * half * squared)
    weight = squared * [
        step @ s.information[1:3, 1:3] @ step / n for s, step, n in zip(seams, apart, squared, strict=True)
    ]
    order = np.argsort(found, kind="stable")
    total = np.cumsum(weight[order])
    middle = float(found[order][int(np.searchsorted(total, total[-1] / 2))])
    return min(max(middle, 0.0), most)


def without_curvature(seams: Sequence[Seam], centres: Floats, half: float, curvature: float) -> list[Seam]:
    """The seams of the same tiles, each divided by exp(i ``curvature`` |s|²), s in pixels from its middle."""
    found = []
    for s in seams:
        one, other = s.centre - centres[s.first], s.centre - centres[s.second]
        more = [one @ one - other @ other, *(2 * half * (one - other)), 0, 0, 0]
        found.append(replace(s, phase=s.phase - curvature * np.array(more)))
    return found


def join(count: int, seams: Sequence[Seam], centres: Floats, half: float, known: bool) -> Joined:
    """Gains and phases of ``count`` tiles with ``centres`` [tile, (y, x)] and sides of twice ``half``, in pixels.

    What no overlap tells, such as the phase of all tiles together, is the least possible. ``known``: so are the angles
    of each tile. Else tiles may have any ramp and do not bend, for both together could be a bowl over all of them. A
    seam is narrow and tells a slope worse than known angles do; its errors have a sign along a row of tiles, and would
    add up to a bowl, too.
    """
    if not seams:
        return Joined(np.zeros(count), np.zeros(count), np.zeros((count, 2)), np.zeros((count, 3)))
    first, second = np.array([s.first for s in seams]), np.array([s.second for s in seams])
    gain = _gains(count, seams, first, second)
    places = np.array([[(s.centre - centres[tile]) / half for tile in (s.first, s.second)] for s in seams])
    phases = np.array([s.phase for s in seams])
    spread = np.array([KNOWN_RAMP] * 2 + [KNOWN_BEND] * 3 if known else [SPREAD_RAMP] * 2)
    found = np.zeros((count, TERMS))
    found[:, 1:3] = _ramps(count, seams, spread[0])
    found[:, 0], roots = _along_tree(count, seams, phases[:, 0] - _expected(seams, places, found))
    expected = np.column_stack([roots, np.tile(1 / spread, (count, 1))])  # the phase of roots is 0
    for _ in range(ROUNDS):
        likely = _expected(seams, places, found)
        turned = phases.copy()
        turned[:, 0] += 2 * np.pi * np.rint((likely - phases[:, 0]) / (2 * np.pi))
        found[:, : expected.shape[1]] = _solved(seams, turned, places, expected)
    return Joined(gain, found[:, 0] - found[:, 0].mean(), found[:, 1:3] / half, found[:, 3:] / half**2)


def _terms(y: Floats, x: Floats) -> Floats:
    """1, y, x, y², yx, x², [term, …]."""
    return np.stack([np.ones_like(y), y, x, y * y, y * x, x * x])


def _coarse(product: Complex, middle: Floats) -> Floats:
    """The plane of phase by the strongest frequency of a product [y, x] of two fields; at ``middle`` its constant."""
    shape = [scipy.fft.next_fast_len(2 * n) for n in product.shape]
    spectrum = np.abs(scipy.fft.fft2(product, shape, axes=(0, 1)))
    row, column = np.unravel_index(int(spectrum.argmax()), spectrum.shape)
    ramp = 2 * np.pi * np.array([scipy.fft.fftfreq(n)[k] for n, k in zip(shape, (row, column), strict=True)])
    y, x = np.arange(product.shape[0])[:, None], np.arange(product.shape[1])[None, :]
    turned = product * np.exp(-1j * (ramp[0] * (y - middle[0]) + ramp[1] * (x - middle[1])))
    return np.array([np.angle(turned.sum()), *ramp])


def _expected(seams: Sequence[Seam], places: Floats, found: Floats) -> Floats:
    """The phase of each seam in its centre, by the phases ``found`` [tile, term]; see :func:`_solved`."""
    at = np.moveaxis(_terms(places[..., 0], places[..., 1]), 0, -1)
    ends = found[[[s.first, s.second] for s in seams]]
    first, second = np.moveaxis((at * ends).sum(axis=-1), 1, 0)
    return np.asarray(second - first)


def _along_tree(count: int, seams: Sequence[Seam], steps: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Phases of the tiles along the best known seams that reach all of them, and the tiles [bool] it begins at.

    There is one for each group of tiles that no seam connects with others.
    """
    best = max(s.information[0, 0] for s in seams)
    cost = [2.0 - s.information[0, 0] / best for s in seams]  # positive
    ends = ([s.first for s in seams], [s.second for s in seams])
    tree = minimum_spanning_tree(scipy.sparse.csr_matrix((cost, ends), (count, count)))
    step = {(s.first, s.second): float(value) for s, value in zip(seams, steps, strict=True)}
    phase, reached, roots = np.zeros(count), np.zeros(count, bool), np.zeros(count, bool)
    for start in range(count):
        if reached[start]:
            continue
        roots[start] = True
        order, before = breadth_first_order(tree, start, directed=False)
        for tile in order:
            reached[tile] = True
            if tile != start:
                other = int(before[tile])
                known = (other, int(tile)) in step
                phase[tile] = phase[other] + (step[other, int(tile)] if known else -step[int(tile), other])
    return phase, roots


def _gains(count: int, seams: Sequence[Seam], first: NDArray[np.intp], second: NDArray[np.intp]) -> Floats:
    rows, weight = np.arange(len(seams)), np.sqrt([s.certainty for s in seams])
    ends = (np.concatenate([rows, rows]), np.concatenate([second, first]))
    matrix = scipy.sparse.csr_matrix((np.concatenate([weight, -weight]), ends), (len(seams), count))
    return _least_squares(matrix, weight * [s.gain for s in seams], np.full(count, 1 / SPREAD_GAIN))


def _ramps(count: int, seams: Sequence[Seam], spread: float) -> Floats:
    """By the seams' ramps alone, which have no whole turns to be chosen."""
    rows = np.arange(len(seams))
    found = np.zeros((count, 2))
    for axis in (0, 1):
        weight = np.sqrt([s.information[axis + 1, axis + 1] for s in seams])
        ends = (np.concatenate([rows, rows]), np.concatenate([[s.second for s in seams], [s.first for s in seams]]))
        matrix = scipy.sparse.csr_matrix((np.concatenate([weight, -weight]), ends), (len(seams), count))
        measured = weight * [s.phase[axis + 1] for s in seams]
        found[:, axis] = _least_squares(matrix, measured, np.full(count, 1 / spread))
    return found


def _solved(seams: Sequence[Seam], phases: Floats, places: Floats, expected: Floats) -> Floats:
    """Phases of the tiles, [tile, term], from those of the seams with whole turns chosen, [seam, term].

    ``places`` [seam, (first, second), (y, x)]: the middle of the seam from those of its two tiles. ``expected``
    [tile, term]: the inverse of how large each is expected to be, of as many terms as tiles have.
    """
    terms = expected.shape[1]
    data, rows, columns, measured = [], [], [], []
    for k, s in enumerate(seams):
        root = np.linalg.cholesky(s.information + 1e-12 * np.trace(s.information) * np.eye(TERMS)).T
        measured.append(root @ phases[k])
        for tile, sign, (y, x) in ((s.second, 1.0, places[k, 1]), (s.first, -1.0, places[k, 0])):
            data.append((sign * root @ _moved(y, x)[:, :terms]).ravel())
            rows.append(np.repeat(np.arange(TERMS) + TERMS * k, terms))
            columns.append(np.tile(np.arange(terms) + terms * tile, TERMS))
    where = (np.concatenate(rows), np.concatenate(columns))
    matrix = scipy.sparse.csr_matrix((np.concatenate(data), where), (TERMS * len(seams), expected.size))
    return _least_squares(matrix, np.concatenate(measured), expected.ravel()).reshape(expected.shape)


def _moved(y: float, x: float) -> Floats:
    """[term, term]: a phase about the middle of a tile becomes the same about (y, x)."""
    return np.array(
        [
            [1, y, x, y * y, y * x, x * x],
            [0, 1, 0, 2 * y, x, 0],
            [0, 0, 1, 0, y, 2 * x],
            [0, 0, 0, 1, 0, 0],
            [0, 0, 0, 0, 1, 0],
            [0, 0, 0, 0, 0, 1],
        ]
    )


def _least_squares(matrix: Any, measured: Floats, inverse_spread: Floats) -> Floats:
    """argmin |matrix x − measured|² + |inverse_spread · x|²."""
    normal = (matrix.T @ matrix + scipy.sparse.diags(inverse_spread**2)).tocsc()
    return np.asarray(scipy.sparse.linalg.spsolve(normal, matrix.T @ measured))
