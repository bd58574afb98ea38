"""What an object's own spectrum says about what is light in it and what is noise.

The spectrum is taken as independent complex normal variables whose variance S depends on |f| alone, and S is found from
the estimate itself, ring by ring: what lies there, without what noise alone leaves there (the evidence procedure of
MacKay, Neural Comput. 4, 415, 1992, with the steps of expectation-maximisation). The most probable object then moves
towards zero where few and dark LEDs have measured mostly noise, and stays as it is everywhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from fpmtools.transfer import put

if TYPE_CHECKING:
    from fpmtools.forward import ForwardModel

RING = 0.1  # width of the rings, |f| in units of NA/λ
SEEN = 1e-3  # of the largest coverage: less is an edge, of which a ring has all sorts
CENTRE = 0.15  # nothing is expected of what lies nearer to the axis
LEAST = 0.1  # of the noise's power: a ring holds at least so much light


class SpectralPrior:
    """Expected power of spectra [z, H, W], and what it adds to their coverage.

    Parameters
    ----------
    forward
        Whose object grid it is.
    coverage
        C [z, H, W] = Σ over LEDs of weight · |P|² / (h w): the curvature of ½ Σ e² of the amplitudes by the spectrum.
    """

    # Solvers stop early, which keeps noise out as well: with all of it, data without misfit lose 1.5 dB of the phase.
    WEIGHT = 0.5  # of λ, that is good for solvers

    def __init__(self, forward: ForwardModel, coverage: torch.Tensor) -> None:
        axes = [
            (torch.arange(n, dtype=torch.float64, device=coverage.device) - n // 2) / extent / forward.optics.cutoff
            for n, extent in zip(forward.object_shape, forward.extent_um, strict=True)
        ]
        self.radius = torch.hypot(*torch.meshgrid(*axes, indexing="ij"))
        self.coverage = coverage
        self.ring = (self.radius / RING).long()
        self.count = int(self.ring.max()) + 1

    def __call__(self, spectra: torch.Tensor, variance: torch.Tensor, before: torch.Tensor | None) -> torch.Tensor:
        """λ [z, H, W]: ½ Σ e² + ½ Σ λ |O|² is what the most probable object minimises.

        ``variance`` [z] of the amplitudes; ``before``: λ that ``spectra`` were found with, None for none. λ = 2
        variance / S, for of each complex number an amplitude measures one part.
        """
        noise = 4 * variance[:, None, None] / (self.coverage + (0 if before is None else 2 * before))
        seen = self.coverage > SEEN * self.coverage.amax((1, 2), keepdim=True)
        light, left = (self._means(values, seen) for values in (spectra.abs().square(), noise))
        expected = np.maximum(light - left, LEAST * left) if before is None else light + left
        prior = 2 * variance[:, None, None] / self._spread(expected, noise.dtype)
        return prior.masked_fill_(self.radius < CENTRE, 0)

    def _means(self, values: torch.Tensor, inside: torch.Tensor) -> NDArray[np.float64]:
        """Of [z, H, W] in each ring, [z, ring]; NaN where nothing is seen. The only place where a GPU is waited for."""
        pairs = zip(values, inside, strict=True)
        means = [self._sums(torch.where(there, own, 0)) / self._sums(there) for own, there in pairs]
        return np.asarray(torch.stack(means).cpu().numpy())

    def _sums(self, values: torch.Tensor) -> torch.Tensor:
        """Of [H, W] in each ring, [ring] float64."""
        sums = torch.zeros(self.count, dtype=torch.float64, device=values.device)
        return sums.index_add_(0, self.ring.flatten(), values.flatten().double())

    def _spread(self, rings: NDArray[np.float64], dtype: torch.dtype) -> torch.Tensor:
        """Of rings [z, ring] on the grid, [z, H, W]: between the rings' middles, straight lines of the logarithm."""
        every, known = np.arange(self.count), np.isfinite(rings)
        log = [
            np.interp(every, every[seen], np.log(np.maximum(own[seen], 1e-30)))
            for own, seen in zip(rings, known, strict=True)
        ]
        at = (self.radius / RING - 0.5).clamp(0, self.count - 1)
        low = at.long().clamp_max(max(self.count - 2, 0))
        high, share = (low + 1).clamp_max(self.count - 1), at - low
        nodes = put(np.stack(log), at.device)
        return torch.stack([torch.lerp(own[low], own[high], share).exp().to(dtype) for own in nodes])
