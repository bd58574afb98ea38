"""How much each image counts: by what it has of noise, and by how much of its light the model can explain.

See docs/weights.md for where the rule comes from, and for what else was tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from fpmtools.projection import swept
from fpmtools.transfer import put

if TYPE_CHECKING:
    from fpmtools.problem import Problem

CHOICES = EXPLAINED, EQUAL = "explained", "equal"
SWEEPS = 6  # of a look at the data, LED by LED
DEEP = 3, 3  # sweeps, and depths that are spread over the range, of a look at a sample with depth
LITTLE = 5e-3  # share of all light that is not explained, below which the object of a look is worth going on from
OUTLIER = 0.09  # share of an image's light that is not explained, at which it counts a quarter
CLOSE = 2.0  # times what noise alone makes: a look does not come closer to the data than this
RELATIVE = 1e-4  # share of every image's light that is not explained anyhow
AT_EDGE = 6.0  # Fourier pixels of an image on either side of the pupil's edge
ODD, ODDLY = 5.0, 6.0  # times what is usual, at which an image there counts half, and the power beyond
FEWEST = 5  # images that tell what is usual
POWER = 0.45  # of the variance that is expected, in place of 1


def weights(problem: Problem, errors: torch.Tensor) -> torch.Tensor:
    """Weights of the images' squared amplitude errors, [z, image] with a mean of 1 over the images.

    ``errors`` [z, image]: mean squared amplitude errors of an object that explains the images nearly as well as any
    can. What noise makes of them tells nothing against an image.
    """
    light, misfit = _light(problem), _misfit(problem, errors)
    unexplained = misfit / light.clamp_min(torch.finfo(errors.dtype).tiny)
    usual = unexplained.median(1, keepdim=True).values
    expected = problem.noise.to(errors) + (usual + RELATIVE) * light.clamp_min(RELATIVE * light.mean())
    found = (1 + (unexplained / OUTLIER) ** 2) ** -2 / expected**POWER * _at_the_edge(problem, unexplained)
    return found / found.mean(1, keepdim=True)


@dataclass(frozen=True)
class Look:
    """What a few sweeps of alternating projection come to, at some of the depths.

    ``errors`` [image]: mean squared amplitude errors, in the mean over the depths.
    """

    problem: Problem
    errors: torch.Tensor

    @classmethod
    def of(cls, problem: Problem) -> Look:
        """A first look at the data."""
        low, high = problem.z_range
        sweeps, depths = DEEP if high > low else (SWEEPS, 1)
        return cls(problem, swept(problem, np.linspace(low, high, depths).tolist(), sweeps)[1].mean(0))

    def weights(self) -> torch.Tensor:
        """See :func:`weights`; for all depths together, [image]."""
        return weights(self.problem, self.errors[None])[0]

    def left(self) -> float:
        """Share of all light that is not explained, by noise or because the model lacks something."""
        return float(self.errors.sum() / _light(self.problem).sum())


def start(problem: Problem, z_um: Sequence[float], how: str, sweeps: int = SWEEPS) -> tuple[torch.Tensor, torch.Tensor]:
    """What planes are solved from: spectra [z, H, W], and weights [z, image]; ``how``: of :data:`CHOICES`.

    The spectra are what a few sweeps of alternating projection come to, which on targets of high contrast keeps other
    methods out of worse minima. Where they leave much of the light unexplained, what they have found there is as wrong
    as the model, and it is the first guess.
    """
    spectra, errors = swept(problem, z_um, sweeps)
    left = _misfit(problem, errors).sum(1) > LITTLE * _light(problem).sum()
    spectra[left] = problem.first_guess()
    return spectra, torch.ones_like(errors) if how == EQUAL else weights(problem, errors)


def _at_the_edge(problem: Problem, unexplained: torch.Tensor) -> torch.Tensor:
    """Next to nothing for images at the pupil's edge that are explained far worse than their like, else 1: [z, image].

    Of tiles alone, which are lit at angles that are known and have neighbours: elsewhere such an image may be at odds
    because its LED is a little off, and tells more of the slow phase than any other.

    Where the edge runs through the light that the sample does not turn, it acts as a knife edge: what it makes of a
    point falls off as one over the distance. So what lies beyond the border reaches all of the field, and no margin is
    wide enough. What the object makes up for that is slow, strong and wrong.
    """
    instrument, optics = problem.forward.calibration, problem.forward.optics
    weight = torch.ones_like(unexplained)
    if not problem.curved or instrument.patterns is not None:
        return weight
    side_um = min(problem.dataset.image_shape) * optics.pixel_um
    near = np.abs(np.hypot(*instrument.na.T) - optics.na) * side_um / optics.wavelength_um < AT_EDGE
    bright = instrument.bright_field(optics)
    for like in (bright, ~bright):
        if like.sum() >= FEWEST:
            of_like = put(like, unexplained.device)
            usual = unexplained.masked_fill(~of_like, torch.nan).nanmedian(1, keepdim=True).values + RELATIVE
            odd = 1 / (1 + (unexplained / (ODD * usual)) ** ODDLY)
            weight = torch.where(put(near & like, unexplained.device), odd, weight)
    return weight


def _light(problem: Problem) -> torch.Tensor:
    """Mean measured intensity of each image."""
    return problem.amplitudes.square().mean((1, 2))


def _misfit(problem: Problem, errors: torch.Tensor) -> torch.Tensor:
    """What noise does not make of mean squared amplitude errors [z, image]."""
    return (errors - CLOSE * problem.noise.to(errors)).clamp_min(0)
