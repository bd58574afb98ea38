"""How far predicted amplitudes are from measured ones: losses that a solver can minimise, and their slopes.

A loss is a function ``loss(size, measured, weights) → (cost, slope)``: ``size`` [z, image, y, x] the predicted and
``measured`` [image, y, x] the measured amplitudes, ``weights`` what multiplies the cost of each pixel (broadcast
against ``size``; None: 1). ``cost`` [z, image] is summed over an image's pixels, ``slope`` [z, image, y, x] is its
derivative with respect to ``size``. All that are here are ½ (size − measured)² near their minimum, but for
:func:`feature`, so that a step that suits one suits the others. Neither argument is changed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from fpmtools.errors import unknown

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], tuple[torch.Tensor, torch.Tensor]]

OUTLIER = 1.0  # an amplitude error from which on its slope no longer grows; a clear sample has amplitude 1
DARK = 1e-4  # intensity that is added to both sides where light is counted: 1 is the mean of the bright field
FLAT = 1e-3  # gradient of the amplitude error per pixel that counts as none


def squares(
    size: torch.Tensor, measured: torch.Tensor, weights: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """½ e², e = size − measured: the error of classical projections."""
    error = size - measured
    slope = error if weights is None else error * weights
    return (slope * error).sum((-2, -1)) / 2, slope


def amplitude(
    size: torch.Tensor, measured: torch.Tensor, weights: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth L1 of the amplitudes: ½ e² for |e| ≤ 1 and |e| − ½ beyond.

    Photon noise is the same in all amplitudes, which makes squares the likelihood (Yeh et al., Opt. Express 23, 33214,
    2015); outliers count less.
    """
    error = size - measured
    slope = error.clamp(-OUTLIER, OUTLIER)
    middle = error.sub_(slope, alpha=0.5)
    if weights is not None:
        slope = slope * weights
    return middle.mul_(slope).sum((-2, -1)), slope


def poisson(
    size: torch.Tensor, measured: torch.Tensor, weights: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of counted light: (p − q − q ln(p/q)) / 4, p and q predicted and measured intensity + ε.

    The likelihood of counted photons (Bian et al., Biomed. Opt. Express 7, 3543, 2016), which squares of amplitudes
    come close to where there are many. ε keeps dark pixels finite.
    """
    p, q = size.square() + DARK, measured.square() + DARK
    cost = (p - q - q * (p / q).log()) / 4
    slope = size * (1 - q / p) / 2
    if weights is not None:
        cost, slope = cost * weights, slope * weights
    return cost.sum((-2, -1)), slope


def feature(
    size: torch.Tensor, measured: torch.Tensor, weights: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Feature domain: √(|∇e|² + ε²) − ε, ∇ differences to the next pixel, none across the border.

    A constant error of an image drops out and a smooth one nearly: forgives background, vignetting and gains (Zhang et
    al., Optica 11, 634, 2024).
    """
    error = size - measured
    down, right = torch.zeros_like(error), torch.zeros_like(error)
    torch.sub(error[..., 1:, :], error[..., :-1, :], out=down[..., :-1, :])
    torch.sub(error[..., 1:], error[..., :-1], out=right[..., :-1])
    norm = (down.square() + right.square() + FLAT**2).sqrt()
    cost = norm - FLAT
    down, right = down / norm, right / norm
    if weights is not None:
        weights = weights * _whole(weights)
        cost, down, right = cost * weights, down * weights, right * weights
    slope = -(down + right)
    slope[..., 1:, :] += down[..., :-1, :]
    slope[..., 1:] += right[..., :-1]
    return cost.sum((-2, -1)), slope


def _whole(weights: torch.Tensor) -> torch.Tensor:
    """[..., y, x] bool: the differences from a pixel are to pixels that count."""
    counts = weights > 0
    whole = counts.clone()
    whole[..., :-1, :] &= counts[..., 1:, :]
    whole[..., :-1] &= counts[..., 1:]
    return whole


DEFAULT = "amplitude"
LOSSES: dict[str, Loss] = {"amplitude": amplitude, "poisson": poisson, "feature": feature}


def find(loss: str | Loss) -> tuple[str, Loss]:
    """Name and function of a loss, by name or as a function of one's own; :class:`OptionError` for an unknown name."""
    if callable(loss):
        return getattr(loss, "__name__", "loss"), loss
    if loss not in LOSSES:
        raise unknown("loss", loss, LOSSES)
    return loss, LOSSES[loss]
