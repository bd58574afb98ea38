"""The clear field, light that has gone past the sample: what is white, and where the phase is zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.floating[Any]]

BINS = 400  # of amplitudes
WIDTH = 0.015  # of the peaks that count as one, of an amplitude
LEAST = 0.15  # of the highest peak, that the brightest one must have
NEAR = 0.08  # of the level: what is clear
SHARE = 0.01  # of all pixels that must be clear
SAMPLES = 1 << 18  # pixels that a level is found from
TURNS = 100  # of the fit
OUTLYING = 2.5  # typical errors, beyond which a pixel counts less and less


def level(amplitude: Reals) -> float:
    """The amplitude of the clear field, by the brightest peak of the histogram of an ``amplitude`` [y, x].

    Fringes beside edges are brighter still, and few; where a sample fills the field it is what is brightest of it.
    """
    values = amplitude[np.isfinite(amplitude)].ravel()
    values = values[:: max(1, len(values) // SAMPLES)]
    top = float(np.percentile(values, 99.9)) if len(values) else 0.0
    if top <= 0:
        return 1.0
    counts, edges = np.histogram(values, BINS, (0.0, 1.1 * top))
    bins = np.arange(-BINS // 8, BINS // 8 + 1)
    kernel = np.exp(-0.5 * (bins / (WIDTH * BINS)) ** 2)
    smooth = np.convolve(counts, kernel / kernel.sum(), "same")
    inner = smooth[1:-1]
    peaks = 1 + np.flatnonzero((inner >= smooth[:-2]) & (inner > smooth[2:]) & (inner >= LEAST * smooth.max()))
    middles = (edges[1:] + edges[:-1]) / 2
    found = float(middles[peaks[-1] if len(peaks) else smooth.argmax()])
    for _ in range(5):
        found = float(np.median(values[np.abs(values - found) < NEAR * found]))
    return found


def white(amplitudes: Sequence[Reals]) -> tuple[list[float], float]:
    """The amplitude of white in each of several colours [y, x], and the share of pixels that are clear in all of them.

    A pixel that is clear in one colour only is no clear field: a stain lets its own colour pass.
    """
    levels = [level(one) for one in amplitudes]
    clear = np.logical_and.reduce([np.abs(one - at) < NEAR * at for one, at in zip(amplitudes, levels, strict=True)])
    share = float(clear.mean())
    if share >= SHARE:
        levels = [float(np.sqrt(np.mean(np.square(one[clear])))) for one in amplitudes]
    return levels, share


def likeness(amplitude: Reals) -> NDArray[np.float64]:
    """How much each pixel [y, x] is as bright as the clear field, from 0 to 1; of a sample that only delays, all."""
    return np.asarray(1 / (1 + ((amplitude / level(amplitude) - 1) / NEAR) ** 2) ** 2, dtype=np.float64)


def flattened(phase: Reals, weight: Reals | None = None) -> NDArray[np.float32]:
    """An unwrapped ``phase`` [y, x], rad, less the :func:`plane` through the clear field, which so becomes zero."""
    rows, columns = (np.linspace(-1, 1, n) for n in phase.shape)
    return np.asarray(phase - height(plane(phase, weight), rows, columns), dtype=np.float32)


def height(plane: NDArray[np.float64], rows: Reals, columns: Reals) -> NDArray[np.float64]:
    """Of a :func:`plane` [y, x] at ``rows`` and ``columns``, from -1 in the first pixel's middle to 1 in the last's."""
    return np.asarray(plane[0] + plane[1] * rows[:, None] + plane[2] * columns, dtype=np.float64)


def plane(phase: Reals, weight: Reals | None = None) -> NDArray[np.float64]:
    """Height, and slopes along y and x, of the plane through the clear field of an unwrapped ``phase`` [y, x], rad.

    It is fitted by least squares in which a pixel counts the less the farther off it is, 1/(1 + (r/s)²)² with s
    a few times the typical r: what most of the field lies on is the clear part of it, and a sample that is thicker or
    denser hardly pulls. ``weight`` [y, x]: what a pixel counts at most, its :func:`likeness` for instance.
    """
    step = max(1, int(np.sqrt(phase.size / SAMPLES)))
    values = np.asarray(phase[::step, ::step], dtype=np.float64)
    rows, columns = (np.linspace(-1, 1, n)[::step] for n in phase.shape)
    most = np.ones_like(values) if weight is None else np.asarray(weight[::step, ::step], np.float64)
    terms = [np.broadcast_to(term, values.shape) for term in (1.0, rows[:, None], columns[None, :])]
    counting = most >= most.max() / 2
    found = np.array([0.0, *_slopes(values, rows, columns)])
    found[0] = _mode(values - sum(c * term for c, term in zip(found, terms, strict=True)), most)
    for _ in range(TURNS):
        left = values - sum(c * term for c, term in zip(found, terms, strict=True))
        spread = max(float(np.median(np.abs(left[counting]))), 1e-6)
        counted = most / (1 + (left / (OUTLYING * spread)) ** 2) ** 2
        normal = np.array([[np.sum(counted * a * b) for b in terms] for a in terms])
        change = np.linalg.lstsq(normal, np.array([np.sum(counted * a * left) for a in terms]), rcond=None)[0]
        found += change
        if np.abs(change).max() < 1e-5:
            break
    return found


def _slopes(values: Reals, rows: Reals, columns: Reals) -> tuple[float, float]:
    """What most neighbours differ by along each axis, for a step of one in ``rows`` and ``columns``."""
    found = []
    for axis, at in ((0, rows), (1, columns)):
        steps = np.diff(values, axis=axis)
        found.append(float(np.median(steps)) / float(at[1] - at[0]) if steps.size else 0.0)
    return found[0], found[1]


def _mode(values: Reals, weight: Reals) -> float:
    """Where most of them lie: the middle of the highest peak of their histogram."""
    low, high = np.percentile(values, (1, 99))
    if high <= low:
        return float(low)
    counts, edges = np.histogram(values, BINS, (low, high), weights=weight)
    bins = np.arange(-BINS // 8, BINS // 8 + 1)
    smooth = np.convolve(counts, np.exp(-0.5 * (bins / (WIDTH * BINS)) ** 2), "same")
    at = int(smooth.argmax())
    return float((edges[at] + edges[at + 1]) / 2)
