"""What a description of the LED board tells: the direction of each LED, and what else is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fpmtools.errors import DataError
from fpmtools.leds.patterns import direction_sines, orient

COLUMNS = ("gain", "exposure_ms", "background", "used")
_WORDS = {"1": 1.0, "true": 1.0, "yes": 1.0, "0": 0.0, "false": 0.0, "no": 0.0}


@dataclass(frozen=True, eq=False)
class Board:
    """Direction sines ``na`` [led, (x, y)], and what of a :class:`fpmtools.Calibration` is known; None: nothing.

    ``gain`` [led], relative intensity, 1 is nominal. Of images: ``background`` in their units, ``used``; ``patterns``
    [image, led] where several LEDs light an image. ``height_mm`` [led], how far their planes are from the sample.
    """

    na: NDArray[np.float64]
    gain: NDArray[np.float64] | None = None
    background: NDArray[np.float64] | None = None
    used: NDArray[np.bool_] | None = None
    patterns: NDArray[np.float64] | None = None
    height_mm: NDArray[np.float64] | None = None

    @property
    def images(self) -> int:
        """How many images there must be."""
        return len(self.na) if self.patterns is None else len(self.patterns)

    def turned(self, axes: str) -> Board:
        """The same board with its axes along others of the image, see :func:`fpmtools.leds.orient`."""
        return replace(self, na=orient(self.na, axes))

    def with_patterns(self, patterns: ArrayLike) -> Board:
        """The same board, its LEDs lit as ``patterns`` [image, led] say; :class:`DataError` where they do not fit."""
        weights = np.asarray(patterns, dtype=np.float64)
        if weights.ndim != 2 or weights.shape[1] != len(self.na):
            raise DataError(
                f"patterns must be [image, LED] with a column for each of the {len(self.na)} LEDs, got shape "
                f"{weights.shape}"
            )
        if not (np.isfinite(weights).all() and weights.min() >= 0):
            raise DataError("patterns must hold finite weights, 0 or more")
        if not weights.any(axis=1).all():
            raise DataError(f"patterns light no LED in image {int((~weights.any(axis=1)).argmax())}")
        for name in ("background", "used"):
            values = getattr(self, name)
            if values is not None and len(values) != len(weights):
                raise DataError(f"patterns are of {len(weights)} images, and {name} is of {len(values)}")
        return replace(self, patterns=weights)


def at(positions_mm: ArrayLike, height_mm: float) -> Board:
    """LEDs at ``positions_mm`` [led, (x, y)] over the middle of the field, in a plane ``height_mm`` from the sample."""
    na = direction_sines(positions_mm, height_mm)
    return Board(na, height_mm=np.full(len(na), float(height_mm)))


def board(na: NDArray[np.float64], columns: Mapping[str, Any], height_mm: NDArray[np.float64] | None = None) -> Board:
    """The board whose LEDs have these :data:`COLUMNS`, each a list with one value per LED.

    ``gain`` and ``exposure_ms`` are multiplied; the exposure of the LED nearest to the axis counts as 1.
    """
    found = {name: _column(name, columns[name], len(na)) for name in COLUMNS if name in columns}
    gain = found.get("gain")
    if (exposure := found.get("exposure_ms")) is not None:
        if exposure.min() <= 0:
            raise DataError("exposure_ms must be positive for every LED")
        relative = exposure / exposure[np.linalg.norm(na, axis=1).argmin()]
        gain = relative if gain is None else gain * relative
    used = found.get("used")
    lit = None if used is None else used != 0
    return Board(na, gain, found.get("background"), lit, height_mm=height_mm)


def _column(name: str, values: Any, count: int) -> NDArray[np.float64]:
    if not isinstance(values, list | tuple | np.ndarray) or len(values) != count:
        raise DataError(f"{name} must be a list of {count} numbers, one per LED")
    numbers = np.array([number(name, value) for value in values])
    bad = np.flatnonzero(~(np.isfinite(numbers) & (numbers >= 0)))
    if len(bad):
        raise DataError(f"{name} must be finite and 0 or more, and that of LED {bad[0]} is not")
    return numbers


def number(name: str, value: Any) -> float:
    """A number, or in ``used`` also yes and no; ValueError when it is none."""
    if name == "used":
        word = str(value).strip().lower().removesuffix(".0")
        if word not in _WORDS:
            raise ValueError(f"used must be 1 or 0, yes or no, got {word!r}")
        return _WORDS[word]
    return float(value)
