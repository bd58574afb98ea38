"""Where a slide is in focus: a few tiles are searched, and a smooth surface goes through what they say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools.calibrate import focus, part
from fpmtools.calibrate.instrument import Instrument
from fpmtools.calibration import Calibration
from fpmtools.dataset import Dataset
from fpmtools.optics import Box, Optics
from fpmtools.tiling.plan import Plan

Floats = NDArray[np.float64]

PLACES = 3  # tiles that are searched along each axis
TERMS = {1: ((0, 0),), 3: ((0, 0), (1, 0), (0, 1)), 6: ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))}
FEWEST = {3: 5, 6: 8}  # places that a plane, and a curved surface, need
PAYS = 0.7  # of the error at places that were left out, that a surface with more terms may have at most
SMALL = 0.1  # depths of field, that a surface must differ from a constant by
FINE = 0.125  # depths of field, between the depths that are looked at last
OUTLYING = 2.0  # typical errors, beyond which a place counts less and less


@dataclass(frozen=True)
class Surface:
    """z = Σ c · yⁱ xʲ, with y and x from −1 to 1 over the frame: ``coefficients`` in the order of :data:`TERMS`."""

    frame: tuple[int, int]
    coefficients: tuple[float, ...]

    def at(self, boxes: Sequence[Box]) -> Floats:
        """z in the middle of each box, µm."""
        return np.asarray(_matrix(_places(boxes, self.frame), len(self.coefficients)) @ np.array(self.coefficients))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"frame": list(self.frame), "coefficients": list(self.coefficients)}


def find(
    dataset: Dataset,
    calibrated: Callable[[Dataset], Calibration],
    plan: Plan,
    z_um: float,
    on_step: Callable[[int, int], object],
) -> tuple[Surface, dict[str, float]]:
    """The surface through the depths of a few tiles, and these depths by the tiles' names.

    ``calibrated`` gives the instrument as a part of the field sees it; ``z_um`` is where the middle was found.
    """
    chosen = searched(plan)
    found = {}
    for k, index in enumerate(chosen):
        on_step(k, len(chosen))
        region = dataset.crop(*plan.tiles[index].box)
        found[plan.tiles[index].name] = depth(region, calibrated(region), z_um)
    boxes = [plan.tiles[index].box for index in chosen]
    return fit(boxes, list(found.values()), plan.frame, dataset.optics), found


def searched(plan: Plan) -> list[int]:
    """Numbers of the tiles that are searched: three by three of them, spread over the field."""
    rows, columns = (
        sorted({round(k) for k in np.linspace(0, n - 1, min(PLACES, n))}) for n in (len(plan.rows), len(plan.columns))
    )
    return [row * len(plan.columns) + column for row in rows for column in columns]


def depth(dataset: Dataset, calibration: Calibration, z_um: float) -> float:
    """Where the sample is in this part of the field, µm, looked for from ``z_um`` on."""
    chosen = part.region(dataset.select(np.flatnonzero(calibration.used)))
    seen = calibration.selected().seen_from(chosen.box, dataset.box, dataset.optics.pixel_um)
    chosen = replace(chosen, calibration=seen)
    bright = [int(i) for i in np.flatnonzero(seen.bright_field(dataset.optics))]
    problem, instrument = part.problem(chosen, z_um, part.margin(chosen, z_um)), Instrument.of(seen, dataset.optics.na)
    near = focus.search(problem, instrument, bright)
    step_um = FINE * dataset.optics.depth_of_field_um
    return focus.search(replace(problem, z_um=(near,)), instrument, bright, step_um, between=True)


def fit(boxes: Sequence[Box], z_um: Sequence[float], frame: tuple[int, int], optics: Optics) -> Surface:
    """The surface of lowest order that says of places that it was not given what is found there."""
    places, depths = _places(boxes, frame), np.array(z_um)
    best = Surface(frame, (float(np.median(depths)),))
    error = _left_out(places, depths, 1)
    for terms, fewest in FEWEST.items():
        spread = len(boxes) >= fewest and np.linalg.matrix_rank(_matrix(places, terms)) == terms
        if spread and (other := _left_out(places, depths, terms)) < PAYS * error:
            coefficients = _robust(_matrix(places, terms), depths)
            if np.ptp(_matrix(places, terms) @ coefficients) > SMALL * optics.depth_of_field_um:
                best, error = Surface(frame, tuple(coefficients.tolist())), other
    return best


def _left_out(places: Floats, depths: Floats, terms: int) -> float:
    """Median error at each place of a surface through the others."""
    if len(depths) < 2:
        return 0.0
    errors = []
    for k in range(len(depths)):
        others = np.arange(len(depths)) != k
        coefficients = _robust(_matrix(places[others], terms), depths[others])
        errors.append(abs(float((_matrix(places[k : k + 1], terms) @ coefficients)[0]) - depths[k]))
    return float(np.median(errors))


def _robust(matrix: Floats, depths: Floats) -> Floats:
    """Least squares in which what is far off counts little."""
    weight: Floats = np.ones(len(depths))
    coefficients: Floats = np.zeros(matrix.shape[1])
    for _ in range(10):
        root = np.sqrt(weight)
        coefficients = np.asarray(np.linalg.lstsq(matrix * root[:, None], depths * root, rcond=None)[0], np.float64)
        left = depths - matrix @ coefficients
        typical = max(1.5 * float(np.median(np.abs(left))), 1e-9)
        weight = 1 / (1 + (left / (OUTLYING * typical)) ** 2)
    return np.asarray(coefficients)


def _places(boxes: Sequence[Box], frame: tuple[int, int]) -> Floats:
    """Middles of the boxes [box, (y, x)], from −1 to 1 over the frame."""
    middles = np.array([(y + h / 2, x + w / 2) for y, x, h, w in boxes])
    return np.asarray(2 * middles / np.array(frame) - 1)


def _matrix(places: Floats, terms: int) -> Floats:
    return np.stack([places[:, 0] ** i * places[:, 1] ** j for i, j in TERMS[terms]], axis=1)
