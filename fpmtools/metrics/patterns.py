"""What the errors of all images have in common: the first singular pictures of the residual over the LEDs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST = 3  # pictures
SIDE = 24  # samples of the longer side, at most: what is finer is mostly noise
DIGITS = 4  # of what is written down


@dataclass(frozen=True, eq=False)
class SingularPictures:
    """Σ_k loads[k, led] · pictures[k] comes as close as any ``k`` pictures can to the errors of the LEDs' images.

    ``pictures`` [k, y, x], rms 1 each, and ``loads`` [k, led]; positive where the camera has seen more than is
    predicted, in amplitudes whose squares are 1 in a mean bright-field image. ``shares`` [k] of the squared error, of
    what is left of it on so coarse a grid.
    """

    shares: NDArray[np.float64]
    pictures: NDArray[np.float64]
    loads: NDArray[np.float64]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, to four digits."""
        parts = {"shares": self.shares, "pictures": self.pictures, "loads": self.loads}
        return {name: _rounded(values.tolist()) for name, values in parts.items()}


def singular_pictures(errors: NDArray[np.float64], most: int = MOST) -> SingularPictures:
    """Of ``errors`` [led, y, x], at most ``most``; fewer where the errors have no more."""
    count, height, width = errors.shape
    left, values, right = np.linalg.svd(errors.reshape(count, -1), full_matrices=False)
    total = float(np.square(values).sum())
    kept = int((values[:most] ** 2 > 1e-12 * total).sum())
    # As they come, a picture and its loads have any sign: a picture shall be of more light rather than of less.
    signs = np.where(right[:kept].sum(1) < 0, -1.0, 1.0)
    size = np.sqrt(height * width)
    pictures = (signs[:, None] * right[:kept] * size).reshape(kept, height, width)
    loads = (signs * left[:, :kept] * values[:kept]).T / size
    return SingularPictures(np.square(values[:kept]) / max(total, 1e-300), pictures, loads)


def shrunk(images: NDArray[np.float64], side: int = SIDE) -> NDArray[np.float64]:
    """Means of ``images`` [..., y, x] over blocks, about square, of which the longer side has at most ``side``."""
    height, width = images.shape[-2:]
    step = max(height, width) / side
    if step <= 1:
        return images
    for axis, length in ((-2, height), (-1, width)):
        starts = np.unique(np.linspace(0, length, max(1, round(length / step)), endpoint=False).astype(int))
        counts = np.diff([*starts, length])
        total = np.add.reduceat(images, starts, axis=axis)
        images = total / (counts[:, None] if axis == -2 else counts)
    return images


def _rounded(values: Any) -> Any:
    return [_rounded(part) for part in values] if isinstance(values, list) else float(f"{values:.{DIGITS}g}")
