"""Stray light that differs over the field, from what the object leaves of the images.

What is left of all images is factored into a few smooth pictures and a level of each in every image, neither of them
negative, for light only adds. Object and stray light take turns: at first the object has come to terms with it.
Left-out images have levels of their own, so these are taken from one half of the pixels, and judged by the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import nnls

from fpmtools.calibrate.descent import Descent
from fpmtools.optics import Shape
from fpmtools.stray import StrayLight

SIDE = 3  # cells along each axis: a picture that is so smooth has nothing of the sample's detail
ROUNDS, BETWEEN = 8, 6  # and steps of the object from one to the next
TURNS = 20  # of pictures and levels, in each round
RIDGE = 1e-6  # of what the cells count
TINY = 1e-12
BLOCKS = 10  # along each axis, of the two halves of the pixels, which alternate

Floats = NDArray[np.float64]


class _Image(NamedTuple):
    """``light`` of the object and an even background, what was ``measured``, 1 where a pixel was ``seen``; [y, x]."""

    light: Floats
    measured: Floats
    seen: Floats


@dataclass(frozen=True)
class _Cells:
    """How the cells of pictures see the pixels: ``rows`` [y, cell] and ``columns`` [x, cell]."""

    rows: Floats
    columns: Floats

    def equations(self, image: _Image, picture: Floats) -> tuple[Floats, Floats]:
        """Normal equations [cell, cell], [cell] of the intensity that one image lacks, weighed as amplitudes are.

        ``picture`` [y, x]: what is taken to be added so far.
        """
        full = image.light + picture
        weight = image.seen / (full + image.measured.mean())
        left = weight * (image.measured - image.light)
        n, m = self.rows.shape[1], self.columns.shape[1]
        by_row = np.einsum("ya,yc->yac", self.rows, self.rows).reshape(-1, n * n)
        by_column = np.einsum("xb,xd->xbd", self.columns, self.columns).reshape(-1, m * m)
        gram = (by_row.T @ weight @ by_column).reshape(n, n, m, m).transpose(0, 2, 1, 3).reshape(n * m, n * m)
        return gram, (self.rows.T @ left @ self.columns).ravel()


def found(state: Descent, rank: int, field: Shape) -> StrayLight:
    """Stray light of that rank, its pictures by the images that the object sees; ``state`` has followed it then.

    ``field``: the camera pixels (y, x) that are looked at.
    """
    count, scale = len(state.problem.amplitudes), state.problem.forward.plan.scale
    stray = StrayLight(
        np.zeros((count, rank)), np.ones((rank, SIDE, SIDE)), (0.0, 0.0, float(field[0]), float(field[1]))
    )
    every = list(range(count))
    for turn in range(ROUNDS):
        gram, pull, error = _equations(state, stray, every)
        pictures = _start(gram[state.seen], pull[state.seen], rank) if turn == 0 else _flat(stray)
        pictures = _factored(gram[state.seen], pull[state.seen], error[state.seen], pictures)
        stray = replace(
            stray, pictures=pictures.reshape(rank, SIDE, SIDE), levels=_levels(gram, pull, pictures) * scale
        )
        state.instrument = replace(state.instrument, stray=stray)
        state.rest()
        state.advance(BETWEEN)
    return stray


def crossed(state: Descent, stray: StrayLight | None) -> Floats:
    """Error of each left-out image, where the levels are taken from the half of its pixels that is not judged."""
    if stray is None:
        return state.left_out()
    forward, errors = state.problem.forward, np.zeros(len(state.held))
    of, maps = _cells(state, stray), stray.at(*forward.plan.camera_pixels(forward.optics.pixel_um))
    half = _halves(maps.shape[1:])
    for k, image in enumerate(_images(state, state.held)):
        before = np.tensordot(stray.levels[state.held[k]] / forward.plan.scale, maps, axes=1)
        for told, judged in ((half, ~half), (~half, half)):
            gram, pull = of.equations(image._replace(seen=image.seen * told), before)
            (level,) = _levels(gram[None], pull[None], _flat(stray))
            size = np.sqrt(image.light + np.tensordot(level, maps, axes=1))
            errors[k] += float((image.seen * judged * (size - np.sqrt(image.measured)) ** 2).sum())
    return errors / forward.counted


def _halves(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """[y, x], a chessboard of blocks."""
    rows, columns = (np.arange(n) * BLOCKS // n for n in shape)
    return np.asarray((rows[:, None] + columns) % 2 == 0)


def _images(state: Descent, images: Iterable[int]) -> Iterable[_Image]:
    """What the object makes of these images without stray light, beside them."""
    forward, even = state.problem.forward, replace(state.instrument, stray=None)
    forward.update(even.calibration(state.softness))
    for i in images:
        psi = forward.to_image(forward.crop(state.object, [i]) * forward.kernel(state.z, [i]))
        light = forward.sizes(psi, [i])[0, 0].double().square().numpy()
        measured, seen = state.problem.amplitudes[i].double().square().numpy(), forward.seen([i])
        counted = np.ones_like(measured) if seen is None else seen.double().numpy().reshape(measured.shape)
        yield _Image(light, measured, counted)


def _cells(state: Descent, stray: StrayLight) -> _Cells:
    forward = state.problem.forward
    return _Cells(*stray.weights(*forward.plan.camera_pixels(forward.optics.pixel_um)))


def _equations(state: Descent, stray: StrayLight, images: list[int]) -> tuple[Floats, Floats, Floats]:
    """Of each image :meth:`_Cells.equations`, and its squared error as it stands, [image]."""
    forward, grams, pulls, errors = state.problem.forward, [], [], []
    of, maps = _cells(state, stray), stray.at(*forward.plan.camera_pixels(forward.optics.pixel_um))
    for i, image in zip(images, _images(state, images), strict=True):
        picture = np.tensordot(stray.levels[i] / forward.plan.scale, maps, axes=1)
        gram, pull = of.equations(image, picture)
        size = np.sqrt(image.light + picture) - np.sqrt(image.measured)
        grams.append(gram)
        pulls.append(pull)
        errors.append(float((image.seen * size**2).sum()))
    return np.stack(grams), np.stack(pulls), np.maximum(errors, TINY)


def _flat(stray: StrayLight) -> Floats:
    return np.asarray(stray.pictures.reshape(len(stray.pictures), -1))


def _start(gram: Floats, pull: Floats, rank: int) -> Floats:
    """Pictures [r, cell] from the singular vectors of what each image lacks by itself."""
    count = gram.shape[1]
    lacking = np.stack([_nonnegative(g, p) for g, p in zip(gram, pull, strict=True)])
    _, _, right = np.linalg.svd(lacking / np.maximum(lacking.sum(1, keepdims=True), TINY), full_matrices=False)
    signed = right[:rank] * np.sign(right[:rank].sum(1, keepdims=True) + TINY)
    return np.asarray(np.maximum(signed, 0.1 / count))


def _factored(gram: Floats, pull: Floats, error: Floats, pictures: Floats) -> Floats:
    """Pictures [r, cell] of mean 1 that explain most of what the images lack, each weighed by its own ``error``."""
    pictures = pictures.copy()
    for _ in range(TURNS):
        levels = _levels(gram, pull, pictures)
        for k in range(len(pictures)):
            others = levels @ pictures - levels[:, k : k + 1] * pictures[k]
            rest = pull - np.einsum("icd,id->ic", gram, others)
            by = levels[:, k] / error
            whole = np.einsum("i,icd->cd", by * levels[:, k], gram)
            if whole.any():
                pictures[k] = _nonnegative(whole, by @ rest)
        mean = pictures.mean(1, keepdims=True)
        pictures = np.where(mean > 0, pictures / np.maximum(mean, TINY), 1.0)
    return pictures


def _levels(gram: Floats, pull: Floats, pictures: Floats) -> Floats:
    """How much of each picture every image has, [image, r], 0 or more."""
    small = np.einsum("rc,icd,sd->irs", pictures, gram, pictures)
    return np.asarray([_nonnegative(g, p) for g, p in zip(small, pull @ pictures.T, strict=True)])


def _nonnegative(gram: Floats, pull: Floats) -> Floats:
    """The x ≥ 0 that minimises xᵀ gram x / 2 − pullᵀ x."""
    factor = cholesky(gram + (RIDGE * np.trace(gram) / len(gram) + TINY) * np.eye(len(gram)), lower=True)
    return np.asarray(nnls(factor.T, solve_triangular(factor, pull, lower=True))[0])
