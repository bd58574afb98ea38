"""The images that a reconstruction predicts against the measured ones; needs no truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fpmtools.dataset import Dataset
from fpmtools.errors import DataError
from fpmtools.known import KnownSample
from fpmtools.metrics.patterns import shrunk, singular_pictures
from fpmtools.reconstruction import Reconstruction

BLACK = 1e-12  # intensity, where 1 is the mean of the bright field
BATCH_PIXELS = 1 << 23  # camera pixels of predicted images that are in memory at once
Sample = TypeVar("Sample", bound=Dataset | KnownSample)
Solve = Callable[[Dataset], Reconstruction]
Variance = Callable[[int, NDArray[np.float64]], NDArray[np.float64]]


def as_used(reconstruction: Reconstruction, dataset: Sample) -> Sample:
    """The data set, seen as the reconstruction has seen it: with the calibration that it was solved with."""
    used = reconstruction.calibration
    if used is None:
        return dataset
    if used.images != dataset.n_images:
        # A solve of some of the images knows no more than these, but of the pupil, which all have in common.
        used = replace(dataset.calibration, pupil=used.pupil)
    return replace(dataset, calibration=used)


class _Images:
    """Measured amplitudes of a data set, and those that a reconstruction predicts, in the reconstruction's units."""

    def __init__(self, reconstruction: Reconstruction, dataset: Dataset) -> None:
        from fpmtools.forward import ForwardModel
        from fpmtools.sampling import SamplingPlan

        dataset = as_used(reconstruction, dataset)
        self.reconstruction, self.dataset = reconstruction, dataset
        whole = math.prod(dataset.image_shape)
        self.used = dataset.calibration.used & (dataset.images.bad.saturated < whole)
        self.scale = float(reconstruction.metadata.get("intensity_scale", 1.0))
        every = replace(dataset.calibration, used=np.ones(dataset.n_images, bool))
        margin = round(reconstruction.grid.margin_um[0] / dataset.optics.pixel_um)
        plan = SamplingPlan.choose(dataset, every, margin=margin)
        h, w = dataset.image_shape
        plan = replace(plan, image_shape=(h + 2 * margin, w + 2 * margin), scale=self.scale)
        self.forward = ForwardModel(dataset.optics, every, plan)
        self.inside = np.s_[:, margin : margin + h, margin : margin + w]

    def measured(self, leds: Sequence[int]) -> NDArray[np.float64]:
        """0 where a pixel does not count."""
        images = np.stack([np.asarray(self.dataset.images[i], dtype=np.float64) for i in leds])
        amplitudes = np.sqrt(np.maximum(images / self.scale, 0))
        bad = self.dataset.images.bad
        return np.asarray(np.where([bad.of(image) for image in images], 0, amplitudes)) if bad else amplitudes

    def predicted(self, z_um: float, leds: Sequence[int]) -> NDArray[np.float64]:
        """0 where the measured pixel does not count."""
        import torch

        field = np.ascontiguousarray(self.reconstruction.whole(z_um, self.forward.object_shape))
        images: NDArray[np.float64] = self.forward.amplitude(torch.from_numpy(field), z_um, leds)[0].numpy()
        inside, bad = images[self.inside], self.dataset.images.bad
        return np.where([bad.of(self.dataset.images[i]) for i in leds], 0, inside) if bad else inside

    def chi2(self, predicted: NDArray[np.float64], leds: Sequence[int], variance: Variance) -> NDArray[np.float64]:
        """Squared error of the intensities by amplitudes [led, y, x] over its variance, both summed, [led]."""
        found = np.full(len(leds), math.nan)
        for k, i in enumerate(leds):
            image = np.asarray(self.dataset.images[i], dtype=np.float64)
            counts = ~self.dataset.images.bad.of(image)
            error = predicted[k][counts] ** 2 * self.scale - image[counts]
            expected = float(variance(i, image[counts]).sum())
            if expected > 0:
                found[k] = np.square(error).sum() / expected
        return found

    def summary(self, per_led: NDArray[np.float64]) -> dict[str, Any]:
        """A number of each image, [image], and its means."""
        bright, used = self.dataset.bright_field, self.used & np.isfinite(per_led)
        groups = {"all": used, "bright": bright & used, "dark": ~bright & used}
        means = {name: float(per_led[group].mean()) if group.any() else None for name, group in groups.items()}
        return {**means, "per_led": per_led}

    def batches(self, leds: Sequence[int]) -> Iterator[tuple[slice, Sequence[int]]]:
        h, w = self.dataset.image_shape
        size = max(1, BATCH_PIXELS // (h * w))
        for first in range(0, len(leds), size):
            part = slice(first, min(first + size, len(leds)))
            yield part, leds[part]


def residual(
    reconstruction: Reconstruction, dataset: Dataset, *, planes: int = 5, variance: Variance | None = None
) -> dict[str, Any]:
    """How far the images that a reconstruction predicts are from the measured ones; needs no truth.

    For each LED Σ(a − A)² / ΣA² over the camera's pixels, A the measured and a the predicted amplitude, both in the
    reconstruction's units (no gain is fitted), averaged over ``planes`` z spread over the reconstructed range. Pixels
    that are saturated or stuck do not count.

    With ``variance(image, intensities)``, that of pixels of these intensities, for a reconstruction of one plane also
    χ² = Σ(a² − A²)² / Σ variance for each LED: 1 where noise is all that is not explained.

    Returns
    -------
    dict
        ``per_led`` [led] float64; its means ``all``, ``bright`` and ``dark`` (None where there are no such LEDs),
        without images that were left out; ``chi2`` with the same of χ², or None. NaN for an image without noise.
        ``pictures``: :class:`fpmtools.metrics.patterns.SingularPictures` of the errors, measured less predicted, of the
        images that were used; None for several planes.
    """
    low, high = reconstruction.grid.z_range
    depths = np.linspace(low, high, planes) if high > low else np.array([low])
    images = _Images(reconstruction, dataset)
    per_led, chi2 = np.zeros(dataset.n_images), np.zeros(dataset.n_images)
    coarse = []
    for part, leds in images.batches(range(dataset.n_images)):
        measured = images.measured(leds)
        power = _power(measured)
        for z in depths:
            predicted = images.predicted(float(z), leds)
            coarse.append(shrunk(measured - predicted))
            per_led[part] += ((predicted - measured) ** 2).sum(axis=(-2, -1)) / (power * len(depths))
            if variance is not None and len(depths) == 1:
                chi2[part] = images.chi2(predicted, leds, variance)
    known = variance is not None and len(depths) == 1
    left = np.concatenate(coarse) * images.used[:, None, None] if len(depths) == 1 else None
    return {
        **images.summary(per_led),
        "chi2": images.summary(chi2) if known else None,
        "pictures": None if left is None else singular_pictures(left),
    }


def prediction_error(
    reconstruction: Reconstruction, dataset: Dataset, leds: Sequence[int], *, z_um: Sequence[float] | None = None
) -> float:
    """Relative error of the amplitudes that a reconstruction predicts for the LEDs ``leds``, which it has not seen.

    √(mean over these LEDs of Σ(a − A)² / ΣA²), A the measured and a the predicted amplitude; no gain is fitted. Where
    a sample has depth, each camera pixel is predicted from the plane, of ``z_um`` (default: ``dataset.planes_um``
    inside the reconstructed range), that explains the *other* LEDs best around it.
    """
    low, high = reconstruction.grid.z_range
    inside = [z for z in (dataset.planes_um if z_um is None else z_um) if low <= z <= high] or [low, high]
    depths = list(dict.fromkeys(inside))
    images = _Images(reconstruction, dataset)
    seen = sorted(set(np.flatnonzero(images.used).tolist()) - set(leds))
    best = np.full(dataset.image_shape, np.inf)
    squares = np.zeros((len(leds), *dataset.image_shape))
    measured = images.measured(leds)
    for z in depths:
        misfit = _misfit(images, z, seen) if len(depths) > 1 else np.zeros(dataset.image_shape)
        better = misfit < best
        best = np.where(better, misfit, best)
        squares = np.where(better, (images.predicted(z, leds) - measured) ** 2, squares)
    power = _power(measured)
    return math.sqrt(float(np.mean(squares.sum(axis=(-2, -1)) / power)))


def _power(measured: NDArray[np.float64]) -> NDArray[np.float64]:
    """ΣA² of each image, [led]; of a black one next to nothing, for an error cannot be relative to 0."""
    return np.asarray(np.maximum((measured**2).sum(axis=(-2, -1)), BLACK * measured[0].size))


def _misfit(images: _Images, z_um: float, leds: Sequence[int]) -> NDArray[np.float64]:
    """Squared amplitude error [y, x] of the LEDs at one z, summed, and smoothed over 2 µm."""
    from scipy.ndimage import gaussian_filter

    total = np.zeros(images.dataset.image_shape)
    for _, part in images.batches(leds):
        total += ((images.predicted(z_um, part) - images.measured(part)) ** 2).sum(axis=0)
    return np.asarray(gaussian_filter(total, 2.0 / images.dataset.optics.pixel_um))


def held_out_leds(dataset: Dataset, *, share: float = 0.1, seed: int = 0) -> list[int]:
    """LEDs to hold out: ``share`` of all, chosen at random where the rest still covers what they show.

    Never the LED nearest to the axis, nor any that is left out; no two neighbours as long as others are left;
    and only LEDs of whose pupil the rest sees 95 % or more, or the best covered ones. Raises :class:`DataError` for
    fewer than five LEDs.
    """
    na, count = dataset.calibration.image_na, max(1, round(share * dataset.n_images))
    if dataset.n_images < 5 or not 0 < share <= 0.5:
        raise DataError(f"{dataset.name}: holding out LEDs needs at least 5 of them and a share of at most 0.5")
    apart = np.linalg.norm(na[:, None] - na[None], axis=-1)
    spacing = np.median(np.sort(apart, axis=1)[:, 1])
    covered = np.array([_covered(na, i, dataset.optics.na) for i in range(dataset.n_images)])
    covered[dataset.calibration.order[0]] = -1
    covered[~dataset.calibration.used] = -1
    enough = min(0.95, np.sort(covered)[-count])
    candidates = np.random.default_rng([seed, 4]).permutation(np.flatnonzero(covered >= enough))
    chosen: list[int] = []
    for least in (1.5 * spacing, 0.0):
        for i in candidates:
            if len(chosen) < count and i not in chosen and (not chosen or apart[i, chosen].min() > least):
                chosen.append(int(i))
    return sorted(chosen)


def _covered(na: NDArray[np.float64], led: int, objective_na: float) -> float:
    """Share of the pupil of one LED that lies in those of the others."""
    n = np.arange(500) + 0.5  # a sunflower's seeds: even over the disc
    radius, angle = objective_na * np.sqrt(n / 500), n * np.pi * (3 - math.sqrt(5))
    points = na[led] + np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    x, y = (points[:, None] - np.delete(na, led, axis=0)).T
    return float(np.mean((x * x + y * y <= objective_na**2).any(axis=0)))


def held_out_error(
    dataset: Dataset, solve: Solve, *, share: float = 0.1, seed: int = 0, z_um: Sequence[float] | None = None
) -> float:
    """Solve without :func:`held_out_leds` and return the :func:`prediction_error` of these.

    A truth-free score that does not reward a solver for fitting the noise of what it was shown. ``solve`` turns a data
    set into a reconstruction, for example ``lambda part: fpmtools.reconstruct(part, "ap")``.
    """
    leds = held_out_leds(dataset, share=share, seed=seed)
    kept = sorted(set(range(dataset.n_images)) - set(leds))
    return prediction_error(solve(dataset.select(kept)), dataset, leds, z_um=z_um)
