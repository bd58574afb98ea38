"""An instrument that changes over the field, for solvers that know of one pupil and one depth.

Aberrations change over the field, and a sample that is tilted has another depth at each place. Tiles are so small that
what holds in their middle nearly does; what that misses is slow phase, another in each tile. So a tile is solved twice:
by its first result the images are computed as the instrument of its middle makes them, and as that of each place does;
the difference is taken off the measured amplitudes, and what is left is what one instrument can explain. (In numerical
analysis a deferred correction: V. Pereyra, Numer. Math. 10, 316, 1967.) Any solver gains from that, and none need know.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from fpmtools.forward.model import ForwardModel

if TYPE_CHECKING:
    from fpmtools.calibration import Calibration
    from fpmtools.optics import Box, Optics

PLACES = 3  # along each axis of the field, between which fields are blended
LITTLE = 0.05  # rad rms over the pupil, from the middle of a field to a corner: less is not worth a second solve
MUCH = 0.6  # beyond which the first result is too far off for that, and places too far apart to blend
Slope = tuple[float, float]


def change_rad(calibration: Calibration, optics: Optics, box: Box, slope_um: Slope) -> float:
    """How much the phase of the pupil changes from the middle of a field to its corners, rms over the pupil.

    ``box`` is the field's place where the calibration's own begins at (0, 0).
    """
    y, x, height, width = box
    corners = [(y + a * height, x + b * width, 0, 0) for a in (0, 1) for b in (0, 1)]
    # exp(i k_z z) is 2π/λ · z · NA²/4 rms from its mean, for a low NA.
    steep = math.pi / optics.wavelength_um * optics.na**2 / (math.sqrt(12) * optics.medium_index)
    squares = [steep**2 * sum(slope_um) ** 2, steep**2 * (slope_um[0] - slope_um[1]) ** 2]
    changed = np.zeros(1)
    if calibration.aberrations is not None:
        values = calibration.aberrations.at([(y, x, height, width), *map(_whole, corners)])
        changed = np.square(values[1:] - values[0])[:, 1:].sum(axis=1)
    return math.sqrt(max(squares) + float(changed.max()))


def amplitudes(
    forward: ForwardModel, spectrum: torch.Tensor, z_um: float, slope_um: Slope, images: Sequence[int] | None = None
) -> torch.Tensor:
    """Amplitudes [image, h, w] of a centred spectrum [H, W] under an instrument that changes over the field.

    Fields are computed with the pupil and the depth of 3 × 3 places, from border to border, and blended linearly in
    between; beyond the border those of the nearest place hold. ``z_um`` is the depth in the middle, from which the
    sample rises by ``slope_um`` (y, x) to the lower and to the right border.
    """
    leds, known, optics = forward.lit(images), forward.calibration, forward.optics
    margin, extent = forward.plan.margin_um, forward.plan.extent_um
    sides = [(e - 2 * m) / optics.pixel_um for e, m in zip(extent, margin, strict=True)]
    axes = zip(forward.plan.camera_pixels(optics.pixel_um), sides, strict=True)
    shares = [_shares((at + 0.5) / side) for at, side in axes]
    total: torch.Tensor | None = None
    for i, j in itertools.product(range(PLACES), repeat=2):
        share = torch.from_numpy(shares[0][i][:, None] * shares[1][j]).to(forward.real_dtype).to(forward.device)
        model, (v, u) = forward, (i / (PLACES - 1), j / (PLACES - 1))
        if known.aberrations is not None:
            there = known.aberrations.at([_whole((v * sides[0], u * sides[1], 0, 0))])[0]
            pupil = replace(known.pupil, zernike_rad=there)
            model = ForwardModel(
                optics,
                replace(known, pupil=pupil),
                forward.plan,
                subpixel=forward.subpixel,
                device=forward.device,
                dtype=forward.dtype,
            )
        depth = z_um + slope_um[0] * (2 * v - 1) + slope_um[1] * (2 * u - 1)
        field = model.to_image(model.crop(spectrum[None], leds) * model.kernel(depth, leds)).mul_(share)
        total = field if total is None else total.add_(field)
    assert total is not None
    return forward.sizes(total, images)[0]


def _shares(at: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each place has of rows or columns ``at``, from 0 to 1 over the field, [place, at]."""
    steps = np.clip(at, 0, 1) * (PLACES - 1)
    return np.asarray(np.maximum(0, 1 - np.abs(steps - np.arange(PLACES)[:, None])))


def _whole(box: tuple[float, float, int, int]) -> Box:
    return round(box[0]), round(box[1]), box[2], box[3]
