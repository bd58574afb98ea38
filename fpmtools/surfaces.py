"""Smooth functions of the place in a field: a constant, a plane or a curved surface through what a few places say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools.errors import DataError
from fpmtools.optics import Box

Floats = NDArray[np.float64]

POWERS = ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))  # of y and x
FEWEST = {1: 1, 3: 5, 6: 8}  # places that a constant, a plane and a curved surface need, by their number of terms
PAYS = 0.7  # of the error at places that were left out, that a surface with more terms may have at most
OUTLYING = 2.0  # typical errors, beyond which a place counts less and less
ROUNDS = 10  # of weighing places anew


@dataclass(frozen=True, eq=False)
class Surface:
    """Numbers that change over the field, each Σ c · yⁱ xʲ with y and x from −1 to 1 over ``place``.

    Parameters
    ----------
    coefficients
        [value, term], one, three or six terms in the order of :data:`POWERS`.
    place
        (y, x, height, width) in camera pixels from the corner of the field of view.
    """

    coefficients: Floats
    place: tuple[float, float, float, float]

    def __post_init__(self) -> None:
        known = self.coefficients
        if known.ndim != 2 or known.shape[1] not in FEWEST or not np.isfinite(known).all():
            raise DataError(f"surface: coefficients must be finite and [value, 1, 3 or 6], got shape {known.shape}")
        if len(self.place) != 4 or not np.isfinite(self.place).all() or min(self.place[2:]) <= 0:
            raise DataError("surface: its place must be (y, x, height, width) in camera pixels")

    def at(self, boxes: Sequence[Box]) -> Floats:
        """The numbers in the middle of each box, [box, value]."""
        return np.asarray(_matrix(_within(boxes, self.place), self.coefficients.shape[1]) @ self.coefficients.T)

    def seen_from(self, y: float, x: float) -> Surface:
        """The same, of a field of view whose corner is that camera pixel (y, x) of this one."""
        top, left, height, width = self.place
        return replace(self, place=(top - y, left - x, height, width))

    def plus(self, more: Floats) -> Surface:
        """With these numbers [value] more everywhere; there may be more or fewer of them than there are."""
        count = max(len(more), len(self.coefficients))
        coefficients = np.zeros((count, self.coefficients.shape[1]))
        coefficients[: len(self.coefficients)] = self.coefficients
        coefficients[: len(more), 0] += more
        return replace(self, coefficients=coefficients)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"coefficients": self.coefficients.tolist(), "place": list(self.place)}


def fit(boxes: Sequence[Box], values: Floats, place: tuple[float, float, float, float], small: float = 0.0) -> Surface:
    """The surface through ``values`` [box, value] in the middles of boxes; a value that is off by far counts little.

    Of each value that of the fewest terms which says of places that it was not given what is found there; of more than
    a constant only where that changes by more than ``small``.
    """
    places, found = _within(boxes, place), []
    for given in np.asarray(values, np.float64).T:
        best, error = np.array([np.median(given)]), _left_out(places, given, 1)
        for terms, fewest in FEWEST.items():
            matrix = _matrix(places, terms)
            if terms == 1 or len(boxes) < fewest or np.linalg.matrix_rank(matrix) < terms:
                continue
            other = _left_out(places, given, terms)
            coefficients = robust(matrix, given)
            if other < PAYS * error and np.ptp(matrix @ coefficients) > small:
                best, error = coefficients, other
        found.append(best)
    terms = max(map(len, found))
    return Surface(np.stack([np.pad(one, (0, terms - len(one))) for one in found]), place)


def robust(matrix: Floats, values: Floats) -> Floats:
    """Least squares in which what is far off counts little."""
    weight: Floats = np.ones(len(values))
    coefficients: Floats = np.zeros(matrix.shape[1])
    for _ in range(ROUNDS):
        root = np.sqrt(weight)
        coefficients = np.asarray(np.linalg.lstsq(matrix * root[:, None], values * root, rcond=None)[0], np.float64)
        left = values - matrix @ coefficients
        typical = max(1.5 * float(np.median(np.abs(left))), 1e-9)
        weight = 1 / (1 + (left / (OUTLYING * typical)) ** 2)
    return coefficients


def _left_out(places: Floats, values: Floats, terms: int) -> float:
    """Median error at each place of a surface through the others."""
    if len(values) < 2:
        return 0.0
    errors = []
    for k in range(len(values)):
        others = np.arange(len(values)) != k
        coefficients = robust(_matrix(places[others], terms), values[others])
        errors.append(abs(float((_matrix(places[k : k + 1], terms) @ coefficients)[0]) - values[k]))
    return float(np.median(errors))


def _within(boxes: Sequence[Box], place: tuple[float, float, float, float]) -> Floats:
    """Middles of the boxes [box, (y, x)], from −1 to 1 over ``place``."""
    middles = np.array([(y + h / 2, x + w / 2) for y, x, h, w in boxes])
    return np.asarray(2 * (middles - place[:2]) / np.array(place[2:]) - 1)


def _matrix(places: Floats, terms: int) -> Floats:
    return np.stack([places[:, 0] ** i * places[:, 1] ** j for i, j in POWERS[:terms]], axis=1)
