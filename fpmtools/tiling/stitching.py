"""What brings tiles together: a complex gain and a phase ramp of each, by least squares over all overlaps at once.

The phase of a reconstruction is known up to a constant, and where its angles are slightly wrong up to a ramp; its
modulus up to what the light of its part of the field differs by. Where two tiles overlap their quotient tells what one
has more than the other, as a plane of phase. The planes of all overlaps together are solved for, each weighted by how
well it is known, so that no error runs along a chain of tiles.
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

REWEIGHTED = 6  # times that the plane of a seam is fitted
OUTLYING = 2.0  # standard deviations: what is farther from the plane counts less and less
EXACT = 1e-8  # rad², the least variance of a seam's phase: what is known better spoils the numbers of the solve
INDEPENDENT = 10.0  # lengths λ/2NA that errors of a tile's phase go together over: slow ones are seen least
SPREAD_RAMP, SPREAD_GAIN = 1.0, 0.2  # that tiles are expected to have: rad at half a side, log
KNOWN_RAMP = 0.01  # the same where each tile was solved with the angles of its own place, which leave next to none
ROUNDS = 4  # of choosing whole turns and solving


@dataclass(frozen=True)
class Seam:
    """What the tile ``second`` lacks to ``first`` where they overlap.

    The phase is ``plane`` · (1, y − y₀, x − x₀) rad with (y₀, x₀) = ``centre``, in pixels of the field; ``information``
    [3, 3] is the inverse of its covariance. ``gain`` is a natural logarithm, known with the weight ``certainty``.
    """

    first: int
    second: int
    centre: Floats
    plane: Floats
    information: Floats
    gain: float
    certainty: float


@dataclass(frozen=True)
class Joined:
    """Of each tile the ``gain`` (log), the ``phase`` in its middle, rad, and the ``ramp`` (y, x), rad per pixel."""

    gain: Floats
    phase: Floats
    ramp: Floats


def seam(
    first: int, second: int, one: Complex, other: Complex, window: Floats, corner: tuple[int, int], alike: float
) -> Seam | None:
    """Compare two fields [y, x] of the same pixels, the first of which is at ``corner`` of the field.

    ``window`` [y, x]: how far both can be trusted. Errors within ``alike`` pixels are one number. None where there is
    no light.
    """
    quotient = np.asarray(one, np.complex128) * np.conj(other)
    weight = window * np.abs(quotient)
    total = float(weight.sum())
    if not total > 1e-9 * window.sum():
        return None
    y, x = np.arange(one.shape[0])[:, None], np.arange(one.shape[1])[None, :]
    middle = np.array([(weight * y).sum(), (weight * x).sum()]) / total
    at = np.stack([np.ones_like(weight), y - middle[0] + 0 * x, x - middle[1] + 0 * y])
    plane = _coarse(window * quotient, middle)
    robust = weight
    variance = 1.0
    for _ in range(REWEIGHTED):
        left = np.angle(quotient * np.exp(-1j * np.tensordot(plane, at, 1)))
        normal = np.einsum("iyx,jyx,yx->ij", at, at, robust)
        plane = plane + np.linalg.solve(normal, np.einsum("iyx,yx,yx->i", at, left, robust))
        left = np.angle(quotient * np.exp(-1j * np.tensordot(plane, at, 1)))
        variance = max(float(np.average(left**2, weights=robust)), EXACT)
        robust = weight / (1 + left**2 / (OUTLYING**2 * variance))
    counts = robust / float(weight.max()) / alike**2
    information = np.einsum("iyx,jyx,yx->ij", at, at, counts) / variance
    powers = [float((robust * np.abs(field) ** 2).sum()) for field in (one, other)]
    plane[0] = math.remainder(plane[0], 2 * math.pi)
    gain = 0.5 * math.log(powers[0] / powers[1]) if min(powers) > 0 else 0.0
    return Seam(first, second, middle + corner, plane, information, gain, float(counts.sum()) / variance)


def curvature(seams: Sequence[Seam], centres: Floats, most: float) -> float:
    """What all tiles have in common of a phase a |s|², s from each tile's middle: a in rad per pixel², 0 … ``most``.

    It makes the phase of every seam slope along the line between the tiles, by 2 a times their distance; the weighted
    median over the seams is taken.
    """
    if not seams or most <= 0:
        return 0.0
    apart = np.array([centres[s.second] - centres[s.first] for s in seams])
    squared = np.square(apart).sum(axis=1)
    found = np.array([s.plane[1:] @ step for s, step in zip(seams, apart, strict=True)]) / (2 * squared)
    weight = squared * [
        step @ s.information[1:, 1:] @ step / n for s, step, n in zip(seams, apart, squared, strict=True)
    ]
    order = np.argsort(found, kind="stable")
    total = np.cumsum(weight[order])
    middle = float(found[order][int(np.searchsorted(total, total[-1] / 2))])
    return min(max(middle, 0.0), most)


def without_curvature(seams: Sequence[Seam], centres: Floats, curvature: float) -> list[Seam]:
    """The seams of the same tiles, each divided by exp(i ``curvature`` |s|²)."""
    found = []
    for s in seams:
        one, other = s.centre - centres[s.first], s.centre - centres[s.second]
        more = [one @ one - other @ other, *(2 * (one - other))]
        found.append(replace(s, plane=s.plane - curvature * np.array(more)))
    return found


def join(count: int, seams: Sequence[Seam], centres: Floats, half: float, spread_ramp: float = SPREAD_RAMP) -> Joined:
    """Gains, phases and ramps of ``count`` tiles with ``centres`` [tile, (y, x)] and sides of twice ``half``, pixels.

    What no overlap tells, such as the phase of all tiles together, is the least possible. ``spread_ramp``: the ramps
    that are expected, rad at half a side. A seam is narrow and tells a slope worse than known angles do; its errors
    have a sign along a row of tiles, and would add up to a bowl.
    """
    if not seams:
        return Joined(np.zeros(count), np.zeros(count), np.zeros((count, 2)))
    first, second = np.array([s.first for s in seams]), np.array([s.second for s in seams])
    gain = _gains(count, seams, first, second)
    planes = np.array([s.plane for s in seams])
    ramp = _ramps(count, seams, half, spread_ramp)
    phase, roots = _along_tree(count, seams, planes[:, 0] - _expected(seams, np.zeros(count), ramp, centres))
    for _ in range(ROUNDS):
        expected = _expected(seams, phase, ramp, centres)
        turned = planes[:, 0] + 2 * np.pi * np.rint((expected - planes[:, 0]) / (2 * np.pi))
        phase, ramp = _solved(count, seams, turned, centres, half / spread_ramp, roots)
    return Joined(gain, phase - phase.mean(), ramp)


def _coarse(product: Complex, middle: Floats) -> Floats:
    """The plane of phase by the strongest frequency of a product [y, x] of two fields; at ``middle`` its constant."""
    shape = [scipy.fft.next_fast_len(2 * n) for n in product.shape]
    spectrum = np.abs(scipy.fft.fft2(product, shape, axes=(0, 1)))
    row, column = np.unravel_index(int(spectrum.argmax()), spectrum.shape)
    ramp = 2 * np.pi * np.array([scipy.fft.fftfreq(n)[k] for n, k in zip(shape, (row, column), strict=True)])
    y, x = np.arange(product.shape[0])[:, None], np.arange(product.shape[1])[None, :]
    turned = product * np.exp(-1j * (ramp[0] * (y - middle[0]) + ramp[1] * (x - middle[1])))
    return np.array([np.angle(turned.sum()), *ramp])


def _expected(seams: Sequence[Seam], phase: Floats, ramp: Floats, centres: Floats) -> Floats:
    """The phase of each seam in its centre, by these of the tiles."""
    return np.array(
        [
            phase[s.second] + ramp[s.second] @ (s.centre - centres[s.second])
            - phase[s.first] - ramp[s.first] @ (s.centre - centres[s.first])
            for s in seams
        ]
    )  # fmt: skip


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


def _ramps(count: int, seams: Sequence[Seam], half: float, spread: float) -> Floats:
    """By the seams' ramps alone, which have no whole turns to be chosen."""
    rows = np.arange(len(seams))
    found = np.zeros((count, 2))
    for axis in (0, 1):
        weight = np.sqrt([s.information[axis + 1, axis + 1] for s in seams])
        ends = (np.concatenate([rows, rows]), np.concatenate([[s.second for s in seams], [s.first for s in seams]]))
        matrix = scipy.sparse.csr_matrix((np.concatenate([weight, -weight]), ends), (len(seams), count))
        measured = weight * [s.plane[axis + 1] for s in seams]
        found[:, axis] = _least_squares(matrix, measured, np.full(count, half / spread))
    return found


