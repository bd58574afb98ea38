"""How fields are shown: contrast that no stray pixel decides, round scale bars. All NumPy."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLIPPED_PERCENT = 0.2  # of the pixels are darker, and as many brighter, than the ends of a grey or colour scale


@dataclass(frozen=True)
class Scale:
    """Colour map (a matplotlib name) and its two ends."""

    cmap: str
    low: float
    high: float


FULL_CIRCLE = Scale("twilight_shifted", -math.pi, math.pi)


def gray_scale(images: Iterable[NDArray[np.floating[Any]]]) -> Scale:
    """Grey scale shared by real ``images`` (any shapes): black and white cut off 0.2 % of the pixels each.

    It spans at least 2 % of its brighter end, so that a blank image stays blank instead of showing rounding errors.
    """
    low, high = _percentiles(images)
    return Scale("gray", *_widened(low, high, max(0.02 * max(abs(low), abs(high)), 1e-6)))


def phase_scale(fields: Iterable[NDArray[np.complexfloating[Any, Any]]]) -> Scale:
    """Colour scale for the phases of ``fields``, free of piston: cyclic over ±π where the phase wraps, else linear.

    Pixels darker than a fifth of the median amplitude have no meaningful phase and have no say. A linear scale spans
    at least 0.1 rad.
    """
    bright = []
    for field in fields:
        amplitude = np.abs(field)
        bright.append(np.angle(field)[amplitude >= 0.2 * np.median(amplitude)])
    low, high = _percentiles(bright)
    if max(-low, high) > 0.9 * math.pi or high - low > 1.5 * math.pi:
        return FULL_CIRCLE
    return Scale("viridis", *_widened(low, high, 0.1))


def scale_bar_um(width_um: float) -> float:
    """The longest of 1, 2 or 5 × 10ⁿ µm that is at most 30 % of ``width_um``."""
    room = 0.3 * width_um
    decade = 10.0 ** math.floor(math.log10(room))
    return max(step * decade for step in (1, 2, 5) if step * decade <= room * (1 + 1e-9))


def length_label(length_um: float) -> str:
    """A length with its unit, such as ``20 µm`` or ``500 nm``."""
    return f"{length_um:g} µm" if length_um >= 1 else f"{length_um * 1e3:g} nm"


def z_label(z_um: float) -> str:
    """``z = −3.5 µm``, with a true minus sign."""
    return f"z = {0.0 if abs(z_um) < 5e-4 else z_um:.4g} µm".replace("-", "−")


def _percentiles(images: Iterable[NDArray[np.floating[Any]]]) -> tuple[float, float]:
    ends = [np.percentile(image, (CLIPPED_PERCENT, 100 - CLIPPED_PERCENT)) for image in images if image.size]
    return (float(min(low for low, _ in ends)), float(max(high for _, high in ends))) if ends else (0.0, 0.0)


def _widened(low: float, high: float, least: float) -> tuple[float, float]:
    missing = max(least - (high - low), 0.0) / 2
    return low - missing, high + missing
