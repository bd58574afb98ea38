"""Results in as few bytes as the data allow: storing a stack changes less than the images can tell of it.

See docs/stacks.md for the rule, and for what it was checked on.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from fpmtools import losses
from fpmtools.forward import ForwardModel
from fpmtools.low_rank import LowRankStack
from fpmtools.problem import Problem
from fpmtools.reconstruction import PlaneStack, Reconstruction

SHARE = 0.01  # of the variance that noise and misfit leave in a spectrum, which storing it may add: 0.04 dB
MOST = 0.003  # rms error of the field (clear sample: 1): misfit may be the instrument's, not the object's
DEPTHS = 5  # at which the misfit is looked at


def compact(found: Reconstruction, problem: Problem) -> Reconstruction:
    """A stack of planes as one of low rank, rounded as coarsely as the data allow (:func:`allowed_error`).

    What else solvers return has its own way of being stored and stays as it is, and so does a stack that fits the
    images to all digits.
    """
    if type(found) is not PlaneStack:  # one of its subclasses knows better what it stores
        return found
    try:
        return LowRankStack.of_planes(found, allowed_error(found, problem))
    except OverflowError:
        return found


def allowed_error(stack: PlaneStack, problem: Problem) -> float:
    """Rms error of the field, clear sample 1, that is lost in what noise and misfit of the images do to it.

    An amplitude measures one part of a complex number, so images with a mean squared amplitude error e² leave a
    variance of 4 e² / C in a spectrum that Σ |P|² / (h w) = C of them cover. C is the median of the frequencies that
    are covered, e² that of the images, at the depth where it is smallest.
    """
    forward = _as_solved(stack, problem)
    picked = sorted({round(i) for i in np.linspace(0, len(stack.z_um) - 1, DEPTHS)})
    error = min(_error(stack, stack.z_um[i], forward, problem) for i in picked)
    coverage = forward.coverage()[0] / math.prod(forward.image_shape)
    typical = float(coverage[coverage > 0].median())
    variance = 4 * error / typical / math.prod(forward.object_shape)  # of a pixel of the field
    return min(MOST, math.sqrt(SHARE * variance))


def _error(stack: PlaneStack, z_um: float, forward: ForwardModel, problem: Problem) -> float:
    """Median over the images of the mean squared amplitude error of a plane."""
    field = stack.whole(z_um, forward.object_shape)
    spectrum = forward.spectrum(torch.from_numpy(field).to(forward.device, forward.dtype)[None])
    images, errors = range(forward.images), torch.zeros(forward.images, dtype=forward.real_dtype, device=forward.device)

    def work(_: slice, batch: slice) -> None:
        chosen, measured = images[batch], problem.amplitudes[batch]
        kernel = forward.kernel(z_um, forward.lit(chosen))
        errors[batch] = 2 * forward.compare(spectrum, measured, chosen, kernel, losses.squares, None).cost[0]

    forward.in_batches(1, images, work)
    return float(errors.median()) / forward.counted


def _as_solved(stack: PlaneStack, problem: Problem) -> ForwardModel:
    """The problem's forward model, or one of the instrument that the solver has found."""
    forward, used = problem.forward, stack.calibration
    if used is None or used is problem.calibration:
        return forward
    return ForwardModel(
        forward.optics,
        used.selected(),
        forward.plan,
        subpixel=forward.subpixel,
        mask=forward.mask,
        device=forward.device,
        dtype=forward.dtype,
    )