def _solved(
    count: int, seams: Sequence[Seam], phases: Floats, centres: Floats, flat: float, roots: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """Phases [tile] and ramps [tile, (y, x)], from the seams with whole turns chosen; the phase of ``roots`` is 0.

    ``flat``: the inverse of the ramps that are expected, pixels per rad.
    """
    data, rows, columns, measured = [], [], [], []
    for k, s in enumerate(seams):
        root = np.linalg.cholesky(s.information + 1e-12 * np.trace(s.information) * np.eye(3)).T
        measured.append(root @ [phases[k], *s.plane[1:]])
        for tile, sign in ((s.second, 1.0), (s.first, -1.0)):
            away = s.centre - centres[tile]
            block = sign * root @ np.array([[1.0, *away], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
            data.append(block.ravel())
            rows.append(np.repeat(np.arange(3) + 3 * k, 3))
            columns.append(np.tile(np.arange(3) + 3 * tile, 3))
    where = (np.concatenate(rows), np.concatenate(columns))
    matrix = scipy.sparse.csr_matrix((np.concatenate(data), where), (3 * len(seams), 3 * count))
    expected = np.full((count, 3), flat)
    expected[:, 0] = roots
    found = _least_squares(matrix, np.concatenate(measured), expected.ravel()).reshape(count, 3)
    return found[:, 0], found[:, 1:]


def _least_squares(matrix: Any, measured: Floats, inverse_spread: Floats) -> Floats:
    """argmin |matrix x − measured|² + |inverse_spread · x|²."""
    normal = (matrix.T @ matrix + scipy.sparse.diags(inverse_spread**2)).tocsc()
    return np.asarray(scipy.sparse.linalg.spsolve(normal, matrix.T @ measured))
