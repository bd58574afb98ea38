"""Resolution without a truth: Fourier ring correlation of two reconstructions from independent halves of the LEDs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools.dataset import Dataset
from fpmtools.errors import DataError
from fpmtools.metrics.images import align
from fpmtools.metrics.prediction import Solve
from fpmtools.optics import frequency_axes, to_spectrum
from fpmtools.reconstruction import Reconstruction


@dataclass(frozen=True)
class RingCorrelation:
    """Correlation of two spectra on rings, each array [ring].

    ``frequency`` in cycles per µm, ``correlation`` from −1 to 1 (0 where a spectrum is empty), ``samples`` per ring.
    """

    frequency: NDArray[np.float64]
    correlation: NDArray[np.float64]
    samples: NDArray[np.int_]

    @property
    def threshold(self) -> NDArray[np.float64]:
        """The half-bit curve for two halves of the data, of which each has the signal-to-noise ratio (√2 − 1)/2.

        (0.2071 + 1.9102/√n) / (1.2071 + 0.9102/√n); van Heel & Schatz, J. Struct. Biol. 151, 250 (2005), eq. 17.
        """
        root = np.sqrt(self.samples)
        return np.asarray((0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root))

    @property
    def resolution_um(self) -> float:
        """Period, µm, at which the correlation first falls below :attr:`threshold`; see :meth:`resolution_um_at`."""
        return self.resolution_um_at(self.threshold)

    def resolution_um_at(self, threshold: NDArray[np.float64] | float) -> float:
        """Period, µm, at which the correlation first falls below a threshold; the last ring's if it never does.

        The crossing is interpolated between rings. The innermost ring, the mean, does not count, nor do rings before
        the first that is above: there are few samples in them, and FPM hardly measures such coarse phases.
        """
        above = np.asarray(self.correlation - threshold)
        reached = np.flatnonzero(above[1:] >= 0)
        start_ring = int(reached[0]) + 1 if len(reached) else 1
        below = np.flatnonzero(above[start_ring:] < 0) + start_ring
        if len(below) == 0:
            return float(1 / self.frequency[-1])
        outer = int(below[0])
        inner = outer - 1
        start = max(float(above[inner]), 0.0)
        weight = start / (start - float(above[outer]))
        crossing = (1 - weight) * self.frequency[inner] + weight * self.frequency[outer]
        return float(1 / max(crossing, self.frequency[1] / 2))


def ring_correlation(
    first: NDArray[Any],
    second: NDArray[Any],
    pixel_um: tuple[float, float],
    *,
    cutoff: float | None = None,
    taper: float = 0.125,
) -> RingCorrelation:
    """Fourier ring correlation of two complex or real fields [y, x], or of stacks of them [z, y, x].

    Re Σ F₁ F₂* / √(Σ|F₁|² Σ|F₂|²) over rings as wide as the coarser frequency step, and over z (Saxton & Baumeister,
    J. Microsc. 127, 127, 1982), up to ``cutoff`` (cycles per µm) if it is given. Before, each second field gets the
    complex gain that brings it closest to the first one, means are taken out, and the outer share ``taper`` of each
    side is faded out, lest both agree on the borders.
    """
    if first.shape != second.shape or first.ndim not in (2, 3):
        raise DataError(f"ring correlation needs two fields of one shape, got {first.shape} and {second.shape}")
    one, other = (np.atleast_3d(f.astype(np.complex128).T).T for f in (first, second))
    shape = (int(one.shape[1]), int(one.shape[2]))
    other = np.stack([align(a, b) * b for a, b in zip(one, other, strict=True)])
    fade = np.outer(*(_fade(n, taper) for n in shape))
    spectra = [to_spectrum((f - f.mean(axis=(-2, -1), keepdims=True)) * fade) for f in (one, other)]
    fy, fx = frequency_axes(shape, pixel_um[0])[0], frequency_axes(shape, pixel_um[1])[1]
    width = 1 / min(shape[0] * pixel_um[0], shape[1] * pixel_um[1])
    ring = np.rint(np.hypot(fy[:, None], fx) / width).astype(int)
    # The last ring that the grid holds whole; beyond the cutoff the spectra hold only what the fading spreads there.
    last = int(min(-fy[0], -fx[0], np.inf if cutoff is None else cutoff) / width)

    def sums(values: NDArray[Any]) -> NDArray[np.float64]:
        total = np.bincount(ring.ravel(), weights=values.sum(axis=0).ravel())
        return np.asarray(total[: last + 1], dtype=np.float64)

    cross = sums((spectra[0] * np.conj(spectra[1])).real)
    power = [sums(np.abs(s) ** 2) for s in spectra]
    joint = np.sqrt(power[0] * power[1])
    empty = joint <= 1e-14 * joint.max()  # outside the synthetic aperture
    correlation = np.where(empty, 0, cross / np.where(empty, 1, joint))
    frequency = np.asarray(np.arange(last + 1) * width, dtype=np.float64)
    return RingCorrelation(frequency, correlation, np.bincount(ring.ravel())[: last + 1])


def interleaved_halves(dataset: Dataset) -> tuple[list[int], list[int]]:
    """LED indices of two halves that each sample the whole synthetic aperture.

    From the axis outwards each LED is paired with its nearest free neighbour, and one goes to either half in turn.
    """
    if dataset.n_images < 4:
        raise DataError(f"{dataset.name}: two halves of the LEDs need at least 4 of them")
    free = dataset.calibration.order.tolist()
    na = dataset.calibration.image_na
    halves: tuple[list[int], list[int]] = ([], [])
    turn = 0
    while free:
        led = free.pop(0)
        halves[turn].append(led)
        if free:
            nearest = min(free, key=lambda other: float(np.linalg.norm(na[other] - na[led])))
            free.remove(nearest)
            halves[1 - turn].append(nearest)
        turn = 1 - turn
    return sorted(halves[0]), sorted(halves[1])


def half_solves(dataset: Dataset, solve: Solve) -> tuple[Reconstruction, Reconstruction]:
    """Reconstructions from the two :func:`interleaved_halves`; ``solve`` turns a data set into a reconstruction."""
    first, second = interleaved_halves(dataset)
    return solve(dataset.select(first)), solve(dataset.select(second))


def correlate_halves(
    first: Reconstruction, second: Reconstruction, *, cutoff: float | None = None, planes: int = 5
) -> RingCorrelation:
    """Ring correlation of two reconstructions of one sample, over ``planes`` z spread over their common range.

    ``cutoff`` is the edge of the synthetic aperture, cycles per µm. Each half has fewer and wider spaced LEDs than the
    whole, so that the resolution found is, if anything, too coarse.
    """
    low = max(first.grid.z_range[0], second.grid.z_range[0])
    high = min(first.grid.z_range[1], second.grid.z_range[1])
    if low > high:
        raise DataError("ring correlation: the two reconstructions have no z in common")
    depths = np.linspace(low, high, planes) if high > low else np.array([low])
    fields = [np.stack([half.field(float(z), first.grid.shape) for z in depths]) for half in (first, second)]
    return ring_correlation(fields[0], fields[1], first.grid.pixel_um, cutoff=cutoff)


def half_data_correlation(dataset: Dataset, solve: Solve) -> RingCorrelation:
    """Ring correlation of :func:`half_solves` up to the edge of the synthetic aperture."""
    cutoff = dataset.optics.synthetic_na(dataset.na) / dataset.optics.wavelength_um
    return correlate_halves(*half_solves(dataset, solve), cutoff=cutoff)


def _fade(count: int, share: float) -> NDArray[np.float64]:
    """1 in the middle, and a raised cosine down to 0 over ``share`` of each end."""
    if share <= 0:
        return np.ones(count)
    edge = np.minimum(np.arange(count) + 0.5, count - 0.5 - np.arange(count)) / (share * count)
    return np.asarray(0.5 - 0.5 * np.cos(np.pi * np.minimum(edge, 1)))
